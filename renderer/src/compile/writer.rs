//! Quadlet files (podman-systemd.unit(5)), line by line. A value from a user can never add a line or a directive, and means
//! itself: systemd's specifiers (`%`), variables (`$`) and escapes are written so that they come out as they went in.

use std::fmt::Write as _;

/// A Quadlet file in the making.
#[derive(Debug, Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn section(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        let _ = writeln!(self.0, "[{name}]");
    }

    /// A line whose value is ours: no user's text in it.
    pub(super) fn fixed(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}={value}");
    }

    /// A line that Quadlet takes as it stands: names, paths, ports.
    pub(super) fn value(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}={}", line_value(value));
    }

    /// A line of words that Quadlet splits and unquotes.
    pub(super) fn words<'a>(&mut self, key: &str, words: impl IntoIterator<Item = &'a str>) {
        let words: Vec<_> = words.into_iter().map(exec_word).collect();
        let _ = writeln!(self.0, "{key}={}", words.join(" "));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Text as the whole value of a line. Callers have refused what a line cannot hold: see [`fits_a_line`].
fn line_value(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// Whether text can be the whole value of a line: no control characters, no backslash (at the end it would join the next
/// line), no white space or quotes at the ends (they would be lost).
pub(super) fn fits_a_line(text: &str) -> bool {
    let lost = |c: char| c.is_whitespace() || c == '"';
    let kept = !text.starts_with(lost) && !text.ends_with(lost);
    !text.is_empty()
        && kept
        && not_a_word(text).is_none()
        && !text.chars().any(|c| c.is_control() || c == '\\')
}

/// The longest word that the kernel takes as an argument (`MAX_ARG_STRLEN`, its NUL included).
const MAX_WORD: usize = 128 * 1024;

/// Why text cannot be a word of a command line. Any other can, byte for byte.
pub(super) fn not_a_word(text: &str) -> Option<&'static str> {
    // systemd ignores lines that have such a character, and Quadlet writes U+0080 so that it is read as a single byte.
    let lost = |c: char| {
        let number = u32::from(c);
        c == '\u{80}' || number & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&number)
    };
    if text.contains('\0') {
        Some("no argument of a program can hold a NUL character")
    } else if text.chars().any(lost) {
        Some(
            "it has a character that systemd cannot hold: U+0080, or one that Unicode reserves as none",
        )
    } else if text.len() >= MAX_WORD {
        Some("it is longer than an argument of a program can be (128 KiB)")
    } else {
        None
    }
}

/// Text as one quoted word, as systemd.syntax(7) has it: C escapes inside double quotes.
///
/// Quadlet reads words, and writes them again, without quotes where it sees no need for them: an empty one ends its list,
/// and `;` comes out as systemd's separator of command lines. A specifier that is nothing (`%i`, the instance of a unit that
/// has none) keeps both alive.
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
