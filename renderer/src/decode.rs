//! YAML to values that know where they stand. All YAML that people commit is read by this module alone.
//!
//! Scalars mean what Kubernetes' own loader makes of them (`yes` is true, `0644` is octal); a key that stands twice is an
//! error, and so is what an attacker would send: alias bombs, endless nesting.

mod node;

use std::collections::BTreeMap;

use flotta_bundle::code;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::finding::{Finding, Place};
use crate::tree::SourceFile;
use node::Node;

/// Most YAML nodes in one file: a file of [`crate::tree::MAX_FILE_BYTES`] that is all short list items has fewer.
const MAX_NODES: usize = 1_000_000;
/// Deepest nesting. A `PodSpec` in a workload needs 14.
const MAX_DEPTH: usize = 64;

/// One YAML document of a file, as JSON, with the place of every key and value.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The content. Mapping entries whose value is null are left out: they count as not said, as in Kubernetes.
    pub value: Value,
    /// JSON pointer (RFC 6901) of each value -> where the value stands.
    pub values: BTreeMap<String, Place>,
    /// JSON pointer of each mapping entry -> where its key stands.
    pub keys: BTreeMap<String, Place>,
}

impl Document {
    /// Where the value at `pointer` stands; the nearest enclosing one when it is not there itself.
    pub fn place(&self, pointer: &str) -> Place {
        let mut at = pointer;
        loop {
            if let Some(place) = self.values.get(at) {
                return place.clone();
            }
            let Some((parent, _)) = at.rsplit_once('/') else {
                return Place::default();
            };
            at = parent;
        }
    }

    /// Where the key at `pointer` stands; the nearest enclosing one when it is not there itself.
    pub fn key_place(&self, pointer: &str) -> Place {
        self.keys
            .get(pointer)
            .cloned()
            .unwrap_or_else(|| self.place(pointer))
    }
}

/// A key as one step of a JSON pointer.
pub fn step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Reads every document of a file; empty ones are left out. What is not YAML is one finding: where a parser lost the
/// thread, what follows is guesswork.
pub fn decode(file: &SourceFile) -> Result<Vec<Document>, Box<Finding>> {
    let whole = Place {
        file: file.path.clone(),
        ..Place::default()
    };
    let text = std::str::from_utf8(&file.content).map_err(|error| {
        let before = &file.content[..error.valid_up_to()];
        let line = before.split(|b| *b == b'\n').count();
        let column = before.rsplit(|b| *b == b'\n').next().map_or(0, <[u8]>::len) + 1;
        let place = Place {
            line,
            column,
            ..whole.clone()
        };
        Box::new(Finding::error(code::NOT_YAML, place, "not UTF-8 text"))
    })?;
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH },
    };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| {
            let place = error
                .location()
                .map_or(whole, |at| place(&file.path, at, 0));
            let message = error.without_snippet().to_string();
            // The place stands apart from the message in every report of ours, and options are not a committer's.
            let ends = [" at line ", ", set DuplicateKeyPolicy", "\n"].map(|end| message.find(end));
            let end = ends.into_iter().flatten().min().unwrap_or(message.len());
            let message = &message[..end];
            Box::new(Finding::error(code::NOT_YAML, place, message))
        })?;
    Ok(documents
        .into_iter()
        .map(|root| {
            let mut document = Document::default();
            document.value = document.flatten(root, &mut String::new(), &file.path);
            document
        })
        .filter(|document| !document.value.is_null())
        .collect())
}

fn place(file: &str, at: serde_saphyr::Location, len: u64) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(0);
    Place {
        file: file.to_owned(),
        line: number(at.line()),
        column: number(at.column()),
        len: number(len),
    }
}

impl Document {
    /// Takes a node apart into JSON and places; `pointer` is the way to it.
    fn flatten(&mut self, node: Spanned<Node>, pointer: &mut String, file: &str) -> Value {
        let at = node.referenced;
        let scalar = !matches!(node.value, Node::Sequence(_) | Node::Mapping(_));
        let len = if scalar { at.span().len() } else { 0 };
        self.values.insert(pointer.clone(), place(file, at, len));
        let length = pointer.len();
        match node.value {
            Node::Scalar(value) => value,
            Node::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    list.push(self.flatten(item, pointer, file));
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
                    self.keys
                        .insert(pointer.clone(), place(file, at, at.span().len()));
                    let value = self.flatten(value, pointer, file);
                    pointer.truncate(length);
                    if !value.is_null() {
                        map.insert(key.value, value);
                    }
                }
                Value::Object(map)
            }
        }
    }
}

#[cfg(test)]
mod tests;
