//! A list of objects, taken apart: each object keeps the places that it has in the list's file.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotta_api::{GROUP, VERSION};
use serde_json::{Value, json};

use super::{Document, Origin, Stands};

type Spots = BTreeMap<Box<str>, Stands>;

impl Document {
    /// The objects below `items`. In a list of one kind they need not say it.
    pub fn items(mut self, kind: Option<&str>) -> Vec<Self> {
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
            let origin = origins.next().expect("one for each item");
            Self { value, origin }
        });
        documents.filter(|item| !item.value.is_null()).collect()
    }
}

impl Origin {
    fn of_items(self, count: usize) -> Vec<Self> {
        let (path, spots) = match self {
            Self::File { path, spots } => (path, spots),
            Self::Object(object) => {
                return vec![Self::Object(object); count];
            }
        };
        let mut of_items = vec![Spots::new(); count];
        for (pointer, stands) in spots {
            let Some(below) = pointer.strip_prefix("/items/") else {
                continue;
            };
            let end = below.find('/').unwrap_or(below.len());
            let (index, pointer) = below.split_at(end);
            let index = index.parse().ok();
            if let Some(spots) = index.and_then(|index: usize| of_items.get_mut(index)) {
                spots.insert(pointer.into(), stands);
            }
        }
        let spots = of_items.into_iter();
        let origin = |spots| Self::File {
            path: Arc::clone(&path),
            spots,
        };
        spots.map(origin).collect()
    }
}
