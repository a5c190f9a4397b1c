//! The screen of `flotta-agent status`, for someone with a serial console and no manual. Pure.

use flotta_bundle::code::{self, Problem};
use flotta_bundle::wire::{Phase, WorkloadReport, WorkloadState};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::status::Release;
use crate::identity::Joined;
use crate::status::Status;

/// The column at which the second half of the first line begins.
const COLUMN: usize = 50;

/// All that the screen shows.
#[derive(Debug)]
pub(super) struct View {
    pub(super) now: Timestamp,
    /// None when the agent is not running.
    pub(super) status: Option<Status>,
    pub(super) joined: Joined,
    pub(super) release: Option<Release>,
    /// The name that it asks to join as, when that is to replace its current identity.
    pub(super) asks: Option<String>,
    pub(super) disk_used: Option<u64>,
    pub(super) synchronised: Option<bool>,
}

impl View {
    /// What is wrong, in a line, and what to do about it.
    pub(super) fn trouble(&self) -> Option<(String, String)> {
        let Some(status) = &self.status else {
            let what = "the agent is not running; workloads keep running without it".to_owned();
            return Some((
                what,
                "see: systemctl status flotta-agent.service".to_owned(),
            ));
        };
        let of = |problem: &Problem| (problem.to_string(), problem.help.clone());
        // A workload may keep running as before while its new version cannot be applied.
        let failed = |w: &&WorkloadReport| w.state == WorkloadState::Failed || w.problem.is_some();
        // A connection problem comes before problems that only a connection can solve (they need a newer release). It comes
        // before all else unless the network is merely down, which is usual.
        let cut = status.link.problem.as_ref();
        let cut = cut.filter(|_| status.link.connected_since.is_none());
        if let Some(problem) = cut.filter(|problem| problem.code != code::UNREACHABLE.id) {
            return Some(of(problem));
        }
        let expired = |problem: &&Problem| problem.code == code::TRUST_EXPIRED.id;
        let (expired, others): (Vec<_>, Vec<_>) = status.live.problems.iter().partition(expired);
        if let Some(problem) = others.first() {
            return Some(of(problem));
        }
        if let Some(workload) = status.live.workloads.iter().find(failed) {
            let name = &workload.name;
            return Some(match &workload.problem {
                Some(problem) => of(problem),
                None => (
                    format!("workload {name} does not stay up"),
                    format!("see: journalctl -u {name}.service"),
                ),
            });
        }
        let link = status.link.problem.iter();
        link.chain(&status.link.told).chain(expired).next().map(of)
    }
}

/// The screen of a device that has joined.
pub(super) fn status(view: &View) -> String {
    let Joined { device, fleet, .. } = &view.joined;
    let title = format!("{device} in fleet {fleet}");
    let (what, help) = view
        .trouble()
        .unwrap_or_else(|| (doing(view).to_owned(), String::new()));
    let mut lines = vec![format!("{title:<COLUMN$} {what}")];
    if !help.is_empty() {
        lines.push(format!("  to do      {help}"));
    }
    if let Some(asks) = &view.asks {
        lines.push(format!("  asks       to be {asks}: waiting for approval"));
    }
    lines.push(format!("  server     {}", server(view)));
    lines.push(format!("  release    {}", release(view)));
    if let Some(status) = &view.status {
        let each = workloads(&status.live.workloads, view.now);
        lines.push(format!("  workloads  {each}"));
        let more = status.live.problems.iter();
        let more = more.filter(|problem| problem.to_string() != what);
        lines.extend(more.map(|problem| format!("  also       {problem}")));
        let told = status.link.problem.iter().chain(&status.link.told);
        let told = told.filter(|problem| problem.to_string() != what);
        lines.extend(told.map(|problem| format!("  also       {problem}")));
    }
    lines.extend(machine(view));
    lines.join("\n") + "\n"
}

/// The screen of a device that is waiting for approval.
pub(super) fn waiting(key: Option<&str>) -> String {
    let key = key.unwrap_or("not made yet");
    format!(
        "this device has not joined yet\n  \
         to do      on the server: flotta get requests, then flotta approve NAME\n  \
         key        {key}\n"
    )
}

fn doing(view: &View) -> &'static str {
    match view.status.as_ref().map(|status| status.live.phase) {
        Some(Phase::Fetching) => "getting what the release needs",
        Some(Phase::Applying) => "applying the release",
        _ if view.release.is_none() => "no release for this device yet",
        _ => "all is well",
    }
}

fn server(view: &View) -> String {
    let Some(status) = &view.status else {
        return view.joined.server.clone();
    };
    let last = status
        .link
        .last_answer
        .map(|then| format!(", last answer {}", ago(view.now, then)))
        .unwrap_or_default();
    let why = status.link.problem.as_ref();
    let why = why.map_or_else(String::new, |problem| format!(" ({})", problem.code));
    let failing = status.link.failing_since;
    let failing = failing.map(|then| format!(" since {}", clock_time(view.now, then)));
    match (status.link.connected_since, status.link.attempts) {
        (Some(since), _) => {
            let since = clock_time(view.now, since);
            let at = if status.server == view.joined.server {
                String::new()
            } else {
                format!(" to {}", status.server)
            };
            let refuses =
                failing.map_or_else(String::new, |since| format!("; it refuses{since}{why}"));
            let instead = status
                .link
                .passed_over
                .as_ref()
                .map_or(String::new(), |problem| {
                    format!("; a preferred address does not answer: {problem}")
                });
            format!("connected{at} since {since}{last}{refuses}{instead}")
        }
        (None, 0) => {
            let failing =
                failing.map_or_else(String::new, |since| format!(", without it{since}{why}"));
            format!("connecting to {}{failing}{last}", status.server)
        }
        (None, attempts) => {
            let failing = failing.unwrap_or_default();
            format!(
                "not connected to {}{failing}, {attempts} tries{why}{last}",
                status.server
            )
        }
    }
}

fn release(view: &View) -> String {
    let Some(release) = &view.release else {
        return "none yet".to_owned();
    };
    let applied = release.applied.map_or_else(
        || "not applied yet".to_owned(),
        |then| format!("applied {}", clock_time(view.now, then)),
    );
    format!(
        "{} of {} (commit {}), {applied}",
        release.sequence,
        release.issued.strftime("%Y-%m-%d"),
        release.revision.short()
    )
}

fn workloads(workloads: &[WorkloadReport], now: Timestamp) -> String {
    let running = |w: &&WorkloadReport| w.state == WorkloadState::Running;
    let each: Vec<_> = workloads
        .iter()
        .map(|workload| {
            let since = workload.since.map(|then| age(now, then));
            let state = match workload.state {
                WorkloadState::Running => since,
                WorkloadState::Pulling => Some("pulling".to_owned()),
                WorkloadState::Starting => Some("starting".to_owned()),
                WorkloadState::Failed => Some("failed".to_owned()),
                WorkloadState::Stopped => Some("stopped".to_owned()),
                WorkloadState::Unknown => Some("unknown".to_owned()),
            };
            state.map_or_else(
                || workload.name.clone(),
                |state| format!("{} ({state})", workload.name),
            )
        })
        .collect();
    if each.is_empty() {
        return "none".to_owned();
    }
    let count = workloads.iter().filter(running).count();
    format!("{count} of {} running: {}", each.len(), each.join(", "))
}

fn machine(view: &View) -> Option<String> {
    let disk = view
        .disk_used
        .map(|used| format!("disk       {used} % used"));
    let clock = view.synchronised.map(|synchronised| {
        if synchronised {
            "clock synchronised"
        } else {
            "clock not synchronised"
        }
        .to_owned()
    });
    let until = view
        .status
        .as_ref()
        .and_then(|status| status.link.certificate_until);
    let certificate = until.map(|until| {
        let left = until.duration_since(view.now);
        if left.is_negative() {
            "certificate expired".to_owned()
        } else {
            format!("certificate {} days left", left.as_hours() / 24)
        }
    });
    let parts: Vec<_> = [disk, clock, certificate].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("  {}", parts.join("      ")))
}

/// How long ago, in a sentence.
fn ago(now: Timestamp, then: Timestamp) -> String {
    let age = age(now, then);
    if is_ahead(now, then) {
        age
    } else {
        format!("{age} ago")
    }
}

fn is_ahead(now: Timestamp, then: Timestamp) -> bool {
    then.duration_since(now) > SignedDuration::from_mins(1)
}

/// How long ago, in the largest unit, rounded down. A future time is shown as such: the clock was ahead, or is behind.
fn age(now: Timestamp, then: Timestamp) -> String {
    if is_ahead(now, then) {
        return format!("in {}", span(then.duration_since(now)));
    }
    span(now.duration_since(then))
}

fn span(length: SignedDuration) -> String {
    let seconds = length.max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// `10:41` for today, else with the date. UTC: a device's time zone is rarely set, and logs of a fleet are compared.
fn clock_time(now: Timestamp, then: Timestamp) -> String {
    let (now, then) = (now.to_zoned(TimeZone::UTC), then.to_zoned(TimeZone::UTC));
    if now.date() == then.date() {
        then.strftime("%H:%M").to_string()
    } else {
        then.strftime("%Y-%m-%d %H:%M").to_string()
    }
}
