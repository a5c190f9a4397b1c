//! Checks that the agent makes of containers, with the meaning that Kubernetes' probes have.

use serde::{Deserialize, Serialize};

/// Most checks in a manifest: each can have a connection open at the same time.
pub const MAX_CHECKS: usize = 2_000;
/// Longest host or path of a check, in bytes.
pub const MAX_PLACE_BYTES: usize = 2 << 10;
/// Most headers of a request.
pub const MAX_HEADERS: usize = 32;
/// Longest header, name and value together, in bytes.
pub const MAX_HEADER_BYTES: usize = 4 << 10;
/// Longest command, all words together, in bytes.
pub const MAX_COMMAND_BYTES: usize = 32 << 10;

/// A check of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// The unit that runs the container: one of the manifest's.
    pub unit: String,
    /// The container's name in Podman.
    pub container: String,
    /// What the check is for.
    pub purpose: Purpose,
    /// How the container is checked.
    pub action: Action,
    /// Seconds after the container's start during which the check is not made.
    pub delay_seconds: u32,
    /// Seconds from one check to the next, at least 1.
    pub period_seconds: u32,
    /// Seconds that it may take, at least 1.
    pub timeout_seconds: u32,
    /// After how many failures in a row it counts as failed, at least 1.
    pub failures: u32,
    /// After how many successes in a row it counts as passed, at least 1. For startup and liveness it is 1.
    pub successes: u32,
}

/// What a check is for. A container has at most one for each purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Until it has passed once, the other checks are not made. When it fails, the container is stopped, and systemd decides whether to start it again.
    Startup,
    /// When it fails, the container is stopped, and systemd decides whether to start it again.
    Liveness,
    /// While it has not passed, or fails, the workload is reported as not ready. Nothing is stopped.
    Readiness,
}

/// How a container is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Action {
    /// An HTTP GET request. Every answer from 200 to 399 is a success. Redirects are followed within the host, ten of them at most; one to another host is a success.
    Http {
        /// Whether it is https. The certificate is not verified.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
        /// Name or address. Without one, it is the container's own address, or 127.0.0.1 where its network is the device's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Port.
        port: u16,
        /// Path and query, from the first `/` on.
        path: String,
        /// Headers, in order; `Host` replaces the default one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<Header>,
    },
    /// A TCP connection: it is a success if the connection is established.
    Tcp {
        /// As for `http`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A command in the container: exit code 0 is a success.
    Exec {
        /// Program and arguments; no shell.
        command: Vec<String>,
    },
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Purpose {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

impl HealthCheck {
    /// Returns what distinguishes checks, which is also their order.
    pub fn key(&self) -> (&str, &str, Purpose) {
        (&self.unit, &self.container, self.purpose)
    }

    /// Checks the rules that types cannot express.
    pub(crate) fn check(&self) -> Result<(), String> {
        let why = self.broken();
        let who = || format!("{} check of {}", self.purpose.as_str(), self.unit);
        why.map_or(Ok(()), |why| Err(format!("{}: {why}", who())))
    }

    fn broken(&self) -> Option<&'static str> {
        let Self {
            unit: _,
            container,
            purpose,
            action,
            delay_seconds: _,
            period_seconds,
            timeout_seconds,
            failures,
            successes,
        } = self;
        let numbers = [period_seconds, timeout_seconds, failures, successes];
        if numbers.into_iter().any(|number| *number == 0) {
            return Some("a period, timeout or threshold is 0");
        }
        if *purpose != Purpose::Readiness && *successes != 1 {
            return Some("only readiness may need more than one success");
        }
        if !is_container(container) {
            return Some("not the name of a container");
        }
        match action {
            Action::Http {
                tls: _,
                host,
                port,
                path,
                headers,
            } => broken_place(host.as_deref(), *port).or_else(|| broken_request(path, headers)),
            Action::Tcp { host, port } => broken_place(host.as_deref(), *port),
            Action::Exec { command } => broken_command(command),
        }
    }
}

fn is_container(name: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    first && name.len() <= 255 && name.bytes().all(rest)
}

fn broken_place(host: Option<&str>, port: u16) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let is_host = |host: &str| (1..=253).contains(&host.len()) && host.bytes().all(plain);
    if host.is_some_and(|host| !is_host(host)) {
        return Some("not a host");
    }
    (port == 0).then_some("port 0")
}

fn broken_request(path: &str, headers: &[Header]) -> Option<&'static str> {
    if !is_path(path) {
        return Some("not a path");
    }
    if headers.len() > MAX_HEADERS {
        return Some("too many headers");
    }
    let good = headers.iter().all(Header::is_good);
    (!good).then_some("not a header")
}

/// Whether text is the path and query of a URL.
fn is_path(path: &str) -> bool {
    let good = |b: u8| b.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&b);
    path.starts_with('/') && path.len() <= MAX_PLACE_BYTES && path.bytes().all(good)
}

impl Header {
    /// Whether it can be sent (RFC 9110, 5.6.2 and 5.5), and is not too long.
    pub fn is_good(&self) -> bool {
        let Self { name, value } = self;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let text = |b: u8| (b' '..=b'~').contains(&b) || b == b'\t';
        let is_short = name.len() + value.len() <= MAX_HEADER_BYTES;
        is_short && !name.is_empty() && name.bytes().all(token) && value.bytes().all(text)
    }
}

fn broken_command(command: &[String]) -> Option<&'static str> {
    let bytes: usize = command.iter().map(|word| word.len() + 1).sum();
    if command.first().is_none_or(String::is_empty) {
        return Some("a command without a program");
    }
    if bytes > MAX_COMMAND_BYTES || command.iter().any(|word| word.contains('\0')) {
        return Some("a command that is too long, or has a NUL in it");
    }
    None
}

#[cfg(test)]
mod tests;
