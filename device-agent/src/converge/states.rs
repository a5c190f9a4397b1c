//! How the workloads are, as systemd sees their units.

use std::collections::BTreeMap;
use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest::{Manifest, Unit, Wanted};
use flotta_bundle::wire::{WorkloadReport, WorkloadState};

use super::Host;
use crate::backend::{Systemd, UnitState, is_storage};
use crate::health::{Health, Target};
use crate::ledger::{Due, Owned};
use crate::plan::{inputs, masked};

/// A unit that was restarted by itself counts as failed until it has stayed up for so long: between two of its ends a
/// container that exits at once looks as if it ran.
const STAYS_UP: Duration = Duration::from_secs(10);
/// After so long the restarts before are forgiven: systemd's delay before a restart only grows, and a crash a year must not
/// cost a minute each in the end. Kubernetes has the same ten minutes.
const FORGIVEN: Duration = Duration::from_secs(600);
/// With what Podman exits when it could not run a container (podman-run(1)).
const PODMAN_FAILED: i32 = 125;
/// Longest line of a journal that is passed on.
const MAX_LINE: usize = 300;

/// Why units failed, by exit status, result and number of the restart: reading a journal costs a process. After a restart it is
/// read again; the journal may not have had all of it yet.
pub type Reasons = BTreeMap<String, ((i32, String, u32), Problem)>;

/// Looks at every unit of the manifest. Those that are not the fleet's are not there yet, whatever the host runs by that name.
pub(super) async fn states<S: Systemd, P, F>(
    manifest: &Manifest,
    owned: &Owned,
    host: &mut Host<S, P, F>,
) -> Vec<WorkloadReport> {
    let mut reports: BTreeMap<&str, WorkloadReport> = BTreeMap::new();
    let mut again: Option<Duration> = None;
    let mut targets = Vec::new();
    for unit in &manifest.units {
        let ours = owned.units.contains_key(&unit.name);
        let (state, problem, found) = match host.systemd.unit(&unit.name).await {
            Ok(_) if !ours => (WorkloadState::Stopped, None, UnitState::default()),
            Ok(found) => {
                let state = state(&found, unit.wanted);
                targets.extend(target(manifest, owned, unit, &found, host.health.as_ref()));
                if found.is_masked() {
                    // what runs of it goes on
                    let state = match state {
                        WorkloadState::Running => state,
                        _ => WorkloadState::Failed,
                    };
                    (state, Some(masked(&unit.name)), found)
                } else if state == WorkloadState::Failed {
                    if let Some(left) = found.active_for.and_then(|up| STAYS_UP.checked_sub(up)) {
                        again = Some(again.map_or(left, |before| before.min(left)));
                    }
                    let problem = reason(&unit.name, &found, host).await;
                    (state, Some(problem), found)
                } else {
                    host.reasons.remove(&unit.name);
                    if state == WorkloadState::Running
                        && let Some(health) = &mut host.health
                    {
                        health.runs(&unit.name);
                    }
                    if let Some(left) = forgiven_in(&found) {
                        if left.is_zero() {
                            let _ = host.systemd.reset_failed(&unit.name).await;
                        } else {
                            again = Some(again.map_or(left, |before| before.min(left)));
                        }
                    }
                    (state, None, found)
                }
            }
            Err(error) => {
                let problem = Problem::new(code::BACKEND, format!("{}: {error}", unit.name));
                (WorkloadState::Failed, Some(problem), UnitState::default())
            }
        };
        let report = reports
            .entry(&unit.workload)
            .or_insert_with(|| WorkloadReport {
                name: unit.workload.clone(),
                state: WorkloadState::Running,
                problem: None,
                since: None,
                restarts: 0,
            });
        if worse(state) > worse(report.state) {
            report.state = state;
        }
        report.since = report.since.max(found.since);
        report.restarts += found.restarts;
        report.problem = report.problem.take().or(problem);
    }
    host.systemd.look_again(again);
    if let Some(health) = &host.health {
        health.set(targets);
    }
    reports.into_values().collect()
}

/// What of a unit is to be checked. The manifest's checks are of what it wants: a container that still runs with something
/// else keeps those that it has.
fn target(
    manifest: &Manifest,
    owned: &Owned,
    unit: &Unit,
    found: &UnitState,
    health: Option<&Health>,
) -> Option<Target> {
    let health = health?;
    let known = owned.units.get(&unit.name)?;
    let is_new = match &known.due {
        None => known.inputs == inputs(unit, &manifest.files),
        Some(Due::Since(before)) => *before != found.invocation,
        Some(Due::Files) => false,
    };
    if is_new {
        Target::of(manifest, unit, found)
    } else {
        health.target(&unit.name, found)
    }
}

fn state(unit: &UnitState, wanted: Wanted) -> WorkloadState {
    let flapping = unit.restarts > 0 && unit.active_for.is_some_and(|up| up < STAYS_UP);
    match unit.active.as_str() {
        "failed" => WorkloadState::Failed,
        _ if wanted != Wanted::Active => WorkloadState::Running,
        "active" | "reloading" if flapping => WorkloadState::Failed,
        "active" | "reloading" => WorkloadState::Running,
        "activating" if unit.sub.starts_with("auto-restart") || unit.restarts > 0 => {
            WorkloadState::Failed
        }
        "activating" => WorkloadState::Starting,
        _ if unit.restarts > 0 => WorkloadState::Failed,
        _ => WorkloadState::Stopped,
    }
}

/// When the restarts of a unit that runs are to be forgotten; none when it has none.
fn forgiven_in(unit: &UnitState) -> Option<Duration> {
    let up = unit.active_for.filter(|_| unit.restarts > 0)?;
    Some(FORGIVEN.saturating_sub(up))
}

/// Which state of its units a workload has.
fn worse(state: WorkloadState) -> u8 {
    match state {
        WorkloadState::Running => 0,
        WorkloadState::Starting => 1,
        WorkloadState::Pulling => 2,
        WorkloadState::Stopped => 3,
        WorkloadState::Failed => 4,
        WorkloadState::Unknown => 5,
    }
}

/// Why a unit failed, in its own words where it left any.
async fn reason<S: Systemd, P, F>(
    name: &str,
    unit: &UnitState,
    host: &mut Host<S, P, F>,
) -> Problem {
    if let Some(health) = &mut host.health
        && let Some(problem) = health.why_stopped(name, unit)
    {
        return problem;
    }
    let key = (unit.exit_status, unit.result.clone(), unit.restarts);
    // Between two restarts systemd shows a clean slate: what was found before still holds.
    if let Some((known, problem)) = host.reasons.get(name)
        && (*known == key || unit.is_up() && unit.result == "success")
    {
        return problem.clone();
    }
    let lines = host.systemd.journal(name).await;
    let problem = explain(name, unit, &lines);
    host.reasons.insert(name.to_owned(), (key, problem.clone()));
    problem
}

pub(super) fn explain(name: &str, unit: &UnitState, lines: &[String]) -> Problem {
    if let Some(line) = lines
        .iter()
        .rev()
        .find(|line| line.contains("address already in use"))
    {
        let message = match port(line) {
            Some(port) => format!("{name}: port {port} is already in use on the device"),
            None => format!("{name}: {}", short(line)),
        };
        return Problem::new(code::PORT_TAKEN, message);
    }
    let last = lines.iter().rev().find(|line| says_something(name, line));
    // Podman's last line says why it did not even begin; a workload has said nothing in that run.
    let of_podman =
        |line: &&String| unit.exit_status == PODMAN_FAILED && line.starts_with("Error: ");
    if let Some(line) = last.filter(of_podman) {
        let message = format!("{name}: {}", short(line));
        if is_storage(line) {
            return Problem::new(code::STORAGE, message);
        }
        if is_pull(line) {
            return Problem::new(code::IMAGE_PULL, message);
        }
    }
    let how = match (unit.result.as_str(), unit.killed) {
        ("timeout", _) => "did not start in time".to_owned(),
        (_, true) => format!("was ended by signal {}", unit.exit_status),
        _ => format!("exited {}", unit.exit_status),
    };
    let message = match last {
        Some(line) => format!("{name} {how}: {}", short(line)),
        None => format!("{name} {how}"),
    };
    Problem::new(code::UNIT_FAILED, message)
        .with_help(format!("see its journal: journalctl -u {name}"))
}

/// How Podman says that an image did not come, from a registry or from its own store.
fn is_pull(line: &str) -> bool {
    [
        "unable to copy from source ",
        "initializing source ",
        "image not known",
        "pinging container registry ",
    ]
    .iter()
    .any(|words| line.contains(words))
}

/// `… listen tcp4 :8080: bind: address already in use` names the port before `: bind`.
fn port(line: &str) -> Option<u16> {
    let before = line.split(": bind: address already in use").next()?;
    before.rsplit(':').next()?.trim().parse().ok()
}

/// Whether a line is the workload's own, not systemd's or Podman's talk about it.
fn says_something(unit: &str, line: &str) -> bool {
    let id = line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    let talk = [
        "Started ",
        "Starting ",
        "Stopped ",
        "Stopping ",
        "Failed to start ",
        "Dependency failed for ",
        "container ",
        "conmon ",
    ];
    // `web.service: Main process exited, …`, `web.service: Start request repeated too quickly.`
    let about = line
        .strip_prefix(unit)
        .is_some_and(|rest| rest.starts_with(": "));
    let event = line.starts_with("20")
        && [" container ", " image ", " pod ", " volume ", " network "]
            .iter()
            .any(|kind| line.contains(kind));
    !(id || event
        || about
        || line.trim().is_empty()
        || talk.iter().any(|start| line.starts_with(start)))
}

/// A line that fits a table: no control characters, not endless.
fn short(line: &str) -> String {
    let clean = line
        .trim_matches(|c: char| c.is_whitespace() || c.is_control())
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_LINE).collect()
}

/// Sets the state of workloads that something is being done for.
pub(super) fn mark<'a>(
    reports: &mut [WorkloadReport],
    workloads: impl Iterator<Item = &'a str>,
    state: WorkloadState,
) {
    for name in workloads {
        for report in reports
            .iter_mut()
            .filter(|report| report.name == name && report.state != WorkloadState::Running)
        {
            report.state = state;
            report.problem = None;
        }
    }
}

/// The workloads that failed.
pub(super) fn failed(reports: &[WorkloadReport]) -> impl Iterator<Item = &str> {
    let failed = |report: &&WorkloadReport| report.state == WorkloadState::Failed;
    reports
        .iter()
        .filter(failed)
        .map(|report| report.name.as_str())
}

/// Says what is wrong with a workload; false when there is none of that name.
pub(super) fn blame(reports: &mut [WorkloadReport], workload: &str, problem: &Problem) -> bool {
    let Some(report) = reports.iter_mut().find(|report| report.name == workload) else {
        return false;
    };
    // What runs of it goes on.
    if report.state != WorkloadState::Running {
        report.state = WorkloadState::Failed;
    }
    report.problem = Some(problem.clone());
    true
}

#[cfg(test)]
mod tests;
