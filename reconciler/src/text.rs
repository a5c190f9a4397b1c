//! Sanitises text from devices and strangers that people see in a terminal and in the log.

/// At most `max` characters of `text`, without characters that move the cursor, begin a line or change the direction of text,
/// so that no device can forge a line.
pub(crate) fn plain(text: &str, max: usize) -> String {
    let harmless = |c: char| {
        !c.is_control()
            && !matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    text.trim()
        .chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if harmless(c) => c,
            _ => '?',
        })
        .take(max)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_line_stays_one_line() {
        let forged = "ok\n2026-11-23 ERROR revoked\r\x1b[2Kall well\u{202e}";
        assert_eq!(
            plain(forged, 80),
            "ok 2026-11-23 ERROR revoked??[2Kall well?"
        );
        assert_eq!(plain("äöü…", 3), "äöü");
    }
}
