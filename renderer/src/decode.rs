//! Decodes YAML to values with places. Only this module reads the YAML that people commit.
//!
//! Scalars are read as Kubernetes reads them (`yes` is true, `0644` is octal). A key that is defined twice is an error, and so is
//! what an attacker would send: alias bombs, endless nesting.

mod list;
mod node;
mod pointers;

use std::sync::Arc;

use flotta_bundle::code;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::finding::{Finding, Scope};
use crate::place::{ObjectRef, Place};
use crate::pointer::{self, step};
use node::Node;
use pointers::Pointers;

/// The size of the largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// The most YAML nodes in one file. A file of [`MAX_FILE_BYTES`] has fewer, even if it is all short list items.
const MAX_NODES: usize = 1_000_000;
/// The most documents in one file. An `EdgeDevice` is 120 bytes or more, so a file of [`MAX_FILE_BYTES`] has fewer of them, and
/// a fleet of 100,000 devices fits in three files. The limit is there because of empty documents.
const MAX_DOCUMENTS: usize = 50_000;
/// The most parser events in one file: a node is one or two events, a document is two.
const MAX_EVENTS: usize = 2 * (MAX_NODES + MAX_DOCUMENTS);
/// The deepest nesting. A `PodSpec` in a workload needs 14 levels.
const MAX_DEPTH: usize = 64;

/// A document as JSON, with its origin.
#[derive(Debug, Clone)]
pub struct Document {
    /// The content. Mapping entries whose value is null are left out, because Kubernetes treats them as absent. Entries of `data`
    /// and `binaryData` stay: of our kinds only a `ConfigMap` has these fields, and there a key would be lost.
    pub value: Value,
    origin: Origin,
}

/// Where a document comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// A YAML document of a file, with the place of every key and value.
    File {
        path: Arc<str>,
        /// The places of every value and key.
        spots: Pointers<EntryPlaces>,
        /// The beginning of the first line of each block scalar (`|`), whose lines are lines of the file.
        blocks: Pointers<Spot>,
    },
    /// An object of a cluster.
    Object(Arc<ObjectRef>),
}

/// The places of a value and, for a mapping entry, of its key.
#[derive(Debug, Clone, Copy)]
struct EntryPlaces {
    value: Spot,
    key: Option<Spot>,
}

/// A [`Place`] in the file of a document. It is small, because there are many.
#[derive(Debug, Clone, Copy)]
struct Spot {
    line: u32,
    column: u32,
    len: u32,
}

impl Spot {
    fn new(at: serde_saphyr::Location, len: u64) -> Self {
        // a file has at most 4 MiB
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        Self {
            line: number(at.line()),
            column: number(at.column()),
            len: number(len),
        }
    }

    fn place(self, file: &str) -> Place {
        Place::File {
            file: file.to_owned(),
            line: self.line as usize,
            column: self.column as usize,
            len: self.len as usize,
        }
    }
}

impl Document {
    /// Whether there is an object with fields at this key.
    pub fn says(&self, key: &str) -> bool {
        let value = self.value.get(key).and_then(Value::as_object);
        value.is_some_and(|value| !value.is_empty())
    }

    /// Returns the document of an object of a cluster.
    pub fn of_object(mut value: Value, object: ObjectRef) -> Self {
        leave_out_nulls(&mut value);
        let origin = Origin::Object(Arc::new(object));
        Self { value, origin }
    }

    /// Returns the value at a pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        pointer::find(&self.value, pointer)
    }

    /// Returns the name of its file.
    pub fn file_name(&self) -> Option<&str> {
        match &self.origin {
            Origin::File { path, .. } => path.rsplit('/').next(),
            Origin::Object(_) => None,
        }
    }

    /// Returns the place of the value at `pointer`, or of the nearest enclosing value if there is none.
    pub fn place(&self, pointer: &str) -> Place {
        self.spot(pointer, false)
    }

    /// Returns the place of a part of the text at `pointer`. Line and column are those in the text, from 1. If the lines of the
    /// text are not lines of the file, it is the place of the whole text.
    pub fn place_in(&self, pointer: &str, line: usize, column: usize, len: usize) -> Place {
        let Origin::File { path, blocks, .. } = &self.origin else {
            return self.place(pointer);
        };
        match blocks.get(pointer) {
            Some(first) => Place::File {
                file: path.to_string(),
                line: first.line as usize + line - 1,
                column: first.column as usize + column - 1,
                len,
            },
            None => self.place(pointer),
        }
    }

    /// Returns the place of the key at `pointer`, or of the nearest enclosing value if there is none.
    pub fn key_place(&self, pointer: &str) -> Place {
        self.spot(pointer, true)
    }

    fn spot(&self, pointer: &str, of_key: bool) -> Place {
        let (path, spots) = match &self.origin {
            Origin::File { path, spots, .. } => (path, spots),
            Origin::Object(object) => {
                return Place::Field {
                    object: Arc::clone(object),
                    pointer: pointer.to_owned(),
                };
            }
        };
        if of_key && let Some(key) = spots.get(pointer).and_then(|stands| stands.key) {
            return key.place(path);
        }
        let mut at = pointer;
        loop {
            if let Some(stands) = spots.get(at) {
                return stands.value.place(path);
            }
            let Some((parent, _)) = at.rsplit_once('/') else {
                return Place::Nowhere;
            };
            at = parent;
        }
    }
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// Reads every document of a file, except for empty ones. Invalid YAML is a single finding: after the first error, a parser can
/// only guess.
pub fn decode(path: &str, content: &[u8]) -> Result<Vec<Document>, Box<Finding>> {
    let wrong = |code, place, message| {
        let finding = Finding::error(code, place, message);
        // it is not known which objects the file has
        Box::new(finding.reaching(Scope::Commit))
    };
    if content.len() as u64 > MAX_FILE_BYTES {
        let message = format!("a file larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(wrong(code::LIMIT, Place::file(path), message));
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = &content[..error.valid_up_to()];
        let line = before.split(|b| *b == b'\n').count();
        let column = before.rsplit(|b| *b == b'\n').next().map_or(0, <[u8]>::len) + 1;
        let place = Place::File {
            file: path.to_owned(),
            line,
            column,
            len: 0,
        };
        wrong(code::NOT_YAML, place, "not UTF-8 text".to_owned())
    })?;
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES, max_depth: MAX_DEPTH, max_documents: MAX_DOCUMENTS, max_events: MAX_EVENTS,
        },
    };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| {
            let place = error
                .location()
                .map_or_else(|| Place::file(path), |at| Spot::new(at, 0).place(path));
            if let Some(message) = too_much(error.without_snippet()) {
                let help = "split the file, or make it smaller";
                let mut finding = wrong(code::LIMIT, place, message);
                finding.help = Some(help.to_owned());
                return finding;
            }
            let message = words(error.without_snippet());
            // Our reports show the place separately, and whoever commits the file cannot set the library's options.
            let ends = [" at line ", ", set DuplicateKeyPolicy", "\n"].map(|end| message.find(end));
            let end = ends.into_iter().flatten().min().unwrap_or(message.len());
            wrong(code::NOT_YAML, place, message[..end].to_owned())
        })?;
    let path: Arc<str> = path.into();
    let lines: Vec<&str> = text.lines().collect();
    Ok(documents
        .into_iter()
        .map(|root| {
            let mut places = Places {
                lines: &lines,
                spots: pointers::Builder::default(),
                blocks: pointers::Builder::default(),
            };
            let value = places.flatten(root, &mut String::new(), None);
            let Places { spots, blocks, .. } = places;
            let path = Arc::clone(&path);
            let origin = Origin::File {
                path,
                spots: spots.build(),
                blocks: blocks.build(),
            };
            Document { value, origin }
        })
        .filter(|document| !document.value.is_null())
        .collect())
}

/// Returns which of our limits a file exceeds, or `None` if the error is another one.
fn too_much(error: &serde_saphyr::Error) -> Option<String> {
    use serde_saphyr::budget::BudgetBreach;
    let serde_saphyr::Error::Budget { breach, .. } = error else {
        return None;
    };
    Some(match breach {
        BudgetBreach::Documents { .. } => {
            format!("more than {MAX_DOCUMENTS} YAML documents in one file")
        }
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            format!("more than {MAX_NODES} YAML nodes in one file")
        }
        BudgetBreach::Depth { .. } => format!("nested more than {MAX_DEPTH} levels deep"),
        _ => return None,
    })
}

/// Returns the message of an error, without the library's own terms.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    // an error within an alias is wrapped, so that only its text identifies it
    if text.starts_with("budget breached") {
        "aliases that expand to more than a file may contain".to_owned()
    } else {
        text
    }
}

/// The places that are found while a document is flattened.
struct Places<'a> {
    /// The lines of the file.
    lines: &'a [&'a str],
    spots: pointers::Builder<EntryPlaces>,
    blocks: pointers::Builder<Spot>,
}

impl Places<'_> {
    /// Splits a node into JSON and places; `pointer` leads to the node.
    fn flatten(&mut self, node: Spanned<Node>, pointer: &mut String, key: Option<Spot>) -> Value {
        let at = node.referenced;
        let scalar = !matches!(node.value, Node::Sequence(_) | Node::Mapping(_));
        let len = if scalar { at.span().len() } else { 0 };
        let value = Spot::new(at, len);
        self.spots.insert(pointer, EntryPlaces { value, key });
        let length = pointer.len();
        match node.value {
            Node::Scalar(value) => {
                if let Some(block) = block(&value, key, self.lines) {
                    self.blocks.insert(pointer, block);
                }
                value
            }
            Node::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    list.push(self.flatten(item, pointer, None));
                    pointer.truncate(length);
                }
                Value::Array(list)
            }
            Node::Mapping(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    pointer.push('/');
                    pointer.push_str(&step(&key.value));
                    let at = key.referenced;
                    let at = Spot::new(at, at.span().len());
                    let value = self.flatten(value, pointer, Some(at));
                    let stays = !value.is_null() || is_entry(pointer);
                    pointer.truncate(length);
                    if stays {
                        map.insert(key.value, value);
                    }
                }
                Value::Object(map)
            }
        }
    }
}

/// Whether a pointer leads to an entry of a `ConfigMap`, which may be in a list.
fn is_entry(pointer: &str) -> bool {
    let mut steps = pointer.split('/').skip(1).peekable();
    while steps.next_if_eq(&"items").is_some() {
        steps.next();
    }
    matches!(steps.next(), Some("data" | "binaryData")) && steps.count() == 1
}

/// Returns the beginning of a block scalar's first line, if the file has its lines as they are: `key: |`, followed by them.
fn block(value: &Value, key: Option<Spot>, lines: &[&str]) -> Option<Spot> {
    let text = value.as_str().filter(|text| text.contains('\n'))?;
    let header = key?.line as usize;
    let (at, said) = text
        .lines()
        .enumerate()
        .find(|(_, line)| !line.trim().is_empty())?;
    let stands = lines.get(header + at)?;
    let indent = stands.len().checked_sub(said.len())?;
    let is_block = stands.ends_with(said) && stands[..indent].bytes().all(|b| b == b' ');
    let is_literal = lines.get(header.checked_sub(1)?)?.contains('|');
    (is_block && is_literal && indent > 0).then(|| Spot {
        line: u32::try_from(header + 1).unwrap_or(0),
        column: u32::try_from(indent + 1).unwrap_or(0),
        len: 0,
    })
}

#[cfg(test)]
mod tests;
