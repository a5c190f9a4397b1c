//! Recurring failures of the server. Each is logged once, and again with a count when it ends, instead of at every try: a disk
//! that is full for a night would otherwise log a line for each report of each device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::text::plain;

/// How often a lasting failure is logged again, so that it is found in the last day of a log.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// After this long without another occurrence a failure is over even without a success: the next is a new one.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// Most lines about one task in this time: one that fails and works in turn is logged at first, and then not until that time
/// is over.
const LINES: (u32, SignedDuration) = (6, SignedDuration::from_mins(10));
/// Longest message kept, in characters.
const MAX_MESSAGE: usize = 1024;

/// A task that is failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The task: `fleet.db`, `hooks`. The names are fixed in the program, so their number is bounded.
    pub what: &'static str,
    /// The last error.
    pub message: String,
    /// When it first failed since its last success.
    pub since: Timestamp,
    /// How often it has failed since then.
    pub count: u64,
    /// When it failed last.
    pub last: Timestamp,
}

/// The tasks that are failing. Cheap to clone; clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The number of entries, so that a success, the usual case, needs no lock.
    number: AtomicUsize,
    now: Mutex<BTreeMap<&'static str, Known>>,
}

#[derive(Debug)]
struct Known {
    failure: Failure,
    /// Whether it works again.
    over: bool,
    /// When it was last logged.
    said: Timestamp,
    /// Number of lines that were suppressed since then.
    lines: u32,
    counted_from: Timestamp,
}

impl Known {
    /// Whether another line may be logged; if so, it is counted.
    fn may_say(&mut self, now: Timestamp) -> bool {
        let (most, time) = LINES;
        // in either direction: a clock may be set back
        if now.duration_since(self.counted_from).abs() >= time {
            (self.counted_from, self.lines) = (now, 0);
        }
        self.lines += 1;
        let may = self.lines <= most;
        if may {
            self.said = now;
        }
        may
    }

    fn is_past(&self, now: Timestamp) -> bool {
        self.over && now.duration_since(self.counted_from).abs() >= LINES.1
    }
}

impl Failures {
    /// Records that `what` failed, and logs it if that is news.
    pub fn failed(&self, what: &'static str, message: &str, now: Timestamp) {
        if let Some(news) = self.add(what, message, now) {
            tracing::error!("{what}: {news}");
        }
    }

    /// Records that `what` works, and logs it if it was failing.
    pub fn worked(&self, what: &'static str) {
        if let Some(news) = self.remove(what) {
            tracing::warn!("{what}: {news}");
        }
    }

    /// Like [`Self::failed`], but returns the line instead of logging it.
    pub fn add(&self, what: &'static str, message: &str, now: Timestamp) -> Option<String> {
        let message = plain(message, MAX_MESSAGE);
        let mut all = self.lock();
        all.retain(|_, known| !known.is_past(now));
        let known = all.entry(what).or_insert_with(|| Known {
            failure: Failure {
                what,
                message: String::new(),
                since: now,
                count: 0,
                last: now,
            },
            over: true,
            said: now,
            lines: 0,
            counted_from: now,
        });
        let forgotten = now.duration_since(known.failure.last).abs() >= FORGOTTEN;
        let new = known.over || forgotten;
        if new {
            (known.failure.since, known.failure.count) = (now, 0);
        }
        let other = kind(&message) != kind(&known.failure.message);
        let due = now.duration_since(known.said).abs() >= AGAIN;
        known.over = false;
        known.failure.count += 1;
        known.failure.last = now;
        known.failure.message = message;
        let news = (new || other || due) && known.may_say(now);
        let news = news.then(|| match &known.failure {
            Failure { message, .. } if new => message.clone(),
            failure => format!("still fails, {}: {}", often(failure), failure.message),
        });
        self.0.number.store(all.len(), Ordering::Relaxed);
        news
    }

    /// Like [`Self::worked`], but returns the line instead of logging it.
    pub fn remove(&self, what: &'static str) -> Option<String> {
        if self.0.number.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.end(what, Timestamp::now())
    }

    fn end(&self, what: &'static str, now: Timestamp) -> Option<String> {
        let mut all = self.lock();
        all.retain(|_, known| !known.is_past(now));
        self.0.number.store(all.len(), Ordering::Relaxed);
        let known = all.get_mut(what).filter(|known| !known.over)?;
        known.over = true;
        let news = known.may_say(now);
        news.then(|| format!("works again, failed {}", often(&known.failure)))
    }

    /// Records the result of a try.
    pub fn note<T, E: std::error::Error>(
        &self,
        what: &'static str,
        tried: &Result<T, E>,
        now: Timestamp,
    ) {
        match tried {
            Ok(_) => self.worked(what),
            Err(error) => self.failed(what, &chain(error), now),
        }
    }

    /// All failing tasks, sorted by name.
    pub fn all(&self) -> Vec<Failure> {
        let all = self.lock();
        let now = all.values().filter(|known| !known.over);
        now.map(|known| known.failure.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Known>> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Distinguishes failures of one task: the message before the colon. What follows may differ at every try.
fn kind(message: &str) -> &str {
    message.split_once(':').map_or(message, |(kind, _)| kind)
}

fn often(failure: &Failure) -> String {
    let Failure { count, since, .. } = failure;
    match count {
        1 => format!("once at {since:.0}"),
        _ => format!("{count} times since {since:.0}"),
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed {}: {}", self.what, often(self), self.message)
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_failure_is_said_once_and_its_end_with_a_count() {
        let failures = Failures::default();
        assert_eq!(failures.end("hooks", at(0)), None);
        let said: Vec<_> = (0..1000)
            .filter_map(|second| failures.add("hooks", &format!("refused: {second}"), at(second)))
            .collect();
        assert_eq!(said, ["refused: 0"]);
        let expected = Failure {
            what: "hooks",
            message: "refused: 999".to_owned(),
            since: at(0),
            count: 1000,
            last: at(999),
        };
        assert_eq!(failures.all(), [expected]);
        assert_eq!(
            failures.end("hooks", at(1000)).as_deref(),
            Some("works again, failed 1000 times since 2027-01-15T08:00:00Z")
        );
        assert_eq!(failures.end("hooks", at(1001)), None);
        assert_eq!(failures.all(), []);
        assert_eq!(
            failures.add("hooks", "refused", at(2000)).as_deref(),
            Some("refused")
        );
    }

    #[test]
    fn what_fails_for_days_is_said_once_a_day() {
        let failures = Failures::default();
        let said: Vec<_> = (0..3 * 24 * 60)
            .filter_map(|minute| failures.add("fleet.db", "disk full", at(minute * 60)))
            .collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(
            said[2],
            "still fails, 2881 times since 2027-01-15T08:00:00Z: disk full"
        );
    }

    #[test]
    fn what_fails_by_turns_has_six_lines_in_ten_minutes() {
        let failures = Failures::default();
        let mut said = Vec::new();
        for second in 0..3600 {
            said.extend(failures.add("hooks", "refused", at(second)));
            said.extend(failures.end("hooks", at(second)));
        }
        // six lines in each of the six periods of an hour
        assert_eq!(said.len(), 36, "{said:?}");
        // a failure that is over is removed, so that a success needs no lookup
        assert_eq!(failures.end("hooks", at(8000)), None);
        assert_eq!(failures.0.number.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_failure_does_not_hide_another() {
        let failures = Failures::default();
        assert!(failures.add("fleet.db", "disk full", at(0)).is_some());
        assert!(failures.add("hooks", "refused", at(0)).is_some());
        assert!(failures.end("hooks", at(0)).is_some());
        assert!(failures.add("fleet.db", "disk full", at(1)).is_none());
        assert_eq!(failures.all().len(), 1);
        // nor does one cause hide another
        let other = failures.add("fleet.db", "read-only file system", at(2));
        assert_eq!(
            other.as_deref(),
            Some("still fails, 3 times since 2027-01-15T08:00:00Z: read-only file system")
        );
        // nor does an old failure hide a new one
        assert!(
            failures
                .add("fleet.db", "read-only file system", at(7200))
                .is_some()
        );
    }

    #[test]
    fn a_stranger_writes_no_line_of_its_own() {
        let failures = Failures::default();
        let said = failures.add("hooks", "bad\nERROR all is lost", at(0));
        assert_eq!(said.as_deref(), Some("bad ERROR all is lost"));
    }
}
