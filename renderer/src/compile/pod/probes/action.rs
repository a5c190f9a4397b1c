//! The action of a probe, in the terms of the agent.

use std::fmt::Write as _;

use flotta_bundle::code;
use flotta_bundle::health::{Action, Header, MAX_COMMAND_BYTES, MAX_HEADERS, MAX_PLACE_BYTES};
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::context::ContainerContext;
use super::super::env::expand;
use crate::compile::job::Job;

/// Returns the action of a probe, or reports why there is none.
pub(super) fn action(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    probe: &Probe,
    pointer: &str,
) -> Option<Action> {
    match (&probe.exec, &probe.http_get, &probe.tcp_socket, &probe.grpc) {
        (Some(exec), None, None, None) => {
            let command = expanded(job, context, exec.command.as_deref().unwrap_or_default());
            is_command(job, &command, &format!("{pointer}/exec/command"))
                .then_some(Action::Exec { command })
        }
        (None, Some(http), None, None) => {
            request(job, context, http, &format!("{pointer}/httpGet"))
        }
        (None, None, Some(tcp), None) => {
            let pointer = format!("{pointer}/tcpSocket");
            Some(Action::Tcp {
                host: host(job, tcp.host.as_ref(), &format!("{pointer}/host"))?,
                port: port(job, context, &tcp.port, &format!("{pointer}/port"))?,
            })
        }
        // This is reported already.
        (None, None, None, Some(_)) => None,
        _ => {
            let message = "a probe needs exactly one of `exec`, `httpGet` and `tcpSocket`";
            job.refuse(code::SCHEMA, pointer, message);
            None
        }
    }
}

/// The words of a command, as kubelet expands them: it knows the values that are written at `env`, and nothing else.
fn expanded(job: &Job<'_>, context: ContainerContext<'_>, command: &[String]) -> Vec<String> {
    let variables = context.container.env.iter().flatten();
    let variables: Vec<_> = variables
        .map(|variable| {
            (
                variable.name.clone(),
                variable.value.clone().unwrap_or_default(),
            )
        })
        .collect();
    let words = command.iter().take_while(|_| !job.words.is_used_up());
    words.map(|word| expand(word, &variables)).collect()
}

fn is_command(job: &mut Job<'_>, command: &[String], pointer: &str) -> bool {
    let bytes: usize = command.iter().map(|word| word.len() + 1).sum();
    if command.first().is_none_or(String::is_empty) {
        job.refuse(code::SCHEMA, pointer, "a command needs a program");
        return false;
    }
    if bytes > MAX_COMMAND_BYTES {
        let message =
            format!("the command has {bytes} bytes, at most {MAX_COMMAND_BYTES} are allowed");
        job.refuse(code::LIMIT, pointer, message);
        return false;
    }
    job.command(command, pointer)
}

fn request(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    http: &HTTPGetAction,
    pointer: &str,
) -> Option<Action> {
    let at = |field: &str| format!("{pointer}/{field}");
    let tls = match http.scheme.as_deref() {
        None | Some("" | "HTTP") => Some(false),
        Some("HTTPS") => Some(true),
        Some(other) => {
            let message = format!("`{other}`: use HTTP or HTTPS");
            job.refuse(code::SCHEMA, &at("scheme"), message);
            None
        }
    };
    let host = host(job, http.host.as_ref(), &at("host"));
    let port = port(job, context, &http.port, &at("port"));
    let path = path(http.path.as_deref().unwrap_or_default());
    if path.len() > MAX_PLACE_BYTES {
        let message = format!("a path has at most {MAX_PLACE_BYTES} bytes");
        job.refuse(code::LIMIT, &at("path"), message);
        return None;
    }
    let headers = headers(job, http, &at("httpHeaders"));
    Some(Action::Http {
        tls: tls?,
        host: host?,
        port: port?,
        path,
        headers: headers?,
    })
}

/// Returns the path as it is sent: escaped, and without the fragment.
fn path(given: &str) -> String {
    let given = given.split('#').next().unwrap_or_default();
    let mut path = String::new();
    if !given.starts_with('/') {
        path.push('/');
    }
    for byte in given.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn headers(job: &mut Job<'_>, http: &HTTPGetAction, pointer: &str) -> Option<Vec<Header>> {
    let given = http.http_headers.iter().flatten();
    let headers: Vec<_> = given
        .map(|header| Header {
            name: header.name.clone(),
            value: header.value.clone(),
        })
        .collect();
    if headers.len() > MAX_HEADERS {
        let message = format!(
            "{} headers, at most {MAX_HEADERS} are allowed",
            headers.len()
        );
        job.refuse(code::LIMIT, pointer, message);
        return None;
    }
    let mut good = true;
    for (at, header) in headers.iter().enumerate() {
        if !header.is_good() {
            let message = format!("`{}` is not a header that can be sent", header.name);
            job.refuse(code::SCHEMA, &format!("{pointer}/{at}"), message);
            good = false;
        }
    }
    good.then_some(headers)
}

/// Returns the host if one is given, or reports why it is invalid.
#[expect(
    clippy::option_option,
    reason = "the outer option says whether it is valid"
)]
fn host(job: &mut Job<'_>, given: Option<&String>, pointer: &str) -> Option<Option<String>> {
    let Some(host) = given.filter(|host| !host.is_empty()) else {
        return Some(None);
    };
    let is_name = flotta_bundle::name::check_subdomain(&host.to_ascii_lowercase()).is_ok();
    if is_name || host.parse::<std::net::IpAddr>().is_ok() {
        return Some(Some(host.clone()));
    }
    let message = format!("`{host}` is not a host name or an address");
    job.refuse(code::SCHEMA, pointer, message);
    None
}

/// Returns the port of a number, or of the name of one of the container's ports.
fn port(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    given: &IntOrString,
    pointer: &str,
) -> Option<u16> {
    let number = match given {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let ports = context.container.ports.iter().flatten();
            let mut named = ports.filter(|port| port.name.as_ref() == Some(name));
            let named = named.next().map(|port| i64::from(port.container_port));
            let Some(number) = named.or_else(|| name.parse().ok()) else {
                let message = format!("the container has no port named `{name}`");
                job.refuse(code::MISSING_REFERENCE, pointer, message);
                return None;
            };
            number
        }
    };
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        let message = format!("{number} is not a port: use a number from 1 to 65535");
        job.refuse(code::SCHEMA, pointer, message);
    }
    port
}
