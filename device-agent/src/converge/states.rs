//! The state of the workloads, from the state of their units.

use std::collections::BTreeMap;
use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest::{Manifest, Unit, Wanted};
use flotta_bundle::wire::{WorkloadReport, WorkloadState};

use super::Host;
use crate::backend::messages::{self, Cause};
use crate::backend::{Systemd, UnitState};
use crate::health::{Health, Target};
use crate::ledger::{Due, Owned};
use crate::plan::{inputs, masked};

/// A unit that systemd restarted counts as failed until it has stayed up this long: between two exits, a container that
/// exits at once looks as if it were running.
const STAYS_UP: Duration = Duration::from_secs(10);
/// After staying up this long, a unit's restart count is reset: systemd's restart delay only grows, and one crash a year must
/// not end up costing a minute each time. Kubernetes uses the same ten minutes.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Longest line of the journal that is reported, in characters.
const MAX_LINE: usize = 300;

/// Why units failed, with the exit status, result and restart count for which that was found: reading the journal costs a
/// process. After a restart it is read again, because the journal may not have been complete.
pub type Reasons = BTreeMap<String, ((i32, String, u32), Problem)>;

/// Looks at every unit of the manifest. A unit that the fleet does not own yet counts as missing, whatever the host runs under
/// that name.
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
                    // its running units keep running
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
                let problem = error.of_unit(&unit.name);
                (WorkloadState::Failed, Some(problem), UnitState::default())
            }
        };
        let report = reports
            .entry(unit.workload.as_str())
            .or_insert_with(|| WorkloadReport {
                name: unit.workload.to_string(),
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

/// What to health-check of a unit. The manifest's checks are for the containers it describes: a container that still runs an
/// older definition keeps the checks that it has.
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
        "activating" if unit.awaits_restart() || unit.restarts > 0 => WorkloadState::Failed,
        "activating" => WorkloadState::Starting,
        _ if unit.restarts > 0 => WorkloadState::Failed,
        _ => WorkloadState::Stopped,
    }
}

/// How long until the restart count of a running unit is reset; none when it is zero.
fn forgiven_in(unit: &UnitState) -> Option<Duration> {
    let up = unit.active_for.filter(|_| unit.restarts > 0)?;
    Some(FORGIVEN.saturating_sub(up))
}

/// Orders states: a workload has the worst state of its units.
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

/// Why a unit failed, in its own words if it left any.
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
    // Between two restarts systemd shows no failure: the reason found before still holds.
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
    let said = messages::journal(name, unit.exit_status, lines);
    let problem = match said {
        Some(Cause::PortTaken(port)) => Problem::new(
            code::PORT_TAKEN,
            format!("{name}: port {port} is already in use on the device"),
        ),
        Some(Cause::SomePortTaken(line)) => {
            Problem::new(code::PORT_TAKEN, name).with_detail(short(line))
        }
        Some(Cause::Storage(line)) => Problem::new(code::STORAGE, name).with_detail(short(line)),
        Some(Cause::Pull(line)) => Problem::new(code::IMAGE_PULL, name).with_detail(short(line)),
        Some(Cause::LastLine(line)) => ended(name, unit).with_detail(short(line)),
        None => ended(name, unit),
    };
    problem.about(name)
}

/// How a unit ended.
fn ended(name: &str, unit: &UnitState) -> Problem {
    let how = match (unit.result.as_str(), unit.killed) {
        ("timeout", _) => "did not start in time".to_owned(),
        (_, true) => format!("was ended by signal {}", unit.exit_status),
        _ => format!("exited {}", unit.exit_status),
    };
    Problem::new(code::UNIT_FAILED, format!("{name} {how}"))
        .with_help(format!("see its journal: journalctl -u {name}"))
}

/// A line for a table: without control characters, and not too long.
fn short(line: &str) -> String {
    let clean = line
        .trim_matches(|c: char| c.is_whitespace() || c.is_control())
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_LINE).collect()
}

/// Sets the state of workloads that are being changed.
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

/// Attaches a problem to a workload's report; false when there is no workload of that name.
pub(super) fn blame(reports: &mut [WorkloadReport], workload: &str, problem: &Problem) -> bool {
    let Some(report) = reports.iter_mut().find(|report| report.name == workload) else {
        return false;
    };
    // Its running units keep running.
    if report.state != WorkloadState::Running {
        report.state = WorkloadState::Failed;
    }
    report.problem = Some(problem.clone());
    true
}

#[cfg(test)]
mod tests;
