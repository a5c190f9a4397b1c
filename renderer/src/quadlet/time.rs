//! Points in time and time spans as systemd reads them (systemd.time(7)).

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Units of a time span, in microseconds. The first one that a text begins with is its unit.
const UNITS: [(&str, u64); 30] = [
    ("seconds", SECOND),
    ("second", SECOND),
    ("sec", SECOND),
    ("s", SECOND),
    ("minutes", 60 * SECOND),
    ("minute", 60 * SECOND),
    ("min", 60 * SECOND),
    ("months", 2_629_800 * SECOND),
    ("month", 2_629_800 * SECOND),
    ("M", 2_629_800 * SECOND),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", 60 * SECOND),
    ("hours", 3_600 * SECOND),
    ("hour", 3_600 * SECOND),
    ("hr", 3_600 * SECOND),
    ("h", 3_600 * SECOND),
    ("days", 86_400 * SECOND),
    ("day", 86_400 * SECOND),
    ("d", 86_400 * SECOND),
    ("weeks", 604_800 * SECOND),
    ("week", 604_800 * SECOND),
    ("w", 604_800 * SECOND),
    ("years", 31_557_600 * SECOND),
    ("year", 31_557_600 * SECOND),
    ("y", 31_557_600 * SECOND),
    ("usec", 1),
    ("us", 1),
    ("\u{b5}s", 1),
    ("\u{3bc}s", 1),
];
const SECOND: u64 = 1_000_000;

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Whether a text is a time span: `90`, `1min 30s`, `1.5h`, `infinity`.
pub fn is_span(text: &str) -> bool {
    let mut rest = text.trim_matches(SPACE);
    if rest == "infinity" {
        return true;
    }
    let mut total = Some(0_u64);
    let mut has_any = false;
    while !rest.is_empty() {
        let Some((value, after)) = one_span(rest) else {
            return false;
        };
        total = total
            .and_then(|total| total.checked_add(value))
            .filter(|total| *total < u64::MAX);
        has_any = true;
        rest = after.trim_start_matches(SPACE);
    }
    has_any && total.is_some()
}

/// Reads one number with its unit. Returns its value and the rest of the text.
fn one_span(text: &str) -> Option<(u64, &str)> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (fraction, rest) = digits(rest);
            (
                Some(fraction).filter(|fraction| !fraction.is_empty())?,
                rest,
            )
        }
        None => (
            Some(whole).filter(|whole| !whole.is_empty()).map(|_| "")?,
            rest,
        ),
    };
    let spaced = rest.trim_start_matches(SPACE);
    let mut units = UNITS.iter();
    let unit = units.find_map(|(name, size)| Some((spaced.strip_prefix(name)?, *size)));
    let (after, size) = match unit {
        Some(found) => found,
        // a number without a unit ends at white space
        None if spaced.is_empty() || spaced.len() < rest.len() => (spaced, SECOND),
        None => return None,
    };
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<i64>().ok()?
    };
    let whole = u64::try_from(whole)
        .ok()
        .filter(|whole| *whole < u64::MAX / size)?;
    let mut value = whole * size;
    let mut part = size / 10;
    for digit in fraction.bytes() {
        value = value.checked_add(u64::from(digit - b'0') * part)?;
        part /= 10;
    }
    Some((value, after))
}

/// Returns the digits that a text begins with, and the rest of it.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// Names that stand for a calendar expression.
const NAMED: [&str; 12] = [
    "minutely",
    "hourly",
    "daily",
    "monthly",
    "annually",
    "yearly",
    "anually",
    "weekly",
    "quarterly",
    "biannually",
    "semiannually",
    "semi-annually",
];

/// Weekdays in order. The first three letters are enough.
const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

static ZONES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("zones.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| line.split(' ')).collect()
});

/// Whether a text is a calendar expression: `Mon..Fri 8:00`, `*-*-01 04:00:00 Europe/Berlin`, `daily`.
pub fn is_calendar(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let end = match text.rsplit_once(' ') {
        Some((before, zone)) if zone.eq_ignore_ascii_case("utc") || ZONES.contains(zone) => {
            before.len()
        }
        _ => text.len(),
    };
    let text = &lower[..end];
    if NAMED.contains(&text) || text == "bi-annually" {
        return true;
    }
    !text.is_empty() && expression(text).is_some()
}

fn expression(text: &str) -> Option<()> {
    let text = weekdays(text)?;
    if let Some(seconds) = text.strip_prefix('@') {
        let (seconds, rest) = digits(seconds);
        return (rest.is_empty() && seconds.parse::<u32>().is_ok()).then_some(());
    }
    let text = date(text)?;
    if text.is_empty() {
        return Some(());
    }
    let (hour, rest) = chain(text, false)?;
    let (minute, rest) = chain(rest.strip_prefix(':')?, false)?;
    let second = match rest.strip_prefix(':') {
        Some(rest) => {
            let (second, rest) = chain(rest, true)?;
            rest.is_empty().then_some(second)?
        }
        None => rest.is_empty().then(Vec::new)?,
    };
    let fits = are_within(&hour, 0, 23, false)
        && are_within(&minute, 0, 59, false)
        && are_within(&second, 0, 60 * i64::try_from(SECOND).ok()? - 1, false);
    fits.then_some(())
}

/// Reads the days of the week, if there are any. Returns the rest of the text.
fn weekdays(text: &str) -> Option<&str> {
    let (mut rest, mut from, mut is_first) = (text, None, true);
    loop {
        let day = DAYS.iter().enumerate().find_map(|(number, name)| {
            let after = rest
                .strip_prefix(name)
                .or_else(|| rest.strip_prefix(&name[..3]))?;
            Some((number, after))
        });
        let Some((day, after)) = day else {
            return is_first.then_some(rest);
        };
        if from.is_some_and(|from| from > day) {
            return None;
        }
        rest = after;
        if rest.is_empty() || rest.starts_with(' ') {
            return Some(rest.trim_start_matches(' '));
        }
        if let Some(after) = rest.strip_prefix(',') {
            (rest, from) = (after, None);
        } else {
            let after = rest.strip_prefix("..").or_else(|| rest.strip_prefix('-'))?;
            if from.is_some() {
                return None;
            }
            (rest, from) = (after, Some(day));
        }
        if rest.is_empty() || rest.starts_with(' ') {
            return from.is_none().then(|| rest.trim_start_matches(' '));
        }
        is_first = false;
    }
}

/// Reads a date, if there is one. Returns the rest of the text.
fn date(text: &str) -> Option<&str> {
    if text.is_empty() {
        return Some(text);
    }
    let (first, rest) = chain(text, false)?;
    if rest.is_empty() || rest.starts_with(':') {
        return Some(text);
    }
    let (second, rest, is_end) = part(rest)?;
    let (year, month, day, rest, is_end) = if rest.is_empty() || rest.starts_with(' ') {
        (Vec::new(), first, second, rest, is_end)
    } else if is_end {
        return None;
    } else {
        let (third, rest, is_end) = part(rest)?;
        (first, second, third, rest, is_end)
    };
    let full = |year: i64| match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => year,
    };
    let year: Vec<_> = year
        .into_iter()
        .map(|part| Part {
            start: full(part.start),
            stop: part.stop.map(full),
            ..part
        })
        .collect();
    let fits = (rest.is_empty() || rest.starts_with(' '))
        && are_within(&year, 1970, 2199, false)
        && are_within(&month, 1, 12, false)
        && are_within(&day, 1, 31, is_end);
    fits.then(|| rest.trim_start_matches(' '))
}

/// Reads the next part of a date. Returns it, the rest of the text, and whether it is counted from the end of the month.
fn part(text: &str) -> Option<(Vec<Part>, &str, bool)> {
    let is_end = text.starts_with('~');
    let text = text.strip_prefix(['-', '~'])?;
    let (part, rest) = chain(text, false)?;
    Some((part, rest, is_end))
}

/// A value or a range, which may repeat.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: i64,
    stop: Option<i64>,
    repeat: i64,
}

/// Reads `*`, which is an empty list, or a list of parts. Seconds are counted in microseconds.
fn chain(text: &str, is_second: bool) -> Option<(Vec<Part>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((Vec::new(), rest));
    }
    let one = if is_second { 1_000_000 } else { 1 };
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (start, after) = number(rest, is_second)?;
        let mut part = Part {
            start,
            stop: None,
            repeat: 0,
        };
        rest = after;
        if let Some(after) = rest.strip_prefix("..") {
            let (stop, after) = number(after, is_second)?;
            (part.stop, part.repeat, rest) = (Some(stop), one, after);
        }
        if let Some(after) = rest.strip_prefix('/') {
            let (repeat, after) = number(after, is_second)?;
            (part.repeat, rest) = (repeat, after);
            if repeat == 0 {
                return None;
            }
        } else if is_second && part.stop.is_some_and(|stop| start + part.repeat > stop) {
            return None;
        }
        parts.push(part);
        match rest.strip_prefix(',') {
            Some(after) if parts.len() <= 240 => rest = after,
            Some(_) => return None,
            None => break,
        }
    }
    let is_end = rest.is_empty() || rest.starts_with([' ', '-', '~', ':']);
    is_end.then_some((parts, rest))
}

fn number(text: &str, is_second: bool) -> Option<(i64, &str)> {
    let (whole, rest) = digits(text);
    let value = i64::from(whole.parse::<i32>().ok()?);
    if !is_second {
        return Some((value, rest));
    }
    let value = value.checked_mul(1_000_000)?;
    let Some(after) = rest
        .strip_prefix('.')
        .filter(|after| !after.starts_with('.'))
    else {
        return Some((value, rest));
    };
    let (fraction, after) = digits(after);
    let micros = format!("{fraction:0<6}");
    (!fraction.is_empty()).then_some(())?;
    Some((value + micros[..6].parse::<i64>().ok()?, after))
}

/// Whether all parts are within a range, and those that repeat do so at least once.
fn are_within(parts: &[Part], from: i64, to: i64, is_end: bool) -> bool {
    // at most 28 days before the end of a month
    let to = if is_end { to - 3 } else { to };
    parts.iter().all(|part| {
        let mut part = *part;
        if let Some(stop) = part.stop
            && (stop == part.start || stop > part.start && part.start + part.repeat > stop)
        {
            (part.stop, part.repeat) = (None, 0);
        }
        let repeats = match part.stop {
            Some(stop) => (from..=to).contains(&stop) && part.start + part.repeat <= stop,
            None if is_end => part.start - part.repeat >= from,
            None => part.start + part.repeat <= to,
        };
        (from..=to).contains(&part.start) && part.repeat <= to - from && repeats
    })
}

#[cfg(test)]
mod tests;
