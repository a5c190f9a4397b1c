//! The event log: what happened, numbered, and kept until the server has stored it.

use std::collections::BTreeSet;

use flotta_bundle::code::{MAX_MESSAGE, Problem, cut};
use flotta_bundle::wire::Event;
use jiff::{SignedDuration, Timestamp};

use super::shape::{About, VERSION};
use super::{Ledger, LedgerError};

/// Most events in the log, to be sent and to avoid duplicates; the oldest are dropped beyond that.
pub(super) const MAX_EVENTS: usize = 200;
/// Most workloads that are remembered for one event of an apply. For those beyond it, a lasting failure is noted once a day.
const MAX_WORKLOADS: usize = 64;
/// Reasons of events that the log itself searches for.
const APPLIED: &str = "Applied";
const FAILED: &str = "Failed";
/// After this long a lasting condition is noted again.
pub(super) const REMINDER: SignedDuration = SignedDuration::from_hours(24);

impl Ledger {
    /// The id of the log that the events are numbered in.
    pub fn log_id(&self) -> &str {
        &self.log.id
    }

    /// Notes an event for the server, with its message cut at 1,024 characters. An event that was noted within a day, and since
    /// something was last applied, is not repeated. One that cannot be written is kept in memory and written with the next.
    pub fn note(
        &mut self,
        time: Timestamp,
        reason: &str,
        mut message: String,
        warning: bool,
    ) -> Result<(), LedgerError> {
        cut(&mut message, MAX_MESSAGE);
        let is_applied = |event: &Event| event.reason == APPLIED && reason != APPLIED;
        if self.has_said(time, reason, is_applied, |event| event.message == message) {
            return self.save_unsaved();
        }
        self.push(time, reason, message, warning, About::default())
    }

    /// Notes that something was done for workloads, once a day.
    pub fn note_applied(
        &mut self,
        time: Timestamp,
        mut message: String,
        workloads: BTreeSet<String>,
    ) -> Result<(), LedgerError> {
        cut(&mut message, MAX_MESSAGE);
        if self.has_said(time, APPLIED, |_| false, |event| event.message == message) {
            return self.save_unsaved();
        }
        let about = About {
            workloads: workloads.into_iter().take(MAX_WORKLOADS).collect(),
            failure: String::new(),
        };
        self.push(time, APPLIED, message, false, about)
    }

    /// Notes that a workload failed, unless that was noted within a day and since something of it was last applied. A different
    /// detail does not make it a different failure, because the messages of the workload and of Podman may have another time or
    /// port in them each time.
    pub fn note_failure(
        &mut self,
        time: Timestamp,
        workload: &str,
        problem: &Problem,
    ) -> Result<(), LedgerError> {
        let about = About {
            workloads: BTreeSet::from([workload.to_owned()]),
            failure: format!("{}: {}", problem.code, problem.message),
        };
        let known = &self.log.about;
        let is_it = |event: &Event| known.get(&event.id) == Some(&about);
        let is_applied = |event: &Event| {
            let of = known.get(&event.id);
            event.reason == APPLIED && of.is_some_and(|of| of.workloads.contains(workload))
        };
        if self.has_said(time, FAILED, is_applied, is_it) {
            return self.save_unsaved();
        }
        let mut message = format!("{workload}: {problem}");
        cut(&mut message, MAX_MESSAGE);
        self.push(time, FAILED, message, true, about)
    }

    fn has_said(
        &self,
        time: Timestamp,
        reason: &str,
        is_applied: impl Fn(&Event) -> bool,
        is_it: impl Fn(&Event) -> bool,
    ) -> bool {
        let events = self.log.events.iter().rev();
        let mut since_applied = events.take_while(|event| !is_applied(event));
        since_applied.any(|event| {
            event.reason == reason
                && is_it(event)
                && time.duration_since(event.time).abs() < REMINDER
        })
    }

    fn push(
        &mut self,
        time: Timestamp,
        reason: &str,
        message: String,
        warning: bool,
        about: About,
    ) -> Result<(), LedgerError> {
        self.log.last += 1;
        if about != About::default() {
            self.log.about.insert(self.log.last, about);
        }
        self.log.events.push(Event {
            id: self.log.last,
            time,
            reason: reason.to_owned(),
            message,
            warning,
        });
        let excess = self.log.events.len().saturating_sub(MAX_EVENTS);
        self.log.events.drain(..excess);
        let oldest = self.log.events.first().map_or(0, |event| event.id);
        self.log.about.retain(|id, _| *id >= oldest);
        self.save_log()
    }

    /// Events that the server has not stored yet, oldest first. Only those on disk: a power cut would lose the others, their
    /// numbers would be used again, and the server stores each number once.
    pub fn unacknowledged(&self) -> &[Event] {
        let after = |id: u64| self.log.events.partition_point(|event| event.id <= id);
        &self.log.events[after(self.log.kept)..after(self.saved)]
    }

    /// Records that the server has stored events up to this id.
    pub fn acknowledge(&mut self, up_to: u64) -> Result<(), LedgerError> {
        let up_to = up_to.min(self.saved);
        if up_to <= self.log.kept {
            return self.save_unsaved();
        }
        self.log.kept = up_to;
        self.save_log()
    }

    /// Writes the events that could not be written before.
    pub fn save_unsaved(&mut self) -> Result<(), LedgerError> {
        if self.is_log_unsaved {
            self.save_log()
        } else {
            Ok(())
        }
    }

    pub(super) fn save_log(&mut self) -> Result<(), LedgerError> {
        self.log.version = VERSION;
        let saved = self.save("events.json", &self.log);
        self.is_log_unsaved = saved.is_err();
        if saved.is_ok() {
            self.saved = self.log.last;
        }
        saved
    }
}
