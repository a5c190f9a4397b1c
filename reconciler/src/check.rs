//! The health of the server itself, for people and for monitoring: facts, each with a grade. Pure; a new fact is a line in
//! [`FACTS`].

use std::collections::BTreeMap;

use flotta_bundle::code::{self, Code, Problem};
use flotta_bundle::release::Release;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::failures::Failure;
use crate::publish::{RENEW_BEFORE, SOURCE};
use crate::server_state::{SourceState, Verdict, Warning};

#[cfg(test)]
mod tests;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long a failure counts after its last occurrence: a stranger's hook of yesterday does not matter today.
const RECENT: SignedDuration = SignedDuration::from_hours(1);
/// How late an automatic renewal may be before someone should look.
const LATE: SignedDuration = DAY;
/// The server renews its certificate when a third of a year is left: with a month left, that has failed for months.
const CERTIFICATE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Replacing the device CA takes a new join file for every device; a year is enough for that.
const AUTHORITY: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Free space, in percent and MiB: below the first the store may fail this week, below the second today.
const SCARCE: (u64, u64) = (10, 1024);
const NONE_LEFT: (u64, u64) = (2, 128);
/// Percentage of joined devices that must be offline before the server or its network is suspected rather than the devices.
const MANY_AWAY: usize = 50;

/// The grade of a fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// All is well.
    #[default]
    Ok,
    /// Someone should look; devices are served.
    Warning,
    /// Devices are not served, or soon will not be.
    Critical,
}

/// A fact about the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Its subject, in one word.
    pub name: String,
    /// Its grade.
    pub grade: Grade,
    /// The fact, for people.
    pub message: String,
    /// The stable code of what is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// Answer to `GET /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Version of the server.
    pub version: String,
    /// The worst grade of all facts.
    pub grade: Grade,
    /// All facts, always in the same order.
    pub facts: Vec<Fact>,
}

/// The input of the facts.
#[derive(Debug, Clone)]
pub struct Situation {
    /// The time.
    pub now: Timestamp,
    /// What is failing.
    pub failures: Vec<Failure>,
    /// The source that the server follows.
    pub source: SourceState,
    /// Warnings.
    pub warnings: Vec<Warning>,
    /// Why the clock is in doubt.
    pub clock: Option<Problem>,
    /// Whether the store can be read.
    pub store: Result<(), String>,
    /// The release in force.
    pub release: Option<Release>,
    /// When the server's certificate expires.
    pub certificate: Timestamp,
    /// When the device CA's certificate expires.
    pub authority: Timestamp,
    /// The file system of the data directory.
    pub disk: Result<Disk, String>,
    /// How many devices are `Connected`, `Offline`, `Pending` and `Revoked`.
    pub devices: BTreeMap<String, usize>,
}

/// Disk space, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// The size of the file system.
    pub total: u64,
    /// The space available to this user.
    pub free: u64,
}

/// A fact without its name.
struct Finding(Grade, String, Option<Code>);

fn ok(message: impl Into<String>) -> Finding {
    Finding(Grade::Ok, message.into(), None)
}
fn warning(code: Code, message: impl Into<String>) -> Finding {
    Finding(Grade::Warning, message.into(), Some(code))
}
fn critical(code: Code, message: impl Into<String>) -> Finding {
    Finding(Grade::Critical, message.into(), Some(code))
}

/// A function that finds one fact.
type Look = fn(&Situation) -> Finding;

/// All facts, in the order in which they are shown.
const FACTS: &[(&str, Look)] = &[
    ("source", source),
    ("release", release),
    ("store", store),
    ("certificates", certificates),
    ("clock", clock),
    ("disk", disk),
    ("work", work),
    ("warnings", warnings),
    ("devices", devices),
];

impl Check {
    /// Finds all facts.
    pub fn of(situation: &Situation) -> Self {
        let facts: Vec<Fact> = FACTS
            .iter()
            .map(|(name, look)| {
                let Finding(grade, message, code) = look(situation);
                let (code, help) = code.map_or(("", ""), |code| (code.id, code.help));
                Fact {
                    name: (*name).to_owned(),
                    grade,
                    message,
                    code: code.to_owned(),
                    help: help.to_owned(),
                }
            })
            .collect();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            grade: facts
                .iter()
                .map(|fact| fact.grade)
                .max()
                .unwrap_or_default(),
            facts,
        }
    }
}

/// Failures that have a fact of their own.
const STORE: [&str; 2] = ["fleet.db", "status.db"];

fn source(of: &Situation) -> Finding {
    let SourceState { label, failure, .. } = &of.source;
    if let Some(failure) = failure {
        let message = format!("since {:.0}: {}", failure.since, failure.message);
        return warning(code::SOURCE, message);
    }
    let (Some(Verdict { state, message, .. }), false) = (&of.source.verdict, label.is_empty())
    else {
        return ok("nothing has been read yet");
    };
    match state.as_str() {
        "Refused" => warning(code::REFUSED_COMMIT, format!("{label} refused: {message}")),
        "Held" => warning(code::HELD, format!("{label} held: {message}")),
        _ => ok(format!("{label} is in force")),
    }
}

fn release(of: &Situation) -> Finding {
    let Some(release) = &of.release else {
        return warning(code::NO_RELEASE, "there is no release yet");
    };
    let (sequence, commit, ends) = (
        release.sequence,
        release.revision.short(),
        date(release.expires),
    );
    let left = release.expires.duration_since(of.now);
    if left <= SignedDuration::ZERO {
        let message = format!("{sequence} of commit {commit} expired on {ends}");
        return critical(code::TRUST_EXPIRED, message);
    }
    let message = format!("{sequence} of commit {commit}, valid until {ends}");
    if left < RENEW_BEFORE - LATE {
        return warning(code::TRUST_EXPIRED, message + ", and was not renewed");
    }
    ok(message)
}

fn store(of: &Situation) -> Finding {
    if let Err(error) = &of.store {
        return critical(code::STORE, error);
    }
    let failure = of
        .failures
        .iter()
        .find(|failure| STORE.contains(&failure.what));
    match failure {
        Some(failure) => critical(code::STORE, failure.to_string()),
        None => ok("reads and writes"),
    }
}

fn certificates(of: &Situation) -> Finding {
    let message = format!(
        "the server's until {}, the devices' authority's until {}",
        date(of.certificate),
        date(of.authority)
    );
    let left = |until: Timestamp| until.duration_since(of.now);
    if left(of.certificate).min(left(of.authority)) <= SignedDuration::ZERO {
        return critical(code::KEYS, message);
    }
    if left(of.certificate) < CERTIFICATE || left(of.authority) < AUTHORITY {
        return warning(code::KEYS, message);
    }
    ok(message)
}

fn clock(of: &Situation) -> Finding {
    match &of.clock {
        // nothing is signed until someone acts
        Some(problem) => critical(code::SERVER_CLOCK, problem.text()),
        None => ok("agrees with what was signed"),
    }
}

fn disk(of: &Situation) -> Finding {
    let Disk { total, free } = match &of.disk {
        Ok(disk) => *disk,
        Err(error) => {
            return warning(code::STORE, format!("its free space is not known: {error}"));
        }
    };
    let mebibytes = free >> 20;
    let percent = (free.saturating_mul(100)).checked_div(total).unwrap_or(0);
    let message = format!("{percent} % free ({mebibytes} MiB)");
    // by percentage a large disk would never be full, by MiB a small one always would be
    let below =
        |(share, least): (u64, u64)| percent < share && mebibytes < least * 10 || mebibytes < least;
    if below(NONE_LEFT) {
        return critical(code::SERVER_DISK, message);
    }
    if below(SCARCE) {
        return warning(code::SERVER_DISK, message);
    }
    ok(message)
}

/// Every recurring task of the server that has no fact of its own.
fn work(of: &Situation) -> Finding {
    let recent: Vec<_> = of
        .failures
        .iter()
        .filter(|failure| failure.what != SOURCE && !STORE.contains(&failure.what))
        .filter(|failure| of.now.duration_since(failure.last) < RECENT)
        .map(ToString::to_string)
        .collect();
    if recent.is_empty() {
        return ok("nothing fails");
    }
    warning(code::SERVER_WORK, recent.join("; "))
}

/// The warnings of other parts of the server.
fn warnings(of: &Situation) -> Finding {
    let all: Vec<_> = of
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    if all.is_empty() {
        return ok("none");
    }
    warning(code::SERVER_WORK, all.join("; "))
}

fn devices(of: &Situation) -> Finding {
    let (mut total, mut words) = (0, Vec::new());
    for (state, count) in &of.devices {
        total += count;
        words.push(format!("{count} {}", state.to_lowercase()));
    }
    if total == 0 {
        return ok("none yet");
    }
    let message = format!("{total}: {}", words.join(", "));
    let count = |state| of.devices.get(state).copied().unwrap_or_default();
    let (away, joined) = (
        count("Offline"),
        total - count("Pending") - count("Revoked"),
    );
    // two of two may be a closed shop; the warning then goes away by itself
    if joined > 1 && away * 100 > joined * MANY_AWAY {
        return warning(code::DEVICES_AWAY, message);
    }
    ok(message)
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}
