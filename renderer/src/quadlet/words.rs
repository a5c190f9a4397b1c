//! Splits a value into words, as Quadlet 5.4 and systemd do.

/// A word, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Where it begins in the value, in bytes.
    pub at: usize,
    /// Its length in the value, in characters.
    pub len: usize,
}

/// Why a value cannot be split. Quadlet silently drops such a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes.
    pub at: usize,
}

fn broken<T>(message: impl Into<String>, at: usize) -> Result<T, Broken> {
    let message = message.into();
    Err(Broken { message, at })
}

/// Splits a list of names (`AddDevice=`, `WantedBy=`). Quotes group words, and `\` is an ordinary character.
pub fn names(value: &str) -> Result<Vec<Word>, Broken> {
    split(value, false)
}

/// Splits a command line (`Exec=`, `Environment=`, `Mount=`), with C escapes.
pub fn arguments(value: &str) -> Result<Vec<Word>, Broken> {
    split(value, true)
}

fn split(value: &str, escapes: bool) -> Result<Vec<Word>, Broken> {
    let mut words = Vec::new();
    let mut rest = value.char_indices().peekable();
    loop {
        while rest.next_if(|(_, c)| is_space(*c)).is_some() {}
        let Some((start, _)) = rest.peek().copied() else {
            return Ok(words);
        };
        let mut text = String::new();
        let mut quote = None;
        let end = loop {
            let Some((at, c)) = rest.next() else {
                break value.len();
            };
            match quote {
                _ if c == '\\' && escapes => match escape(&value[at + 1..]) {
                    Ok(None) => {}
                    Ok(Some((meant, len))) => {
                        text.push(meant);
                        while rest.next_if(|(next, _)| *next <= at + len).is_some() {}
                    }
                    Err(message) => return broken(message, at),
                },
                Some(open) if c == open => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some(c),
                None if is_space(c) => break at,
                _ => text.push(c),
            }
        };
        if quote.is_some() && !escapes {
            return broken("a quote is opened but not closed", start);
        }
        if text.is_empty() {
            // systemd does not end the list here: it reads an empty word
            return broken(
                "Quadlet reads an empty word as the end of the value, and drops what follows",
                start,
            );
        }
        let len = value[start..end].chars().count();
        words.push(Word {
            text,
            at: start,
            len,
        });
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Returns the character of an escape and the number of bytes after the backslash, or `None` for a backslash at the end.
fn escape(rest: &str) -> Result<Option<(char, usize)>, String> {
    let Some(first) = rest.chars().next() else {
        return Ok(None);
    };
    let number = |skip: usize, digits: usize, radix: u32| {
        let code = rest
            .get(skip..skip + digits)
            .filter(|text| text.chars().all(|c| c.is_digit(radix)))
            .and_then(|text| u32::from_str_radix(text, radix).ok())
            .filter(|code| *code > 0);
        code.and_then(char::from_u32)
            .map(|c| Some((c, skip + digits)))
    };
    let meant = match first {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        's' => Some(' '),
        '\\' | '"' | '\'' => Some(first),
        _ => None,
    };
    let found = match first {
        _ if meant.is_some() => meant.map(|c| Some((c, 1))),
        'x' => number(1, 2, 16),
        'u' => number(1, 4, 16),
        'U' => number(1, 8, 16),
        '0'..='3' => number(0, 3, 8),
        _ => None,
    };
    found.ok_or_else(|| {
        format!("Quadlet drops a value with `\\{first}`: write `\\\\` for a backslash")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: Result<Vec<Word>, Broken>) -> Vec<String> {
        let words = words.expect("words");
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn command_lines_have_quotes_and_escapes() {
        for (value, words) in [
            ("", &[] as &[&str]),
            ("  a  b\t", &["a", "b"]),
            (r#"sh -c 'echo "x y"'"#, &["sh", "-c", r#"echo "x y""#]),
            (r#"a"b c"d 'e'"#, &["ab cd", "e"]),
            (r"a\x20b \101 \u00e9 \s", &["a b", "A", "é", " "]),
            ("'open end", &["open end"]),
            ("end\\", &["end"]),
        ] {
            assert_eq!(texts(arguments(value)), words, "{value}");
        }
        let words = arguments("é  'b c'").expect("words");
        assert_eq!((words[1].at, words[1].len), (4, 5));
    }

    #[test]
    fn lists_of_names_keep_their_backslashes() {
        assert_eq!(texts(names(r#"a\x "b c""#)), [r"a\x", "b c"]);
    }

    #[test]
    fn values_that_quadlet_drops_are_errors() {
        for (value, at) in [
            (r"a \q", 2),
            (r"\x0", 0),
            (r"\400", 0),
            (r"\x00", 0),
            ("a '' b", 2),
        ] {
            let error = arguments(value).expect_err(value);
            assert_eq!(error.at, at, "{value}");
        }
        assert_eq!(names("a 'b").expect_err("open").at, 2);
    }
}
