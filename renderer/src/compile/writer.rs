//! Writes Quadlet files (podman-systemd.unit(5)) line by line. A user's value can never add a line or a directive, and reaches
//! the container unchanged: systemd's specifiers (`%`), variables (`$`) and escapes are quoted.

use std::fmt::Write as _;

/// A Quadlet file that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn section(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        let _ = writeln!(self.0, "[{name}]");
    }

    /// Writes a line whose value contains no text of a user.
    pub(super) fn fixed(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}={value}");
    }

    /// Writes a line whose value Quadlet does not split: a name, path or port.
    pub(super) fn value(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}={}", line_value(value));
    }

    /// Writes a line of words, which Quadlet splits and unquotes.
    pub(super) fn words<'a>(&mut self, key: &str, words: impl IntoIterator<Item = &'a str>) {
        let words: Vec<_> = words.into_iter().map(exec_word).collect();
        let _ = writeln!(self.0, "{key}={}", words.join(" "));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Quotes text as the whole value of a line. Callers have checked it with [`fits_a_line`].
fn line_value(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// Whether text can be the whole value of a line: it has no control characters, no backslash (at the end it would join the next
/// line), and no white space or quotes at its ends (they would be lost).
pub(super) fn fits_a_line(text: &str) -> bool {
    let lost = |c: char| c.is_whitespace() || c == '"';
    let keeps_its_ends = !text.starts_with(lost) && !text.ends_with(lost);
    !text.is_empty()
        && keeps_its_ends
        && not_a_word(text).is_none()
        && !text.chars().any(|c| c.is_control() || c == '\\')
}

/// The longest argument that the kernel accepts (`MAX_ARG_STRLEN`, including the NUL).
pub(super) const MAX_WORD: usize = 128 * 1024;

/// Returns why text cannot be an argument of a program, or `None` if it can.
pub(super) fn not_a_word(text: &str) -> Option<&'static str> {
    // systemd ignores lines with such a character, and Quadlet writes U+0080 as a single byte.
    let lost = |c: char| {
        let number = u32::from(c);
        c == '\u{80}' || number & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&number)
    };
    if text.contains('\0') {
        Some("an argument of a program cannot contain a NUL character")
    } else if text.chars().any(lost) {
        Some(
            "it contains a character that systemd does not support: U+0080 or a Unicode noncharacter",
        )
    } else if text.len() >= MAX_WORD {
        Some("it is longer than 128 KiB, the limit for an argument of a program")
    } else {
        None
    }
}

/// Quotes text as one word (systemd.syntax(7)): C escapes inside double quotes.
///
/// Quadlet reads words and writes them again, without quotes where it considers them unnecessary: an empty word ends its list,
/// and `;` becomes systemd's separator of command lines. A specifier that expands to nothing (`%i`, the instance of a unit
/// that is no template) protects both.
fn exec_word(text: &str) -> String {
    match text {
        "" => return "\"%i\"".to_owned(),
        ";" => return "\";%i\"".to_owned(),
        _ => {}
    }
    let mut word = String::with_capacity(text.len() + 2);
    word.push('"');
    for c in text.chars() {
        match c {
            '"' => word.push_str("\\\""),
            '\\' => word.push_str("\\\\"),
            '\n' => word.push_str("\\n"),
            '\t' => word.push_str("\\t"),
            '\r' => word.push_str("\\r"),
            '%' => word.push_str("%%"),
            '$' => word.push_str("$$"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                let _ = write!(word, "\\x{:02x}", u32::from(c));
            }
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests;
