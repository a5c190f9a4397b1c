//! The tables of `flotta get`: one row for each object.

use flotta_bundle::wire::WorkloadState;
use flotta_reconciler::admin::resource::{
    Device, DeviceStatus, EventObject, JoinToken, ReleaseObject, Request, Resource, Workload,
};
use jiff::Timestamp;

use super::table::Cell;
use super::time::age;
use super::{Style, fingerprint};

/// The columns of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// Whether to show the namespace: `-A`.
    pub(crate) namespace: bool,
    /// Whether to show all columns: `-o wide`.
    pub(crate) wide: bool,
}

/// A kind that can be printed as a row.
pub(crate) trait Row: Resource {
    /// The names of the columns of [`Self::row`].
    const HEAD: &'static [&'static str];
    /// The names of the columns that `-o wide` adds.
    const WIDE: &'static [&'static str];
    /// Whether the kind has a namespace, and no column of its own for it.
    const NAMESPACED: bool = true;

    /// The cells under [`Self::HEAD`] and [`Self::WIDE`].
    fn row(&self, now: Timestamp) -> Vec<Cell>;
}

/// The head for these columns.
pub(crate) fn head<T: Row>(columns: Columns) -> Vec<&'static str> {
    let mut names = T::HEAD.to_vec();
    if columns.wide {
        names.extend(T::WIDE);
    }
    if columns.namespace && T::NAMESPACED {
        names.insert(1, "NAMESPACE");
    }
    names
}

/// The row for these columns.
pub(crate) fn row<T: Row>(object: &T, columns: Columns, now: Timestamp) -> Vec<Cell> {
    let mut cells = object.row(now);
    if !columns.wide {
        cells.truncate(T::HEAD.len());
    }
    if columns.namespace && T::NAMESPACED {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        cells.insert(1, namespace.into());
    }
    cells
}

/// The colour of a state.
pub(crate) fn style(state: &str) -> Option<Style> {
    match state {
        "Ready" | "Running" | "InForce" | "Open" => Some(Style::Good),
        "Updating" | "Pending" | "Pulling" | "Starting" | "Held" => Some(Style::Busy),
        "Failed" | "Refused" | "Revoked" | "Warning" | "Denied" => Some(Style::Bad),
        "Offline" | "Superseded" | "Used" | "Expired" | "Waiting" | "Stopped" => Some(Style::Dim),
        _ => None,
    }
}

fn state(text: &str) -> Cell {
    Cell::styled(text, style(text))
}

fn since(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map_or_else(|| "-".to_owned(), |then| age(now, then))
}

/// `42`, or `41→42` during an update.
pub(crate) fn release(status: &DeviceStatus) -> String {
    let running = status
        .running
        .as_ref()
        .map(|running| running.release.to_string());
    match (running, &status.wanted) {
        (running, Some(wanted)) if status.state == "Updating" => {
            let running = running.unwrap_or_default();
            let wanted = wanted.release.to_string();
            if running == wanted {
                wanted
            } else {
                format!("{running}→{wanted}")
            }
        }
        (Some(running), _) => running,
        (None, _) => "-".to_owned(),
    }
}

/// The word for a workload's state.
pub(crate) fn workload_state(state: WorkloadState) -> &'static str {
    match state {
        WorkloadState::Running => "Running",
        WorkloadState::Pulling => "Pulling",
        WorkloadState::Starting => "Starting",
        WorkloadState::Failed => "Failed",
        WorkloadState::Stopped => "Stopped",
        WorkloadState::Unknown => "Unknown",
    }
}

impl Row for Device {
    const HEAD: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "RELEASE",
        "WORKLOADS",
        "SET",
        "SEEN",
        "MESSAGE",
    ];
    const WIDE: &'static [&'static str] = &["KEY", "AGENT", "ARCH", "OS", "MODEL", "SERVER"];

    fn row(&self, now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        let running = |state| state == WorkloadState::Running;
        let up = status
            .workloads
            .iter()
            .filter(|workload| running(workload.state))
            .count();
        let key = status
            .identity
            .as_ref()
            .map(|identity| fingerprint(&identity.fingerprint));
        vec![
            (&self.metadata.name).into(),
            state(&status.state),
            release(status).into(),
            format!("{up}/{}", status.workloads.len()).into(),
            status.sets.first().map_or("", String::as_str).into(),
            since(now, status.last_seen).into(),
            (&status.message).into(),
            key.unwrap_or_default().into(),
            (&status.agent).into(),
            (&status.hardware.architecture).into(),
            (&status.hardware.os).into(),
            (&status.hardware.model).into(),
            (&status.server).into(),
        ]
    }
}

impl Row for Workload {
    const HEAD: &'static [&'static str] = &["NAME", "STATE", "RUNNING", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["FAILED"];

    fn row(&self, _now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        let word = if status.failed > 0 {
            "Failed"
        } else if status.running == status.devices {
            "Running"
        } else {
            "Updating"
        };
        vec![
            (&self.metadata.name).into(),
            state(word),
            format!("{}/{}", status.running, status.devices).into(),
            (&status.message).into(),
            status.failed.to_string().into(),
        ]
    }
}

impl Row for Request {
    const HEAD: &'static [&'static str] = &[
        "NAME",
        "NAMESPACE",
        "KEY",
        "MODEL",
        "FROM",
        "AGE",
        "MESSAGE",
    ];
    const WIDE: &'static [&'static str] = &["STATE", "SERIAL", "ARCH", "OS"];
    const NAMESPACED: bool = false;

    fn row(&self, now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        vec![
            (&self.metadata.name).into(),
            self.metadata
                .namespace
                .as_deref()
                .unwrap_or_default()
                .into(),
            fingerprint(&status.fingerprint).into(),
            (&status.hardware.model).into(),
            (&status.from).into(),
            since(now, self.metadata.creation_timestamp).into(),
            (&status.message).into(),
            state(&status.state),
            (&status.hardware.serial).into(),
            (&status.hardware.architecture).into(),
            (&status.hardware.os).into(),
        ]
    }
}

impl Row for JoinToken {
    const HEAD: &'static [&'static str] = &[
        "TOKEN", "STATE", "DEVICE", "AGE", "EXPIRES", "BY", "MESSAGE",
    ];
    const WIDE: &'static [&'static str] = &["SET"];
    const NAMESPACED: bool = false;

    fn row(&self, now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        let expires = status
            .expires
            .map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
        vec![
            (&self.metadata.name).into(),
            state(&status.state),
            status.device.as_deref().unwrap_or("any").into(),
            since(now, self.metadata.creation_timestamp).into(),
            expires.unwrap_or_default().into(),
            (&status.created_by).into(),
            (&status.message).into(),
            status.set.as_deref().unwrap_or_default().into(),
        ]
    }
}

impl Row for ReleaseObject {
    const HEAD: &'static [&'static str] =
        &["RELEASE", "STATE", "COMMIT", "DEVICES", "AGE", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["EXPIRES", "WORKLOADS", "MANIFESTS", "SOURCE"];
    const NAMESPACED: bool = false;

    fn row(&self, now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        // a commit that did not become a release has no sequence
        let unsigned = self.metadata.name.parse::<u64>().is_err();
        let commit = status.commit.id.trim_start_matches("sha256:");
        let dash = || "-".to_owned();
        vec![
            if unsigned {
                dash()
            } else {
                self.metadata.name.clone()
            }
            .into(),
            state(&status.state),
            commit.get(..7).unwrap_or(commit).into(),
            if unsigned && status.devices == 0 {
                dash()
            } else {
                status.devices.to_string()
            }
            .into(),
            age(now, status.issued).into(),
            if status.message.is_empty() {
                &status.commit.subject
            } else {
                &status.message
            }
            .into(),
            status
                .expires
                .map_or_else(dash, |expires| {
                    super::time::span(expires.duration_since(now))
                })
                .into(),
            status.workloads.to_string().into(),
            status.manifests.to_string().into(),
            (&status.source).into(),
        ]
    }
}

impl Row for EventObject {
    const HEAD: &'static [&'static str] = &["AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["TIME"];
    const NAMESPACED: bool = false;

    fn row(&self, now: Timestamp) -> Vec<Cell> {
        let status = &self.status;
        vec![
            age(now, status.time).into(),
            state(&status.kind),
            (&status.reason).into(),
            (&status.object).into(),
            (&status.message).into(),
            status.time.to_string().into(),
        ]
    }
}
