//! Aligned columns, as `kubectl` prints them: two spaces between, none at the end of a line.

use super::{Style, paint};

/// Spaces between two columns.
const GAP: usize = 2;

/// A cell: its text, and its style where colours are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    pub(crate) fn styled(text: &str, style: Option<Style>) -> Self {
        Self {
            text: one_line(text),
            style,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text.as_ref(), None)
    }
}

/// A table that is printed incrementally: a watch adds rows below the existing ones.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    widths: Vec<usize>,
    colours: bool,
}

impl Table {
    pub(crate) fn new(head: Vec<&'static str>, colours: bool) -> Self {
        let widths = head.iter().map(|name| name.len()).collect();
        Self {
            head,
            widths,
            colours,
        }
    }

    /// The head, then the rows.
    pub(crate) fn start(&mut self, rows: &[Vec<Cell>]) -> String {
        self.widen(rows);
        let head: Vec<Cell> = self.head.iter().map(Cell::from).collect();
        self.line(&head) + &self.more(rows)
    }

    /// More rows.
    pub(crate) fn more(&mut self, rows: &[Vec<Cell>]) -> String {
        self.widen(rows);
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn widen(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
    }

    fn line(&self, cells: &[Cell]) -> String {
        let last = cells.iter().rposition(|cell| !cell.text.is_empty());
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            line.push_str(&paint(&cell.text, cell.style, self.colours));
            if Some(at) >= last {
                break;
            }
            let fill = width + GAP - cell.text.chars().count();
            line.extend(std::iter::repeat_n(' ', fill));
        }
        line.push('\n');
        line
    }
}

/// Text from a device or a person in one line, without control characters that a terminal would act on.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_character() {
        let rows = [
            vec![
                "a".into(),
                Cell::styled("41→42", Some(Style::Busy)),
                "".into(),
            ],
            vec![
                "longer".into(),
                "Ready".into(),
                "two\nlines\u{1b}[31m".into(),
            ],
        ];
        let mut plain = Table::new(vec!["NAME", "STATE", "MESSAGE"], false);
        assert_eq!(
            plain.start(&rows),
            "NAME    STATE  MESSAGE\na       41→42\nlonger  Ready  two lines [31m\n"
        );
        assert_eq!(
            plain.more(&[vec!["b".into(), "x".into(), "y".into()]]),
            "b       x      y\n"
        );
        let mut coloured = Table::new(vec!["NAME", "STATE", "MESSAGE"], true);
        assert!(
            coloured
                .start(&rows)
                .contains("\na       \u{1b}[33m41→42\u{1b}[0m\n")
        );
    }
}
