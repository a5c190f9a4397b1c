//! The event log: what happened, numbered, until the server has kept it.

use flotta_bundle::code::{MAX_MESSAGE, Problem, cut};
use flotta_bundle::wire::Event;
use jiff::{SignedDuration, Timestamp};

use super::shape::VERSION;
use super::{Ledger, LedgerError};

/// Events kept, to be told and to tell no event twice; then the oldest go.
pub(super) const MAX_EVENTS: usize = 200;
/// After so long what goes on is noted again.
pub(super) const REMINDER: SignedDuration = SignedDuration::from_hours(24);

impl Ledger {
    /// Which log the events are numbered in.
    pub fn log_id(&self) -> &str {
        &self.log.id
    }

    /// Notes an event for the server, its message cut at 1,024 characters. What was said within a day, and since something was
    /// applied, is not said again. An event that cannot be written is kept in memory, and written with the next.
    pub fn note(
        &mut self,
        time: Timestamp,
        reason: &str,
        mut message: String,
        warning: bool,
    ) -> Result<(), LedgerError> {
        cut(&mut message, MAX_MESSAGE);
        let is_applied = |event: &Event| event.reason == "Applied" && reason != "Applied";
        if self.has_said(time, reason, is_applied, |said| said == message) {
            return self.save_unsaved();
        }
        self.push(time, reason, message, warning)
    }

    /// Notes that a workload failed; not when that was said within a day, and since something of it was applied. What follows a
    /// colon in the message makes it no other failure: the workload's own words, or Podman's, may have another time or port in
    /// them each time.
    pub fn note_failure(
        &mut self,
        time: Timestamp,
        workload: &str,
        problem: &Problem,
    ) -> Result<(), LedgerError> {
        let (what, _) = problem
            .message
            .split_once(": ")
            .unwrap_or((&problem.message, ""));
        let mut failure = format!("{workload}: {}: {what}", problem.code);
        cut(&mut failure, MAX_MESSAGE);
        let is_it = |said: &str| {
            let rest = said.strip_prefix(&failure);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
        };
        // `release 7: restarted web; started db, radio`
        let is_applied = |event: &Event| {
            let mut words = event.message.split([' ', ',', ';']);
            event.reason == "Applied" && words.any(|word| word == workload)
        };
        if self.has_said(time, "Failed", is_applied, is_it) {
            return self.save_unsaved();
        }
        let mut message = format!("{workload}: {}: {}", problem.code, problem.message);
        cut(&mut message, MAX_MESSAGE);
        self.push(time, "Failed", message, true)
    }

    fn has_said(
        &self,
        time: Timestamp,
        reason: &str,
        is_applied: impl Fn(&Event) -> bool,
        is_it: impl Fn(&str) -> bool,
    ) -> bool {
        let events = self.log.events.iter().rev();
        let mut since_applied = events.take_while(|event| !is_applied(event));
        since_applied.any(|event| {
            event.reason == reason
                && is_it(&event.message)
                && time.duration_since(event.time).abs() < REMINDER
        })
    }

    fn push(
        &mut self,
        time: Timestamp,
        reason: &str,
        message: String,
        warning: bool,
    ) -> Result<(), LedgerError> {
        self.log.last += 1;
        self.log.events.push(Event {
            id: self.log.last,
            time,
            reason: reason.to_owned(),
            message,
            warning,
        });
        let excess = self.log.events.len().saturating_sub(MAX_EVENTS);
        self.log.events.drain(..excess);
        self.save_log()
    }

    /// Events that the server has not kept yet, oldest first. Only those on disk: the number of one that a power cut took
    /// would be given again, and the server keeps each number once.
    pub fn unacknowledged(&self) -> &[Event] {
        let after = |id: u64| self.log.events.partition_point(|event| event.id <= id);
        &self.log.events[after(self.log.kept)..after(self.saved)]
    }

    /// The server has kept events up to this id.
    pub fn acknowledge(&mut self, up_to: u64) -> Result<(), LedgerError> {
        let up_to = up_to.min(self.saved);
        if up_to <= self.log.kept {
            return self.save_unsaved();
        }
        self.log.kept = up_to;
        self.save_log()
    }

    /// Writes the events that could not be written.
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
