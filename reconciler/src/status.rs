//! How a device is, from what it reported, when it was last seen and what it is offered. Pure.

use std::fmt;

use flotta_bundle::code;
use flotta_bundle::wire::{Phase, Report, WorkloadReport, WorkloadState};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::index::Offered;
use crate::store::Clones;

#[cfg(test)]
mod tests;

/// Heartbeats that may be missed before a device counts as offline: one lost packet, or two, is not an outage.
const MISSED: i32 = 3;
/// What is allowed on top: a reconnect with backoff and a full handshake.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The newest report.
    pub report: Option<&'a Report>,
    /// Why there is one that cannot be read.
    pub unreadable: Option<&'a str>,
    /// When the device last spoke.
    pub seen: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
    /// What it is offered; none when the release does not name it.
    pub offered: Option<Offered>,
    /// The schema of the manifest it should have (1 when unknown): an agent that does not read it is not offered it.
    pub schema: u32,
    /// Longest time between two of its reports, in seconds (`settings.heartbeat_seconds` of its manifest).
    pub heartbeat_seconds: u32,
    /// Whether its identity was revoked.
    pub revoked: bool,
    /// That two machines use its identity.
    pub clones: Option<&'a Clones>,
}

/// How a device is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// It has what it should have, and that runs.
    Ready,
    /// It is on its way there.
    Updating,
    /// It cannot get there, or a workload does not run.
    Failed,
    /// It has not been heard of for too long.
    Offline,
    /// It has joined, and there is nothing to say yet.
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

/// A status value as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// One aspect of how a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `Ready`, `Connected`, `InSync`, `Updating`, `Healthy` or `Drifted`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// In one word.
    pub state: State,
    /// Why; empty when all is well.
    pub message: String,
    /// Aspect by aspect, always all six and in this order: Ready, Connected, `InSync`, Updating, Healthy, Drifted.
    pub conditions: Vec<Condition>,
    /// Workloads that run.
    pub running: usize,
    /// Workloads that should.
    pub workloads: usize,
    /// The release whose manifest it has.
    pub release: Option<u64>,
    /// The release it should have, when that is another.
    pub wanted: Option<u64>,
}

struct Verdict {
    state: State,
    reason: &'static str,
    message: String,
}

fn verdict(state: State, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict {
        state,
        reason,
        message: message.into(),
    }
}

/// How a device is.
pub fn device_state(facts: Facts<'_>) -> DeviceStatus {
    let workloads = facts.report.map_or(&[][..], |report| &report.workloads);
    let applied = facts.report.and_then(|report| report.applied);
    let in_sync = facts
        .offered
        .zip(applied)
        .map(|(offered, applied)| offered.manifest == applied.manifest);
    let connected = is_connected(&facts);
    let mut ready = judge(&facts, in_sync);
    // What is known of a device that is away stays visible in the other conditions.
    let progress = verdict(ready.state, ready.reason, ready.message.clone());
    if facts.revoked {
        ready = verdict(State::Revoked, "Revoked", "its identity was revoked");
    } else if !connected && facts.report.is_some() {
        let seen = facts.seen.map(|seen| format!("last seen {seen:.0}"));
        ready = verdict(State::Offline, "NotReporting", seen.unwrap_or_default());
    } else if let Some(clones) = facts.clones {
        // What one of them says is not how the other one is.
        ready = verdict(State::Failed, "Cloned", clones.to_string());
    }
    let sequence = facts.offered.map(|offered| offered.sequence);
    DeviceStatus {
        running: running(workloads),
        workloads: workloads.len(),
        release: match in_sync {
            Some(true) => sequence,
            _ => applied.map(|applied| applied.release),
        },
        wanted: sequence.filter(|_| in_sync != Some(true)),
        conditions: conditions(&facts, in_sync, connected, &ready, &progress),
        state: ready.state,
        message: ready.message,
    }
}

fn running(workloads: &[WorkloadReport]) -> usize {
    let runs = |workload: &&WorkloadReport| workload.state == WorkloadState::Running;
    workloads.iter().filter(runs).count()
}

fn is_connected(facts: &Facts<'_>) -> bool {
    facts
        .seen
        .is_some_and(|seen| is_recent(seen, facts.now, facts.heartbeat_seconds))
}

/// Whether a device that spoke then is there now.
pub(crate) fn is_recent(seen: Timestamp, now: Timestamp, heartbeat_seconds: u32) -> bool {
    let patience = SignedDuration::from_secs(heartbeat_seconds.into()) * MISSED + MARGIN;
    // seen later than now: the clock was ahead then, and nobody knows when it was
    now.duration_since(seen).abs() <= patience
}

/// What the device's own words and the offer come to, whether it is there or not.
fn judge(facts: &Facts<'_>, in_sync: Option<bool>) -> Verdict {
    if let Some(why) = facts.unreadable {
        let message = format!("its last report cannot be read, until the next one comes: {why}");
        return verdict(State::Pending, "ReportUnreadable", message);
    }
    let Some(report) = facts.report else {
        return verdict(
            State::Pending,
            "NoReport",
            "has joined, has not reported yet",
        );
    };
    let Some(offered) = facts.offered else {
        let message = "no release names it: it keeps what it has";
        return verdict(State::Pending, "NoRelease", message);
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
        return verdict(State::Failed, "AgentTooOld", message);
    }
    let tries_it = report.wanted == Some(offered.manifest);
    let problem = report.problems.first();
    // FLT03: the device refused what it was offered.
    let refused = problem.is_some_and(|problem| problem.code.starts_with("FLT03"));
    // It cannot write down what it was offered, and so does not begin with it.
    let unkept = problem.is_some_and(|problem| problem.code == code::LEDGER.id);
    match (report.phase, problem) {
        (Phase::Idle, Some(problem)) if tries_it || refused || unkept => {
            let reason = if refused { "Refused" } else { "ApplyFailed" };
            verdict(State::Failed, reason, problem.message.clone())
        }
        (Phase::Fetching, _) => {
            let message = work_at(report).unwrap_or_else(|| format!("fetching release {sequence}"));
            verdict(State::Updating, "Fetching", message)
        }
        (Phase::Applying, _) => {
            let message = work_at(report).unwrap_or_else(|| format!("applying release {sequence}"));
            verdict(State::Updating, "Applying", message)
        }
        // Applied as far as it goes: the workload that does not run is why.
        (Phase::Idle, None) if tries_it && judge_workloads(report).state == State::Failed => {
            judge_workloads(report)
        }
        (Phase::Unknown, _) => {
            let message = "does what this server has no word for: its agent is newer";
            verdict(State::Updating, "Unknown", message)
        }
        (Phase::Idle, _) => {
            let message = format!("has not begun with release {sequence}");
            verdict(State::Updating, "Waiting", message)
        }
    }
}

fn judge_workloads(report: &Report) -> Verdict {
    // What runs of a workload may go on while what is wanted of it cannot be done.
    let stuck = |w: &&WorkloadReport| {
        w.state == WorkloadState::Running && w.problem.is_some() && !is_drifted(w)
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
        return verdict(State::Failed, "WorkloadFailed", describe(first) + &more);
    }
    // Somebody changed a file, and it is being put back.
    if let Some(workload) = report.workloads.iter().find(|w| is_drifted(w)) {
        return verdict(State::Updating, "Drifted", describe(workload));
    }
    // A wrong time is something to see to; what runs is what should run.
    let of_time = [code::TRUST_EXPIRED, code::TIME_AHEAD, code::CLOCK_UNSURE].map(|code| code.id);
    let (of_time, wrong): (Vec<_>, Vec<_>) = report
        .problems
        .iter()
        .partition(|problem| of_time.contains(&problem.code.as_str()));
    if let Some(problem) = wrong.first() {
        return verdict(State::Failed, "Problem", problem.message.clone());
    }
    if let Some(message) = work_at(report) {
        return verdict(State::Updating, "Starting", message);
    }
    if running(&report.workloads) < report.workloads.len() {
        let stopped = of_state(report, WorkloadState::Stopped).map(describe);
        let message = stopped.collect::<Vec<_>>().join(", ");
        return verdict(State::Updating, "Starting", message);
    }
    let message = of_time.first().map(|problem| problem.message.clone());
    verdict(State::Ready, "AsWanted", message.unwrap_or_default())
}

/// Whether somebody changed files of a workload on the device.
fn is_drifted(workload: &WorkloadReport) -> bool {
    let problem = workload.problem.as_ref();
    problem.is_some_and(|problem| problem.code == code::DRIFTED.id)
}

fn of_state(report: &Report, state: WorkloadState) -> impl Iterator<Item = &WorkloadReport> {
    let fits = move |workload: &&WorkloadReport| workload.state == state;
    report.workloads.iter().filter(fits)
}

/// The first workload that is being worked at.
fn work_at(report: &Report) -> Option<String> {
    of_state(report, WorkloadState::Pulling)
        .chain(of_state(report, WorkloadState::Starting))
        .next()
        .map(describe)
}

fn describe(workload: &WorkloadReport) -> String {
    let name = &workload.name;
    match (&workload.problem, workload.state) {
        (Some(problem), WorkloadState::Pulling) => format!("pulling {name} ({})", problem.message),
        (Some(problem), _) => format!("{name}: {}", problem.message),
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

fn conditions(
    facts: &Facts<'_>,
    in_sync: Option<bool>,
    connected: bool,
    ready: &Verdict,
    progress: &Verdict,
) -> Vec<Condition> {
    let condition = |kind, status: Truth, reason, message: &str| Condition {
        kind,
        status,
        reason,
        message: message.to_owned(),
    };
    let is_connected = match (connected, facts.seen) {
        (true, _) => condition("Connected", Truth::True, "Reporting", ""),
        (false, Some(_)) => condition("Connected", Truth::False, "NotReporting", &ready.message),
        (false, None) => condition("Connected", Truth::False, "NeverSeen", ""),
    };
    let drifted = facts
        .report
        .and_then(|report| report.workloads.iter().find(|w| is_drifted(w)));
    let has = match (facts.report, facts.offered, in_sync) {
        (None, ..) => condition("InSync", Truth::Unknown, "NoReport", ""),
        (_, None, _) => condition("InSync", Truth::Unknown, "NoRelease", ""),
        (.., Some(true)) if drifted.is_some() => {
            condition("InSync", Truth::False, "Drifted", &progress.message)
        }
        (.., Some(true)) => condition("InSync", Truth::True, "AsWanted", ""),
        _ => condition("InSync", Truth::False, progress.reason, &progress.message),
    };
    let updating = progress.state == State::Updating;
    let updates = if updating {
        condition("Updating", Truth::True, progress.reason, &progress.message)
    } else {
        condition("Updating", Truth::False, "Idle", "")
    };
    let failed = facts
        .report
        .and_then(|report| of_state(report, WorkloadState::Failed).next());
    let healthy = match (facts.report, failed) {
        (None, _) => condition("Healthy", Truth::Unknown, "NoReport", ""),
        (_, Some(workload)) => condition(
            "Healthy",
            Truth::False,
            "WorkloadFailed",
            &describe(workload),
        ),
        (Some(_), None) => condition("Healthy", Truth::True, "NothingFailed", ""),
    };
    let drift = match (facts.report, drifted) {
        (None, _) => condition("Drifted", Truth::Unknown, "NoReport", ""),
        (_, Some(workload)) => condition(
            "Drifted",
            Truth::True,
            "ChangedOnDevice",
            &describe(workload),
        ),
        (Some(_), None) => condition("Drifted", Truth::False, "AsWritten", ""),
    };
    let is_ready = Truth::from(ready.state == State::Ready);
    vec![
        condition("Ready", is_ready, ready.reason, &ready.message),
        is_connected,
        has,
        updates,
        healthy,
        drift,
    ]
}
