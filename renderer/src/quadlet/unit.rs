//! A unit: its file with its drop-ins, and the values that they have together.

use super::file::{Entry, File, Spot};
use super::names;
use super::words::{self, Broken, Word};

/// A unit file with its drop-ins, in the order in which they are read.
#[derive(Debug, Clone)]
pub struct Unit<'a> {
    /// The name of its file: `web.container`.
    pub name: &'a str,
    /// Its own file, followed by its drop-ins. An instance may have its template's file in place of its own.
    pub files: Vec<(&'a str, File)>,
}

/// A value with its place.
#[derive(Debug, Clone, Copy)]
pub struct Value<'u> {
    /// The file it is in.
    pub file: &'u str,
    /// The entry.
    pub entry: &'u Entry,
    /// The value as Quadlet reads it.
    pub text: &'u str,
}

impl Value<'_> {
    /// Returns the place of the value.
    pub fn spot(&self) -> Spot {
        self.entry.spot()
    }

    /// Returns the place of one of its words.
    pub fn spot_of(&self, word: &Word) -> Spot {
        self.entry.spot_at(word.at, word.len)
    }

    /// Splits it into words, as a list of names.
    pub fn names(&self) -> Result<Vec<Word>, Broken> {
        words::names(&self.entry.value)
    }

    /// Splits it into words, as a command line.
    pub fn arguments(&self) -> Result<Vec<Word>, Broken> {
        words::arguments(&self.entry.value)
    }
}

impl<'a> Unit<'a> {
    /// Returns its name without the extension.
    pub fn stem(&self) -> &'a str {
        self.name
            .rsplit_once('.')
            .map_or(self.name, |(stem, _)| stem)
    }

    /// Returns its instance: empty for a template, `None` for a unit that is neither a template nor an instance.
    pub fn instance(&self) -> Option<&'a str> {
        names::template(self.name).map(|(_, instance)| instance)
    }

    /// Whether it is a template: only its instances can be started.
    pub fn is_template(&self) -> bool {
        self.instance().is_some_and(str::is_empty)
    }

    /// Returns all entries of a section.
    pub fn entries<'u>(&'u self, section: &'u str) -> impl Iterator<Item = Value<'u>> {
        let of_file = move |(name, file): &'u (&'a str, File)| {
            let entries = file.entries.iter();
            entries
                .filter(move |entry| entry.section == section)
                .map(move |entry| Value {
                    file: name,
                    entry,
                    text: &entry.value,
                })
        };
        self.files.iter().flat_map(of_file)
    }

    /// Returns the value that counts: the last one, without the quotes around it.
    pub fn last<'u>(&'u self, section: &'u str, key: &str) -> Option<Value<'u>> {
        let value = self.entries(section).filter(|value| value.entry.key == key);
        let value = value.last()?;
        let text = value.text.trim_end().trim_matches('"');
        Some(Value { text, ..value })
    }

    /// Returns the value that counts, unless it is empty.
    pub fn said<'u>(&'u self, section: &'u str, key: &str) -> Option<Value<'u>> {
        self.last(section, key)
            .filter(|value| !value.text.is_empty())
    }

    /// Returns every value of a key. An empty value removes those before it.
    pub fn all<'u>(&'u self, section: &'u str, key: &str) -> Vec<Value<'u>> {
        let mut found = Vec::new();
        for value in self.entries(section).filter(|value| value.entry.key == key) {
            if value.text.is_empty() {
                found.clear();
            } else {
                found.push(value);
            }
        }
        found
    }

    /// Returns every word of a key whose values are lists of names. A value that cannot be split has no words.
    pub fn names<'u>(&'u self, section: &'u str, key: &str) -> Vec<(Value<'u>, Word)> {
        let split = |value: Value<'u>| {
            let words = value.names().unwrap_or_default();
            words.into_iter().map(move |word| (value, word))
        };
        self.all(section, key).into_iter().flat_map(split).collect()
    }

    /// Returns every word of a key whose values are split like command lines.
    pub fn arguments<'u>(&'u self, section: &'u str, key: &str) -> Vec<(Value<'u>, Word)> {
        let split = |value: Value<'u>| {
            let words = value.arguments().unwrap_or_default();
            words.into_iter().map(move |word| (value, word))
        };
        self.all(section, key).into_iter().flat_map(split).collect()
    }

    /// Whether a switch is on; `None` if it is not set.
    pub fn is_on(&self, section: &str, key: &str) -> Option<bool> {
        self.last(section, key).map(|value| is_true(value.text))
    }

    /// Returns the file in which a section begins, and the place of its header.
    pub fn header(&self, section: &str) -> Option<(&'a str, Spot)> {
        self.files.iter().find_map(|(name, file)| {
            let found = file.sections.iter().find(|(of, _)| of == section)?;
            Some((*name, found.1))
        })
    }
}

/// Whether Quadlet reads a text as yes.
pub fn is_true(text: &str) -> bool {
    ["1", "yes", "true", "on"]
        .iter()
        .any(|yes| text.eq_ignore_ascii_case(yes))
}

/// Whether Quadlet reads a text as yes or no. An empty text is no.
pub fn is_boolean(text: &str) -> bool {
    let no = ["0", "no", "false", "off", ""];
    is_true(text) || no.iter().any(|no| text.eq_ignore_ascii_case(no))
}
