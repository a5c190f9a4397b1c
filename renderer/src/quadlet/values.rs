//! Which values systemd accepts for each key. It ignores all others, with a line in the journal that nobody reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

use super::time::{is_calendar, is_span};

/// The kind of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any text, or something that only systemd can check.
    Any,
    Address,
    Boolean,
    Calendar,
    Mode,
    Nice,
    Number,
    Path,
    Signal,
    Span,
    Words,
}

/// The keys of each section. In the list, the kind of the values comes before the keys: `boolean: Accept …`.
static KEYS: LazyLock<BTreeMap<&str, BTreeMap<&str, Kind>>> = LazyLock::new(|| {
    let mut sections: BTreeMap<&str, BTreeMap<&str, Kind>> = BTreeMap::new();
    let (mut section, mut kind) = ("", Kind::Any);
    for line in include_str!("systemd.txt").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if !line.starts_with('#') {
            for word in line.split(' ') {
                match word.strip_suffix(':') {
                    Some(name) => kind = Kind::of(name),
                    None => {
                        sections.entry(section).or_default().insert(word, kind);
                    }
                }
            }
        }
    }
    sections
});

/// Keys whose values are one of a few words.
const WORDS: [(&str, &[&str]); 13] = [
    (
        "BindIPv6Only",
        &["default", "both", "ipv6-only", "yes", "no"],
    ),
    ("CollectMode", &["inactive", "inactive-or-failed"]),
    ("DevicePolicy", &["auto", "closed", "strict"]),
    ("ExitType", &["main", "cgroup"]),
    ("KillMode", &["control-group", "mixed", "process", "none"]),
    ("NotifyAccess", &["none", "main", "exec", "all"]),
    ("OOMPolicy", &["continue", "stop", "kill"]),
    ("OnFailureJobMode", JOB_MODES),
    ("OnSuccessJobMode", JOB_MODES),
    ("RestartMode", &["normal", "direct", "debug"]),
    ("TimeoutStartFailureMode", &["terminate", "abort", "kill"]),
    ("TimeoutStopFailureMode", &["terminate", "abort", "kill"]),
    (
        "Type",
        &[
            "simple",
            "exec",
            "forking",
            "notify",
            "notify-reload",
            "oneshot",
            "dbus",
            "idle",
        ],
    ),
];
const JOB_MODES: &[&str] = &[
    "fail",
    "replace",
    "replace-irreversibly",
    "isolate",
    "flush",
    "ignore-dependencies",
    "ignore-requirements",
    "restart-dependencies",
];

const SIGNALS: [&str; 33] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS", "RTMIN", "RTMAX",
];

/// Keys of timers that may be given more than once: an empty value removes those before it, and systemd replaces `%` specifiers
/// before it reads the value. Both are so for all keys for paths and addresses.
const TIMES: [&str; 6] = [
    "OnActiveSec",
    "OnBootSec",
    "OnCalendar",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
];

/// Other keys that an empty value resets.
const RESET: [&str; 2] = ["Nice", "TimeoutAbortSec"];

/// Returns the keys that systemd knows in a section.
pub(super) fn keys(section: &str) -> Vec<&'static str> {
    let keys = KEYS.get(section).map(BTreeMap::keys);
    keys.into_iter().flatten().copied().collect()
}

/// Returns why systemd does not accept a value, or `None` if it does.
pub(super) fn fault(section: &str, key: &str, value: &str) -> Option<String> {
    let kind = *KEYS.get(section)?.get(key)?;
    let words = || {
        WORDS
            .iter()
            .find(|(of, _)| *of == key)
            .map(|(_, words)| *words)
    };
    let is_text = [Kind::Address, Kind::Path].contains(&kind);
    let is_repeated = is_text || TIMES.contains(&key);
    if value.is_empty() && (is_repeated || RESET.contains(&key))
        || value.contains('%') && is_repeated
    {
        return None;
    }
    let (is_good, what) = match kind {
        Kind::Any => return None,
        Kind::Address => (
            is_address(value, key == "ListenSequentialPacket"),
            "an address: PORT, IPV4:PORT, [IPV6]:PORT, /PATH, @NAME or vsock:CID:PORT".to_owned(),
        ),
        Kind::Boolean => (is_switch(value).is_some(), "yes or no".to_owned()),
        Kind::Calendar => (
            is_calendar(value),
            "a calendar expression: `Mon..Fri 08:00`, `*-*-01 04:00:00`, `daily` (systemd.time(7))"
                .to_owned(),
        ),
        Kind::Mode => (is_mode(value), "an octal mode: 0644".to_owned()),
        Kind::Nice => (
            number(value).is_some_and(|nice| (-20..=19).contains(&nice)),
            "a number from -20 to 19".to_owned(),
        ),
        Kind::Number => (
            number(value).is_some_and(|number| u32::try_from(number).is_ok()),
            "a whole number".to_owned(),
        ),
        Kind::Path => (value.starts_with('/'), "an absolute path".to_owned()),
        Kind::Signal => (is_signal(value), "a signal: SIGTERM".to_owned()),
        Kind::Span => (
            is_span(value),
            "a time span: `90`, `5min`, `1h 30s` (systemd.time(7))".to_owned(),
        ),
        Kind::Words => {
            let words = words()?;
            (
                words.contains(&value),
                format!("one of {}", words.join(", ")),
            )
        }
    };
    (!is_good).then(|| format!("`{value}` is not {what}: systemd ignores {key}="))
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "address" => Self::Address,
            "boolean" => Self::Boolean,
            "calendar" => Self::Calendar,
            "mode" => Self::Mode,
            "nice" => Self::Nice,
            "number" => Self::Number,
            "path" => Self::Path,
            "signal" => Self::Signal,
            "span" => Self::Span,
            "words" => Self::Words,
            _ => Self::Any,
        }
    }
}

/// Reads a boolean as systemd does.
pub(super) fn is_switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

fn is_address(value: &str, is_sequential: bool) -> bool {
    /// The kernel's limit for the path of a socket.
    const MAX_PATH: usize = 107;
    if value.starts_with(['/', '@']) {
        return (2..=MAX_PATH).contains(&value.len());
    }
    if let Some(address) = value.strip_prefix("vsock") {
        return address.contains(':');
    }
    let port = number(value).filter(|_| value.starts_with(|c: char| c.is_ascii_digit()));
    let port = port.map(|port| u16::try_from(port).unwrap_or(0));
    let port = port.or_else(|| value.parse::<SocketAddr>().ok().map(|at| at.port()));
    // there are no sequential packets over IP
    !is_sequential && port.is_some_and(|port| port != 0)
}

fn is_mode(value: &str) -> bool {
    let is_octal = value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    is_octal && u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777)
}

/// Parses a whole number as systemd does: decimal, or with the prefix `0x`, `0o`, `0` or `0b`.
fn number(value: &str) -> Option<i64> {
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, value.strip_prefix('+').unwrap_or(value)),
    };
    let radix = |radix: u32, prefix: &str| Some((digits.strip_prefix(prefix)?, radix));
    let octal = || radix(8, "0").filter(|(digits, _)| !digits.is_empty());
    let (digits, radix) = radix(16, "0x")
        .or_else(|| radix(2, "0b"))
        .or_else(|| radix(8, "0o"))
        .or_else(octal)
        .unwrap_or((digits, 10));
    let digits = Some(digits).filter(|digits| !digits.starts_with(['+', '-']));
    Some(sign * i64::from_str_radix(digits?, radix).ok()?)
}

fn is_signal(value: &str) -> bool {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return number(value).is_some_and(|signal| (1..=64).contains(&signal));
    }
    let name = value.strip_prefix("SIG").unwrap_or(value);
    let offset = |offset: &str| offset.parse::<u8>().is_ok_and(|offset| offset <= 30);
    let is_real_time = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"))
        .is_some_and(offset);
    is_real_time || SIGNALS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_only_known_kinds_and_every_key_of_words() {
        let all = KEYS.values().flatten();
        let words: std::collections::BTreeSet<_> = all
            .filter(|(_, kind)| **kind == Kind::Words)
            .map(|(key, _)| *key)
            .collect();
        assert!(
            words.iter().eq(WORDS.iter().map(|(key, _)| key)),
            "{words:?}"
        );
        for line in include_str!("systemd.txt").lines() {
            if let Some((kind, _)) = line.split_once(": ").filter(|(kind, _)| *kind != "any") {
                assert!(
                    line.starts_with('#') || Kind::of(kind) != Kind::Any,
                    "{line}"
                );
            }
        }
    }
}
