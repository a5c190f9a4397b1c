//! Paths a manifest may name on a device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest path, in bytes. Linux allows 4096 in a call; temporary names next to the target need room.
pub const MAX_PATH: usize = 1024;
/// Longest component, in bytes: 255 on every file system a device runs, less the suffix of a temporary name.
pub const MAX_COMPONENT: usize = 200;

/// Folders in which a manifest may have files unless the device's policy allows more: see [`crate::policy`].
pub const DEFAULT_PREFIXES: [&str; 3] = [
    // Quadlet's folder for system units (podman-systemd.unit(5))
    "/etc/containers/systemd/",
    // files that workloads mount: /etc/flotta/workloads/WORKLOAD/VOLUME/KEY
    "/etc/flotta/workloads/",
    // systemd's folder for units: see `UNITS` for those that a release may have
    "/etc/systemd/system/",
];

/// The folder from which systemd reads units: timers, sockets and others next to Quadlet files. A release may have `NAME.KIND` and
/// `NAME.KIND.d/DROPIN.conf` there, for the kinds of [`UNIT_KINDS`].
pub const UNITS: &str = "/etc/systemd/system/";

/// The kinds of units that a release may name.
pub const UNIT_KINDS: [&str; 5] = ["service", "timer", "socket", "path", "target"];

/// Whether a name is a unit name as systemd.unit(5) defines it, without escapes and with at most one `@`.
pub fn is_unit_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return false;
    };
    UNIT_KINDS.contains(&kind)
        && name.len() <= 255
        && name.bytes().all(plain)
        && !stem.is_empty()
        && !stem.starts_with(['.', '-', '@'])
        && stem.matches('@').count() <= 1
}

/// Whether a path below [`UNITS`] is that of a unit or of a drop-in.
fn is_unit_file(name: &str) -> bool {
    match name.split_once('/') {
        None => is_unit_name(name),
        Some((folder, file)) => {
            folder.strip_suffix(".d").is_some_and(is_unit_name)
                && file
                    .strip_suffix(".conf")
                    .is_some_and(|stem| !stem.is_empty() && !stem.contains('/'))
        }
    }
}

/// An absolute, normalised path of printable ASCII. The device's policy decides whether a release may have a file there.
///
/// Only ASCII, because two names that differ only in Unicode normalisation look the same to a reviewer, but not to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DevicePath(String);

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path `{path}` is refused: {why}")]
pub struct PathError {
    path: String,
    why: &'static str,
}

impl PathError {
    /// Returns what is wrong with it.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl DevicePath {
    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

fn refusal(path: &str) -> Option<&'static str> {
    if path.len() > MAX_PATH {
        return Some("longer than 1024 bytes");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Some("a character that is not printable ASCII, or a space or backslash");
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Some("not absolute");
    };
    for component in rest.split('/') {
        match component {
            "" => return Some("an empty component"),
            "." | ".." => return Some("a `.` or `..` component"),
            long if long.len() > MAX_COMPONENT => return Some("a component longer than 200 bytes"),
            _ => {}
        }
    }
    if path
        .strip_prefix(UNITS)
        .is_some_and(|name| !is_unit_file(name))
    {
        return Some("not a unit, or a drop-in of one, that a release may have");
    }
    None
}

impl FromStr for DevicePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        match refusal(path) {
            None => Ok(Self(path.to_owned())),
            Some(why) => Err(PathError {
                path: path.chars().take(120).collect(),
                why,
            }),
        }
    }
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DevicePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_pass() {
        assert!(
            "/etc/containers/systemd/web.container"
                .parse::<DevicePath>()
                .is_ok()
        );
        for path in [
            "/etc/systemd/system/job.timer",
            "/etc/systemd/system/job@.service",
            "/etc/systemd/system/web.service.d/10.conf",
        ] {
            assert!(path.parse::<DevicePath>().is_ok(), "{path:?}");
        }
        for path in [
            "/etc/systemd/system/",
            "/etc/systemd/system/data.mount",
            "/etc/systemd/system/job",
            "/etc/systemd/system/@.service",
            "/etc/systemd/system/timers.target.wants/job.timer",
            "/etc/systemd/system/web.service.d/10.txt",
            "/etc/systemd/system/web.service.d/a/10.conf",
            "/etc/systemd/system/service.d/10.conf",
            "",
            "/",
            "etc/containers/systemd/a",
            "/etc/containers/systemd/",
            "/etc/containers/systemd//a",
            "/etc/containers/systemd/../../shadow",
            "/etc/containers/systemd/./a",
            "/etc/containers/systemd/a/",
            "/etc/containers/systemd/a\0b",
            "/etc/containers/systemd/a\nb",
            "/etc/containers/systemd/a\u{301}",
            "/etc/containers/systemd/a b",
            &format!("/etc/flotta/workloads/{}", "a/".repeat(600)),
            &format!("/etc/flotta/workloads/{}", "a".repeat(201)),
        ] {
            assert!(path.parse::<DevicePath>().is_err(), "{path:?}");
        }
    }
}
