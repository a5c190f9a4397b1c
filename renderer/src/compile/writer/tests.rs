use proptest::prelude::*;

use super::*;

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Splits words as Quadlet (`pkg/systemd/parser`) and systemd (extract-word.c) both do: quotes are taken away, C escapes read.
/// Quadlet stops at a word that is empty.
fn split(line: &str, quadlet: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start_matches(WHITE).chars().peekable();
    while rest.peek().is_some() {
        let mut word = String::new();
        let mut quote = None;
        while let Some(c) = rest.next() {
            match (quote, c) {
                (_, '\\') => word.push(unescape(&mut rest)),
                (Some(open), c) if c == open => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (None, c) if WHITE.contains(&c) => break,
                (_, c) => word.push(c),
            }
        }
        assert_eq!(quote, None, "an open quote in {line:?}");
        while rest.next_if(|c| WHITE.contains(c)).is_some() {}
        if quadlet && word.is_empty() {
            break;
        }
        words.push(word);
    }
    words
}

fn unescape(rest: &mut impl Iterator<Item = char>) -> char {
    match rest.next().expect("what is escaped") {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        'x' => {
            let digits: String = rest.take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).expect("two digits");
            assert!(byte.is_ascii(), "\\x{digits} is one byte, not a character");
            char::from(byte)
        }
        c @ ('\\' | '"' | '\'') => c,
        other => panic!("\\{other} is no escape"),
    }
}

/// As Quadlet writes `ExecStart=`: quoted only when a character asks for it.
fn quadlet_writes(words: &[String]) -> String {
    let special = |c: char| {
        u32::from(c) <= 128 && (c.is_whitespace() || c.is_control() || "\"'\\".contains(c))
    };
    let word = |word: &String| {
        if !word.contains(special) {
            return word.clone();
        }
        let mut out = String::from("\"");
        for c in word.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                ' ' | '\'' => out.push(c),
                c if special(c) => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out + "\""
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What systemd runs: separators of command lines, words, specifiers, then variables.
fn systemd_runs(line: &str) -> Vec<String> {
    let outside = outside_quotes(line);
    let bare: Vec<&str> = outside.split(WHITE).collect();
    assert!(!bare.contains(&";"), "{line:?} is two command lines");
    assert!(!bare.contains(&"\\;"), "{line:?}");
    let words = split(line, false).into_iter();
    words.map(|word| expand(&expand(&word, '%'), '$')).collect()
}

/// The line with what stands in double quotes blotted out: a separator there is none.
fn outside_quotes(line: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let shown = line.chars().map(|c| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        inside ^= quote;
        if inside || quote { 'x' } else { c }
    });
    shown.collect()
}

#[test]
fn a_quoted_semicolon_separates_nothing() {
    let words = [" ; ".to_owned(), ";".to_owned(), " \\; ".to_owned()];
    assert_eq!(round(&words), words);
}

/// Of specifiers `%%` and `%i` (of a unit without instance), of variables `$$` alone: no other may come.
fn expand(word: &str, sign: char) -> String {
    let mut out = String::new();
    let mut rest = word.chars();
    while let Some(c) = rest.next() {
        match (c == sign).then(|| rest.next()) {
            None => out.push(c),
            Some(Some(second)) if second == sign => out.push(sign),
            Some(Some('i')) if sign == '%' => {}
            other => panic!("{sign} and {other:?} in {word:?}"),
        }
    }
    out
}

/// A file of one line, as both read it.
fn round(words: &[String]) -> Vec<String> {
    let mut file = Writer::default();
    file.words("Exec", words.iter().map(String::as_str));
    let text = String::from_utf8(file.finish()).expect("UTF-8");
    let line = text.strip_prefix("Exec=").expect("the key");
    let line = line.strip_suffix('\n').expect("one line");
    assert!(!line.contains('\n') && !line.ends_with('\\'), "{line:?}");
    systemd_runs(&quadlet_writes(&split(line, true)))
}

proptest! {
    #[test]
    fn words_come_out_as_they_went_in(words in prop::collection::vec(any::<String>(), 0..6)) {
        let words: Vec<_> = words.into_iter().filter(|word| not_a_word(word).is_none()).collect();
        prop_assert_eq!(round(&words), words);
    }

    /// Words of what quoting is about.
    #[test]
    fn odd_words_come_out_as_they_went_in(
        words in prop::collection::vec("[;%$\"'\\\\ \t\n\r#=&{}()ix\u{7}\u{7f}\u{85}\u{a0}]{0,4}", 0..6),
    ) {
        prop_assert_eq!(round(&words), words);
    }
}

#[test]
fn what_cannot_be_a_word_is_known() {
    for word in ["a\0", "\u{80}", "\u{fdd0}", "\u{ffff}", "\u{1fffe}"] {
        assert!(not_a_word(word).is_some(), "{word:?}");
    }
    assert!(not_a_word(&"a".repeat(MAX_WORD)).is_some());
    assert_eq!(not_a_word(&"a".repeat(MAX_WORD - 1)), None);
    assert_eq!(not_a_word("\u{81}\u{fffd}"), None);
}
