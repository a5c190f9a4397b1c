//! Splits a list of objects: each object keeps the places that it has in the list's file.

use std::sync::Arc;

use flotta_api::{GROUP, VERSION};
use serde_json::{Value, json};

use super::pointers::{Builder, Pointers};
use super::{Document, Origin};

impl Document {
    /// Returns the objects below `items`. In a list of one kind they need not say their kind. SOPS encrypts a list as a whole, so
    /// its mark on the list counts for each object.
    pub fn items(mut self, kind: Option<&str>) -> Vec<Self> {
        let mark = self.at("/sops/mac").cloned();
        let items = self.value.get_mut("items").map(Value::take);
        let Some(Value::Array(items)) = items else {
            return Vec::new();
        };
        let mut origins = self.origin.of_items(items.len()).into_iter();
        let documents = items.into_iter().map(|mut value| {
            if let (Some(kind), Some(object)) = (kind, value.as_object_mut()) {
                let version = match kind {
                    "ConfigMap" => json!("v1"),
                    _ => json!(format!("{GROUP}/{VERSION}")),
                };
                object.entry("apiVersion").or_insert(version);
                object.entry("kind").or_insert_with(|| json!(kind));
            }
            if let (Some(mark), Some(object)) = (&mark, value.as_object_mut()) {
                object.insert("sops".to_owned(), json!({"mac": mark}));
            }
            let origin = origins.next().expect("one for each item");
            Self { value, origin }
        });
        documents.filter(|item| !item.value.is_null()).collect()
    }
}

impl Origin {
    fn of_items(self, count: usize) -> Vec<Self> {
        let (path, spots, blocks) = match self {
            Self::File {
                path,
                spots,
                blocks,
            } => (path, spots, blocks),
            Self::Object(object) => {
                return vec![Self::Object(object); count];
            }
        };
        let parts = of_items(&spots, count).zip(of_items(&blocks, count));
        let origin = |(spots, blocks)| Self::File {
            path: Arc::clone(&path),
            spots,
            blocks,
        };
        parts.map(origin).collect()
    }
}

/// Splits a map from pointers by list item.
fn of_items<T: Copy>(all: &Pointers<T>, count: usize) -> impl Iterator<Item = Pointers<T>> {
    let mut of_items: Vec<_> = (0..count).map(|_| Builder::default()).collect();
    for (pointer, what) in all.iter() {
        let Some(below) = pointer.strip_prefix("/items/") else {
            continue;
        };
        let end = below.find('/').unwrap_or(below.len());
        let (index, pointer) = below.split_at(end);
        let index = index.parse().ok();
        if let Some(item) = index.and_then(|index: usize| of_items.get_mut(index)) {
            item.insert(pointer, *what);
        }
    }
    of_items.into_iter().map(Builder::build)
}
