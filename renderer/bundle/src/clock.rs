//! When a machine's clock is believed: one rule for server and device, whose words about it meet in a report.

use jiff::{SignedDuration, Timestamp};

/// How far two clocks may differ before one of them is wrong: as far as the server's certificates reach into the past.
pub const SKEW: SignedDuration = SignedDuration::from_hours(1);
/// A file that systemd-timesyncd touches whenever it has set the clock (`/run` before it).
pub const MARK: &str = "systemd/timesync/synchronized";
/// How long that counts. timesyncd asks its server every 34 minutes at most, so that this is five answers missed.
const MARK_COUNTS: SignedDuration = SignedDuration::from_hours(3);

/// Whether a clock that says `now` was set of late, by when the mark was touched. A mark from the future is from before the
/// clock was set back by something else, and an old one from before timesyncd lost its server, or was stopped.
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
