//! Output for people: pure functions from answers to text. The time is passed in.

pub(crate) mod check;
pub(crate) mod describe;
pub(crate) mod findings;
pub(crate) mod github;

pub(crate) mod resources;
pub(crate) mod sarif;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod time;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;

/// A count with its noun: `1 error`, `2 errors`.
pub(crate) fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

/// A fingerprint for people to compare: the first 16 hex digits, as the device shows them.
pub(crate) fn fingerprint(hex: &str) -> String {
    format!("SHA256:{}", hex.get(..16).unwrap_or(hex))
}

/// Whether colours are wanted on this stream.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// ANSI styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Busy,
    Bad,
    Dim,
    Strong,
}

/// The text in a style, if colours are wanted.
pub(crate) fn paint(text: &str, style: Option<Style>, colours: bool) -> String {
    let code = match style {
        Some(style) if colours => match style {
            Style::Good => "32",
            Style::Busy => "33",
            Style::Bad => "31",
            Style::Dim => "2",
            Style::Strong => "1",
        },
        _ => return text.to_owned(),
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The value as YAML.
pub(crate) fn yaml<T: serde::Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}
