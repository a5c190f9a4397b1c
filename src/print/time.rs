//! Times for people.

use jiff::{SignedDuration, Timestamp};

/// How far two clocks may differ before it is shown: times from a device are by the device's clock.
const ALIKE: SignedDuration = SignedDuration::from_secs(60);

/// How long ago: `4s`, `3m`, `5h`, `3d`. A future time is shown as `in 3h`: one of two clocks is wrong.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    if is_ahead(now, then) {
        return format!("in {}", span(then.duration_since(now)));
    }
    span(now.duration_since(then))
}

fn is_ahead(now: Timestamp, then: Timestamp) -> bool {
    then.duration_since(now) > ALIKE
}

/// The same in a sentence: `4s ago`, `in 3h`.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    let age = age(now, then);
    if is_ahead(now, then) {
        age
    } else {
        format!("{age} ago")
    }
}

/// How long something has lasted: `for 3h`. A start in the future was noted by another clock.
pub(crate) fn lasting(now: Timestamp, since: Timestamp) -> String {
    let ahead = since.duration_since(now);
    if ahead > ALIKE {
        return format!("since a time ahead of this clock, by {}", span(ahead));
    }
    format!("for {}", span(now.duration_since(since)))
}

/// A length of time in its largest unit, rounded down: `59m`.
pub(crate) fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A length of time as people write it: `90s`, `30m`, `1h`, `7d`.
pub(crate) fn parse_span(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("`{text}` is not a time: write 90s, 30m, 1h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(factor) {
        // at most ten years: longer is a typing error, and this is far within what a timestamp can hold
        Some(seconds @ 1..=315_360_000) => Ok(SignedDuration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_cut_to_their_largest_unit() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2028-11-23T12:00:00Z", "in 731d"),
            ("2026-11-23T15:00:00Z", "in 3h"),
            ("2026-11-23T12:01:01Z", "in 1m"),
            ("2026-11-23T12:00:05Z", "0s"),
            ("2026-11-23T11:59:01Z", "59s"),
            ("2026-11-23T11:57:00Z", "3m"),
            ("2026-11-23T06:30:00Z", "5h"),
            ("2026-11-20T09:12:00Z", "3d"),
        ] {
            let then = then.parse().unwrap();
            assert_eq!(age(now, then), text);
            let said = ago(now, then);
            assert!(said == text || said == format!("{text} ago"), "{said}");
        }
    }

    #[test]
    fn spans_are_read_back() {
        assert_eq!(parse_span("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse_span("7d"), Ok(SignedDuration::from_hours(168)));
        for wrong in ["", "h", "0s", "-1h", "1", "1w", "1é", "99999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
