//! The text of a unit file, read as Quadlet 5.4 reads it, with the place of every key and value.

/// A place in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The length in characters; 0 if it is not known.
    pub len: usize,
}

/// One `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The section it is in, without brackets.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value, with continued lines joined and without the white space around it.
    pub value: String,
    /// The place of the key.
    pub at: Spot,
    /// The pieces of the value, one for each line of the file: offset in the value, line and column.
    pieces: Vec<(usize, usize, usize)>,
}

impl Entry {
    /// Returns the place of the value, or of the key if the value is empty.
    pub fn spot(&self) -> Spot {
        if self.value.is_empty() {
            return self.at;
        }
        let first_line = self
            .pieces
            .get(1)
            .map_or(self.value.len(), |(offset, ..)| *offset);
        let text = self.value[..first_line].trim_end();
        self.spot_at(0, text.chars().count())
    }

    /// Returns the place of a part of the value: `offset` in bytes, `len` in characters.
    pub fn spot_at(&self, offset: usize, len: usize) -> Spot {
        let after = self.pieces.partition_point(|(start, ..)| *start <= offset);
        let piece = after.checked_sub(1).and_then(|at| self.pieces.get(at));
        let Some((start, line, column)) = piece else {
            return self.at;
        };
        let before = self
            .value
            .get(*start..offset)
            .map_or(0, |text| text.chars().count());
        Spot {
            line: *line,
            column: column + before,
            len,
        }
    }
}

/// A unit file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Section headers in order; a section may be opened more than once.
    pub sections: Vec<(String, Spot)>,
    /// Entries in order.
    pub entries: Vec<Entry>,
    /// Lines that are not a header, an entry or a comment. Because of a single one, Quadlet skips the whole file.
    pub faults: Vec<(Spot, String)>,
}

/// A line together with the lines that continue it.
#[derive(Default)]
struct Logical {
    text: String,
    /// The pieces that it is joined from: offset in `text`, line and column.
    pieces: Vec<(usize, usize, usize)>,
}

impl Logical {
    fn push(&mut self, text: &str, line: usize, column: usize) {
        self.pieces.push((self.text.len(), line, column));
        self.text.push_str(text);
    }

    fn spot(&self) -> Spot {
        let (_, line, column) = self.pieces.first().copied().unwrap_or_default();
        let end = self
            .pieces
            .get(1)
            .map_or(self.text.len(), |(offset, ..)| *offset);
        Spot {
            line,
            column,
            len: self.text[..end].trim_end().chars().count(),
        }
    }
}

/// Reads a unit file.
pub fn parse(text: &str) -> File {
    let mut file = File::default();
    let mut open = Logical::default();
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut lines = text.split('\n').enumerate().peekable();
    while let Some((number, raw)) = lines.next() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let column = raw.len() - raw.trim_start().len();
        let column = raw[..column].chars().count() + 1;
        match line.strip_suffix('\\') {
            Some(first) if lines.peek().is_some() => {
                open.push(first, number + 1, column);
                // Quadlet ignores a line that is only a backslash
                if open.text.is_empty() {
                    open = Logical::default();
                }
            }
            end => {
                open.push(end.unwrap_or(line), number + 1, column);
                file.take(&std::mem::take(&mut open));
            }
        }
    }
    if !open.text.is_empty() {
        let message = "the line ends with a backslash, but no line follows: Quadlet drops it";
        file.faults.push((open.spot(), message.to_owned()));
    }
    file
}

impl File {
    fn take(&mut self, line: &Logical) {
        let text = line.text.as_str();
        if let Some(name) = section(text) {
            if name.is_empty() || name.contains(|c: char| c == '[' || c.is_control()) {
                let message = format!("`[{name}]` is not a section name");
                self.faults.push((line.spot(), message));
            }
            self.sections.push((name.to_owned(), line.spot()));
            return;
        }
        let Some(at) = text.find('=').filter(|at| *at > 0) else {
            let message = format!("`{text}` is not `KEY=VALUE`, a section or a comment");
            self.faults.push((line.spot(), message));
            return;
        };
        let Some((section, _)) = self.sections.last() else {
            // reported once, and not if the reason is a header that cannot be read
            if self.faults.is_empty() {
                let message = "a key before the first section";
                self.faults.push((line.spot(), message.to_owned()));
            }
            return;
        };
        let key = text[..at].trim_end();
        let value = text[at + 1..].trim_start();
        let start = text.len() - value.len();
        let mut entry = Entry {
            section: section.clone(),
            key: key.to_owned(),
            value: value.to_owned(),
            at: Spot {
                len: key.chars().count(),
                ..line.spot()
            },
            pieces: Vec::new(),
        };
        for (offset, number, column) in &line.pieces {
            if *offset <= start {
                let before = text[*offset..start].chars().count();
                entry.pieces = vec![(0, *number, column + before)];
            } else {
                entry.pieces.push((offset - start, *number, *column));
            }
        }
        self.entries.push(entry);
    }
}

/// Whether a file has nothing but comments and empty lines.
pub fn is_blank(text: &str) -> bool {
    let says = |line: &str| !line.is_empty() && !line.starts_with(['#', ';']);
    !text.lines().map(str::trim).any(says)
}

/// Returns the name of a section if the line is its header, which only white space may follow.
fn section(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    rest.chars()
        .all(|c| matches!(c, ' ' | '\t'))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(line: usize, column: usize, len: usize) -> Spot {
        Spot { line, column, len }
    }

    #[test]
    fn keys_and_values_have_places() {
        let file = parse("# one\n[Container] \n  Image = a:1\n\nExec=sh \\\n  # no\n  -c 'é x'\n");
        assert_eq!(file.sections, [("Container".to_owned(), spot(2, 1, 11))]);
        assert_eq!(file.faults, []);
        let [image, exec] = &file.entries[..] else {
            panic!("{file:?}")
        };
        assert_eq!((image.key.as_str(), image.value.as_str()), ("Image", "a:1"));
        assert_eq!((image.at, image.spot()), (spot(3, 3, 5), spot(3, 11, 3)));
        assert_eq!(exec.value, "sh -c 'é x'");
        assert_eq!(exec.spot(), spot(5, 6, 2));
        assert_eq!(exec.spot_at(0, 2), spot(5, 6, 2));
        assert_eq!(exec.spot_at(3, 2), spot(7, 3, 2));
        let at = exec.value.find('x').expect("a letter");
        assert_eq!(exec.spot_at(at, 1), spot(7, 9, 1));
    }

    #[test]
    fn a_value_may_begin_on_the_next_line() {
        let file = parse("[Container]\nImage=\\\n   a\n");
        assert_eq!(file.entries[0].value, "a");
        assert_eq!(file.entries[0].spot(), spot(3, 4, 1));
    }

    #[test]
    fn invalid_lines_are_reported_at_their_places() {
        for (text, line) in [
            ("Image=a\n", 1),
            ("[Container]\nImage\n", 2),
            ("[Container]\n=a\n", 2),
            ("[Container] # why\n", 1),
            ("[]\n", 1),
            ("[Container]\nExec=a \\\n# the end", 2),
            ("\u{feff}[Container]\nImage=a\n", 1),
        ] {
            let file = parse(text);
            let lines: Vec<_> = file.faults.iter().map(|(spot, _)| spot.line).collect();
            assert_eq!(lines.first(), Some(&line), "{text:?}: {file:?}");
        }
    }

    #[test]
    fn the_last_line_may_end_with_a_backslash_and_files_with_cr() {
        let file = parse("[Container]\r\nImage=a\r\nExec=b\\");
        assert_eq!(file.faults, []);
        assert_eq!(file.entries[0].value, "a");
        assert_eq!(file.entries[1].value, "b");
    }
}
