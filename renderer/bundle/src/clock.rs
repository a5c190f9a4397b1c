//! When a machine's clock is trusted: one rule for server and device, because both judge the times in a report.

use jiff::{SignedDuration, Timestamp};

/// How far two clocks may differ before one of them counts as wrong. The server's certificates begin this long in the past.
pub const SKEW: SignedDuration = SignedDuration::from_hours(1);
/// A file that systemd-timesyncd touches whenever it has set the clock (`/run` before it).
pub const MARK: &str = "systemd/timesync/synchronized";
/// How long the file's time counts as recent. timesyncd asks its server at least every 34 minutes, so it may miss five answers.
const MARK_COUNTS: SignedDuration = SignedDuration::from_hours(3);

/// Whether the network set the clock recently: `mark` is the time of the file above, and `now` is the clock's time. If the file is
/// from the future, something else has set the clock back since. If it is old, timesyncd lost its server or was stopped.
pub fn is_fresh(mark: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(mark);
    !age.is_negative() && age <= MARK_COUNTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_for_as_long_as_the_clock_can_be_said_to_be_set() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let minutes = SignedDuration::from_mins;
        for (age, is_believed) in [
            (minutes(0), true),
            (minutes(34), true),
            (minutes(180), true),
            (minutes(181), false),
            (minutes(60 * 24 * 730), false),
            (minutes(-1), false),
            (minutes(-60 * 24 * 730), false),
        ] {
            assert_eq!(is_fresh(now - age, now), is_believed, "{age:#}");
        }
    }
}
