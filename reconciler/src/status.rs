//! The status of a device, from its last report, when it was last seen and what it is offered. Pure.

use std::fmt;

use flotta_api::condition::Reason;
use flotta_api::v1alpha1::Condition;
use flotta_bundle::code::{self, Class, Code};
use flotta_bundle::wire::{Phase, Report, WorkloadReport, WorkloadState};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::index::Offered;
use crate::store::Clones;

mod conditions;
#[cfg(test)]
mod tests;

/// Missed heartbeats after which a device counts as offline: one or two lost packets are not an outage.
const MISSED: i32 = 3;
/// The additional margin, for a reconnect with backoff and a full handshake.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// The facts that a status is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The newest report.
    pub report: Option<&'a Report>,
    /// Why the stored report cannot be read, if it cannot.
    pub unreadable: Option<&'a str>,
    /// When the server last heard from the device.
    pub seen: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// The offer; none when the release does not name the device.
    pub offered: Option<Offered>,
    /// The schema of the device's manifest (1 when unknown), which is not offered to an agent that cannot read it.
    pub schema: u32,
    /// Longest time between two of its reports, in seconds (`settings.heartbeat_seconds` of its manifest).
    pub heartbeat_seconds: u32,
    /// Whether its identity was revoked.
    pub revoked: bool,
    /// Set if two machines use its identity.
    pub clones: Option<&'a Clones>,
}

/// The state of a device, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// It has the wanted manifest, and everything runs.
    Ready,
    /// It is updating to the wanted manifest.
    Updating,
    /// The update failed, or a workload is not running.
    Failed,
    /// It has not been heard from for too long.
    Offline,
    /// It has joined, and has not reported yet or has no release.
    Pending,
    /// Its identity was revoked.
    Revoked,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Updating,
        Self::Failed,
        Self::Offline,
        Self::Pending,
        Self::Revoked,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The status that follows from the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The state.
    pub state: State,
    /// The reason; empty when all is well.
    pub message: String,
    /// The conditions, always all six and in this order: Ready, Connected, `InSync`, Updating, Healthy, Drifted.
    pub conditions: Vec<Condition>,
    /// Number of running workloads.
    pub running: usize,
    /// Number of workloads that should run.
    pub workloads: usize,
    /// The release whose manifest is applied.
    pub release: Option<u64>,
    /// The wanted release, if that is another one.
    pub wanted: Option<u64>,
}

struct Verdict {
    state: State,
    reason: Reason,
    message: String,
}

fn verdict(state: State, reason: Reason, message: impl Into<String>) -> Verdict {
    Verdict {
        state,
        reason,
        message: message.into(),
    }
}

/// Computes the status of a device.
pub fn assess(facts: Facts<'_>) -> Assessment {
    let workloads = facts.report.map_or(&[][..], |report| &report.workloads);
    let applied = facts.report.and_then(|report| report.applied);
    let in_sync = facts
        .offered
        .zip(applied)
        .map(|(offered, applied)| offered.manifest == applied.manifest);
    let connected = is_connected(&facts);
    let mut ready = judge(&facts, in_sync);
    // The other conditions keep showing the last known state of an offline device.
    let progress = verdict(ready.state, ready.reason, ready.message.clone());
    if facts.revoked {
        ready = verdict(State::Revoked, Reason::Revoked, "its identity was revoked");
    } else if !connected && facts.report.is_some() {
        let seen = facts.seen.map(|seen| format!("last seen {seen:.0}"));
        ready = verdict(
            State::Offline,
            Reason::NotReporting,
            seen.unwrap_or_default(),
        );
    } else if let Some(clones) = facts.clones {
        // The report is by only one of the two machines.
        ready = verdict(State::Failed, Reason::Cloned, clones.to_string());
    }
    let sequence = facts.offered.map(|offered| offered.sequence);
    Assessment {
        running: running(workloads),
        workloads: workloads.len(),
        release: match in_sync {
            Some(true) => sequence,
            _ => applied.map(|applied| applied.release),
        },
        wanted: sequence.filter(|_| in_sync != Some(true)),
        conditions: conditions::all(&facts, in_sync, connected, &ready, &progress),
        state: ready.state,
        message: ready.message,
    }
}

fn running(workloads: &[WorkloadReport]) -> usize {
    let runs = |workload: &&WorkloadReport| {
        workload.state == WorkloadState::Running && !is_not_ready(workload)
    };
    workloads.iter().filter(runs).count()
}

fn is_connected(facts: &Facts<'_>) -> bool {
    facts
        .seen
        .is_some_and(|seen| is_recent(seen, facts.now, facts.heartbeat_seconds))
}

/// Whether a device that was last seen then still counts as connected.
pub(crate) fn is_recent(seen: Timestamp, now: Timestamp, heartbeat_seconds: u32) -> bool {
    let patience = SignedDuration::from_secs(heartbeat_seconds.into()) * MISSED + MARGIN;
    // if it was seen in the future, the clock was ahead then, and the real time is unknown
    now.duration_since(seen).abs() <= patience
}

/// The state that follows from the report and the offer, whether the device is connected or not.
fn judge(facts: &Facts<'_>, in_sync: Option<bool>) -> Verdict {
    if let Some(why) = facts.unreadable {
        let message = format!("its last report cannot be read, until the next one comes: {why}");
        return verdict(State::Pending, Reason::ReportUnreadable, message);
    }
    let Some(report) = facts.report else {
        return verdict(
            State::Pending,
            Reason::NoReport,
            "has joined, has not reported yet",
        );
    };
    let Some(offered) = facts.offered else {
        let message = "no release names it: it keeps what it has";
        return verdict(State::Pending, Reason::NoRelease, message);
    };
    if in_sync == Some(true) {
        return judge_workloads(report);
    }
    let sequence = offered.sequence;
    let (needs, reads) = (facts.schema, report.manifest_schema);
    if needs > reads {
        let message = format!(
            "keeps what it has: release {sequence} needs manifest schema {needs}, its agent {} reads {reads}; update flotta-agent",
            report.agent
        );
        return verdict(State::Failed, Reason::AgentTooOld, message);
    }
    let tries_it = report.wanted == Some(offered.manifest);
    let problem = report.problems.first();
    let refused = problem.is_some_and(|problem| problem.class() == Some(Class::Refusal));
    // It cannot save the offer in its ledger, and so does not start with it.
    let unkept = problem.is_some_and(|problem| problem.code == code::LEDGER.id);
    match (report.phase, problem) {
        (Phase::Idle, Some(problem)) if tries_it || refused || unkept => {
            let reason = if refused {
                Reason::ReleaseRefused
            } else {
                Reason::ApplyFailed
            };
            verdict(State::Failed, reason, problem.text())
        }
        (Phase::Fetching, _) => {
            let message = work_at(report).unwrap_or_else(|| format!("fetching release {sequence}"));
            verdict(State::Updating, Reason::Fetching, message)
        }
        (Phase::Applying, _) => {
            let message = work_at(report).unwrap_or_else(|| format!("applying release {sequence}"));
            verdict(State::Updating, Reason::Applying, message)
        }
        // Applied as far as possible: the workload that is not running is the reason.
        (Phase::Idle, None) if tries_it && judge_workloads(report).state == State::Failed => {
            judge_workloads(report)
        }
        (Phase::Unknown, _) => {
            let message = "is in a phase that this server does not know: its agent is newer";
            verdict(State::Updating, Reason::UnknownPhase, message)
        }
        (Phase::Idle, _) => {
            let message = format!("has not started with release {sequence}");
            verdict(State::Updating, Reason::NotStarted, message)
        }
    }
}

fn judge_workloads(report: &Report) -> Verdict {
    // A workload may keep running as before while its new version cannot be applied.
    let stuck = |w: &&WorkloadReport| {
        let is_stuck = w.problem.is_some() && !is_drifted(w) && !is_not_ready(w);
        w.state == WorkloadState::Running && is_stuck
    };
    let failed = of_state(report, WorkloadState::Failed);
    let failed: Vec<_> = failed
        .chain(report.workloads.iter().filter(stuck))
        .collect();
    if let Some(first) = failed.first() {
        let more = match failed.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        return verdict(
            State::Failed,
            Reason::WorkloadFailed,
            describe(first) + &more,
        );
    }
    // Somebody changed a file, and it is being restored.
    if let Some(workload) = report.workloads.iter().find(|w| is_drifted(w)) {
        return verdict(State::Updating, Reason::FilesChanged, describe(workload));
    }
    if let Some(workload) = report.workloads.iter().find(|w| is_not_ready(w)) {
        return verdict(State::Failed, Reason::NotReady, describe(workload));
    }
    // A wrong time needs attention, but does not affect what runs.
    let of_time = [code::TRUST_EXPIRED, code::TIME_AHEAD, code::CLOCK_UNSURE].map(|code| code.id);
    let (of_time, wrong): (Vec<_>, Vec<_>) = report
        .problems
        .iter()
        .partition(|problem| of_time.contains(&problem.code.as_str()));
    if let Some(problem) = wrong.first() {
        return verdict(State::Failed, Reason::DeviceProblem, problem.text());
    }
    if let Some(message) = work_at(report) {
        return verdict(State::Updating, Reason::Starting, message);
    }
    if running(&report.workloads) < report.workloads.len() {
        let stopped = of_state(report, WorkloadState::Stopped).map(describe);
        let message = stopped.collect::<Vec<_>>().join(", ");
        return verdict(State::Updating, Reason::Starting, message);
    }
    let message = of_time.first().map(|problem| problem.text());
    verdict(State::Ready, Reason::UpToDate, message.unwrap_or_default())
}

/// Whether somebody changed files of a workload on the device.
fn is_drifted(workload: &WorkloadReport) -> bool {
    has(workload, code::DRIFTED)
}

/// Whether a workload runs, but fails its readiness check.
fn is_not_ready(workload: &WorkloadReport) -> bool {
    has(workload, code::NOT_READY)
}

fn has(workload: &WorkloadReport, code: Code) -> bool {
    let problem = workload.problem.as_ref();
    problem.is_some_and(|problem| problem.code == code.id)
}

fn of_state(report: &Report, state: WorkloadState) -> impl Iterator<Item = &WorkloadReport> {
    let fits = move |workload: &&WorkloadReport| workload.state == state;
    report.workloads.iter().filter(fits)
}

/// The first workload that is being changed.
fn work_at(report: &Report) -> Option<String> {
    of_state(report, WorkloadState::Pulling)
        .chain(of_state(report, WorkloadState::Starting))
        .next()
        .map(describe)
}

fn describe(workload: &WorkloadReport) -> String {
    let name = &workload.name;
    match (&workload.problem, workload.state) {
        (Some(problem), WorkloadState::Pulling) => format!("pulling {name} ({})", problem.text()),
        (Some(problem), _) => format!("{name}: {}", problem.text()),
        (None, WorkloadState::Pulling) => format!("pulling {name}"),
        (None, WorkloadState::Starting) => format!("starting {name}"),
        (None, WorkloadState::Failed) => format!("{name}: failed"),
        (None, WorkloadState::Stopped) => format!("{name}: stopped"),
        (None, WorkloadState::Running) => format!("{name}: running"),
        (None, WorkloadState::Unknown) => {
            format!("{name}: in a state that this server does not know")
        }
    }
}
