//! The senders of a device's reports, each a boot of a machine with an event log: to number events, and to find cloned disks.
//!
//! Event numbers count within one log and one boot. A new log after a loss starts again at 1, and two machines with a cloned
//! disk continue to number in one log, each for itself.
//!
//! A boot id that comes back after another one is a sign of two machines with one identity. One return is not proof: a virtual
//! machine that is restored from a snapshot of its memory continues with an old boot id, and a report may be overtaken by the
//! first one after a reboot. So it takes [`RETURNS`], each within a day of the one before.

use std::net::IpAddr;

use flotta_bundle::wire::Report;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::value::millis;

/// Most senders that are stored for a device. Two machines that share an identity need two, and each reboot adds one.
const MAX_SENDERS: usize = 4;
/// Returns of a boot id that are proof of two machines, which make one with every heartbeat.
const RETURNS: u32 = 3;
/// The longest time between two returns that belong together.
const DAY: i64 = 24 * 3600 * 1000;
/// The shortest and longest time after the last return until there counts as one machine again: four times the interval of the
/// last return, so that it also holds for devices that report seldom.
const CALM: (i64, i64) = (60 * 1000, DAY);

/// A boot of a machine, with the log that it numbers events in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sender {
    boot: String,
    log: String,
    /// The address of its last report.
    #[serde(default)]
    from: String,
    /// Its last stored event.
    last: u64,
    /// Events up to this number may have been stored from another sender, and are then not stored again.
    #[serde(default)]
    doubt: u64,
}

impl Sender {
    /// The sender of a report.
    pub(super) fn of(report: &Report, from: IpAddr) -> Self {
        Self {
            boot: report.boot.clone(),
            log: report.log.clone(),
            from: from.to_string(),
            ..Self::default()
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.boot == other.boot && self.log == other.log
    }
}

/// What the edge API needs to know about a sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SenderState {
    /// Its last stored event.
    pub(super) last: u64,
    /// Events up to this number may have been stored from another sender.
    pub(super) doubt: u64,
    /// Whether the last report was by this sender.
    pub(super) is_newest: bool,
}

/// Two machines that use one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clones {
    /// Their boots.
    pub boots: [String; 2],
    /// The addresses of their last reports.
    pub from: [String; 2],
    /// Until when they count as two, unless one of them comes back again.
    pub until: Timestamp,
}

impl std::fmt::Display for Clones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |boot: &str| boot.chars().take(8).collect::<String>();
        let ([a, b], [from_a, from_b]) = (&self.boots, &self.from);
        write!(
            f,
            "two machines use this identity: boot {} from {from_a}, and boot {} from {from_b}",
            short(a),
            short(b)
        )
    }
}

/// The senders of a device, the newest last, and how often an older one came back: the column `voices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Senders {
    heard: Vec<Sender>,
    #[serde(default)]
    returns: u32,
    /// When one last came back, and the time since the return before, in milliseconds.
    #[serde(default)]
    returned: i64,
    #[serde(default)]
    after: i64,
}

impl Senders {
    /// What is known about a sender.
    pub(super) fn heard(&self, sender: &Sender) -> SenderState {
        let Some(at) = self.heard.iter().position(|known| known.is(sender)) else {
            return SenderState {
                doubt: self.heard.iter().map(|known| known.last).max().unwrap_or(0),
                ..SenderState::default()
            };
        };
        SenderState {
            last: self.heard[at].last,
            doubt: self.heard[at].doubt,
            is_newest: at + 1 == self.heard.len(),
        }
    }

    /// Records a report by a sender, whose events were stored up to `last`.
    pub(super) fn record(&mut self, sender: Sender, last: u64, now: Timestamp) {
        let SenderState { doubt, .. } = self.heard(&sender);
        // a machine without a boot id is no sign of a second one
        let mut told = self
            .heard
            .iter()
            .rev()
            .filter(|known| !known.boot.is_empty());
        let is_other = told.next().is_some_and(|newest| newest.boot != sender.boot);
        let is_known = told.any(|known| known.boot == sender.boot);
        if is_other && is_known {
            let now = millis(now);
            self.after = now.saturating_sub(self.returned).max(0);
            self.returns = match self.returned {
                before if before > 0 && self.after <= DAY => self.returns.saturating_add(1),
                _ => 1,
            };
            self.returned = now;
        }
        self.heard.retain(|known| !known.is(&sender));
        self.heard.push(Sender {
            last,
            doubt,
            ..sender
        });
        let excess = self.heard.len().saturating_sub(MAX_SENDERS);
        self.heard.drain(..excess);
    }

    /// The two machines that use this identity, if there are two.
    pub(super) fn clones(&self, now: Timestamp) -> Option<Clones> {
        let calm = self.after.saturating_mul(4).clamp(CALM.0, CALM.1);
        let until = Timestamp::from_millisecond(self.returned.saturating_add(calm)).ok()?;
        if self.returns < RETURNS || now > until {
            return None;
        }
        let mut told = self
            .heard
            .iter()
            .rev()
            .filter(|known| !known.boot.is_empty());
        let newest = told.next()?;
        let other = told.find(|sender| sender.boot != newest.boot)?;
        // sorted by boot, so that the message does not depend on which reported last
        let mut pair = [other, newest];
        pair.sort_by(|a, b| a.boot.cmp(&b.boot));
        Some(Clones {
            boots: pair.map(|sender| sender.boot.clone()),
            from: pair.map(|sender| sender.from.clone()),
            until,
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn sender(boot: &str) -> Sender {
        Sender {
            boot: boot.to_owned(),
            log: "log".to_owned(),
            from: format!("192.0.2.{}", boot.len()),
            ..Sender::default()
        }
    }

    /// Records these boots, a minute apart. Returns after which one they were found to be two machines, if they were.
    fn play(boots: &str) -> (Senders, Option<usize>) {
        let (mut senders, mut found) = (Senders::default(), None);
        for (at, boot) in boots.split(' ').enumerate() {
            let now = 1_800_000_000 + 60 * i64::try_from(at).unwrap();
            let now = Timestamp::from_second(now).unwrap();
            senders.record(sender(boot), 0, now);
            if senders.clones(now).is_some() {
                found.get_or_insert(at);
            }
        }
        (senders, found)
    }

    #[test]
    fn two_machines_are_found_within_heartbeats_and_one_that_reboots_never() {
        for (boots, found) in [
            ("a", None),
            ("a a a b b b", None),
            // many reboots
            ("a b c d e f g h i j k l m n", None),
            // restored from a snapshot of its memory
            ("a b a a a a", None),
            // the last report of a boot arrives after the first of the next
            ("a b a b b b b", None),
            ("a b a b a", Some(4)),
            ("a a b b a a b b a", Some(8)),
            // the clone is switched on now and then, each time with a new boot
            ("a b a c a d a", Some(6)),
            // neither has a boot id
            (" a  a  a  a ", None),
        ] {
            assert_eq!(play(boots).1, found, "{boots}");
        }
    }

    #[test]
    fn what_was_found_ends_when_one_of_them_is_silent_and_memory_is_bounded() {
        let (mut senders, _) = play("a b a b a b");
        let last = Timestamp::from_second(1_800_000_300).unwrap();
        let clones = senders.clones(last).unwrap();
        assert_eq!(clones.boots, ["a", "b"]);
        assert_eq!(
            clones.to_string(),
            "two machines use this identity: boot a from 192.0.2.1, and boot b from 192.0.2.1"
        );
        assert_eq!(senders.clones(clones.until).as_ref(), Some(&clones));
        let after = clones.until + SignedDuration::from_millis(1);
        assert_eq!(senders.clones(after), None);
        for boot in 0..100 {
            senders.record(sender(&boot.to_string()), 0, after);
        }
        assert_eq!(senders.heard.len(), MAX_SENDERS);
        // returns that are days apart do not count
        let mut rare = Senders::default();
        for day in 0..20 {
            let now = Timestamp::from_second(1_800_000_000 + day * 90_000).unwrap();
            rare.record(
                sender(["a", "b"][usize::try_from(day % 2).unwrap()]),
                0,
                now,
            );
            assert_eq!(rare.clones(now), None);
        }
    }

    #[test]
    fn each_voice_has_numbers_of_its_own() {
        let (mut senders, now) = (Senders::default(), Timestamp::UNIX_EPOCH);
        senders.record(sender("a"), 12, now);
        let new = senders.heard(&sender("b"));
        assert_eq!((new.last, new.doubt, new.is_newest), (0, 12, false));
        senders.record(sender("b"), 10, now);
        assert!(senders.heard(&sender("b")).is_newest);
        assert_eq!(senders.heard(&sender("b")).doubt, 12);
        let old = senders.heard(&sender("a"));
        assert_eq!((old.last, old.doubt, old.is_newest), (12, 0, false));
    }
}
