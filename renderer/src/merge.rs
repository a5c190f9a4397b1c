//! Merges the settings of a device's sets and of the device itself, field by field. Every value keeps its origin.

use std::collections::BTreeMap;

use flotta_api::v1alpha1::DeviceSettings;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::decode::Document;
use crate::place::Place;
use crate::pointer::step;

/// Lists that merge by a key instead of being replaced: the pointer below `spec` and the name of the key.
const KEYED_LISTS: [(&str, &str); 1] = [("/mounts", "folder")];

/// The merged settings of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// The settings, as a spec has them.
    pub value: Value,
    /// Where each value comes from, by its JSON pointer below `spec`.
    pub origins: BTreeMap<String, Place>,
}

impl Merged {
    /// The settings, typed.
    pub fn settings(&self) -> DeviceSettings {
        DeviceSettings::deserialize(&self.value)
            .expect("layers that are valid each are valid when merged")
    }
}

/// Merges the settings of these documents, later ones over earlier ones: sets by priority and then by name, and the device last.
/// Mappings merge, lists with a key merge by it, everything else is replaced; `null` counts as absent.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Document>) -> Merged {
    let mut merged = Merged {
        value: Value::Object(Map::new()),
        origins: BTreeMap::new(),
    };
    for document in layers {
        let Some(Value::Object(spec)) = document.value.get("spec") else {
            continue;
        };
        let is_setting = |(key, _): &(&String, _)| DeviceSettings::fields().contains(*key);
        let settings = spec.iter().filter(is_setting);
        let settings = settings.map(|(key, value)| (key.clone(), value.clone()));
        let mut layer = Layer {
            document,
            origins: &mut merged.origins,
        };
        let settings = Value::Object(settings.collect());
        layer.merge("", &mut merged.value, &settings, "/spec");
    }
    merged
}

/// A document whose settings are being merged over those before it.
struct Layer<'a> {
    document: &'a Document,
    origins: &'a mut BTreeMap<String, Place>,
}

impl Layer<'_> {
    /// `at` is the pointer in the merged settings, `from` the one in the document: they differ within keyed lists.
    fn merge(&mut self, at: &str, under: &mut Value, over: &Value, from: &str) {
        match (under, over) {
            (_, Value::Null) => {}
            (Value::Object(under), Value::Object(over)) => {
                for (key, value) in over {
                    let step = step(key);
                    let slot = under.entry(key.clone()).or_insert(Value::Null);
                    self.merge(
                        &format!("{at}/{step}"),
                        slot,
                        value,
                        &format!("{from}/{step}"),
                    );
                }
            }
            (Value::Array(under), Value::Array(over)) if keyed(at).is_some() => {
                let key = keyed(at).unwrap_or_default();
                for (index, item) in over.iter().enumerate() {
                    let same = |other: &Value| other.get(key) == item.get(key);
                    let place = under.iter().position(same).unwrap_or_else(|| {
                        under.push(Value::Null);
                        under.len() - 1
                    });
                    self.merge(
                        &format!("{at}/{place}"),
                        &mut under[place],
                        item,
                        &format!("{from}/{index}"),
                    );
                }
            }
            (under, over @ Value::Array(_)) if keyed(at).is_some() => {
                *under = Value::Array(Vec::new());
                self.merge(at, under, over, from);
            }
            (under, Value::Object(over)) => {
                *under = Value::Object(Map::new());
                self.merge(at, under, &Value::Object(over.clone()), from);
            }
            (under, over) => {
                *under = over.clone();
                self.origins
                    .retain(|pointer, _| !pointer.starts_with(&format!("{at}/")));
                self.origins
                    .insert(at.to_owned(), self.document.place(from));
            }
        }
    }
}

fn keyed(at: &str) -> Option<&'static str> {
    KEYED_LISTS
        .iter()
        .find(|(pointer, _)| *pointer == at)
        .map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::decode;

    fn document(file: &str, spec: &Value) -> Document {
        // JSON is YAML
        let content = json!({ "spec": spec }).to_string();
        let mut documents = decode(file, content.as_bytes()).expect("YAML");
        documents.remove(0)
    }

    #[test]
    fn the_later_layer_wins_field_by_field_and_origins_follow() {
        let base = document(
            "base",
            &json!({"heartbeat": {"periodSeconds": 60, "hardwareProfile": {"include": true}}, "values": {"tags": ["a"], "colour": "red"}, "priority": 3}),
        );
        let shop = document(
            "shop",
            &json!({"heartbeat": {"periodSeconds": 10}, "values": {"tags": ["b"]}}),
        );
        let device = document(
            "device",
            &json!({"heartbeat": null, "values": {"colour": "blue"}}),
        );
        let merged = merge([&base, &shop, &device]);
        assert_eq!(
            merged.value,
            json!({"heartbeat": {"periodSeconds": 10, "hardwareProfile": {"include": true}}, "values": {"tags": ["b"], "colour": "blue"}})
        );
        let origin = |pointer: &str| merged.origins[pointer].document();
        assert_eq!(origin("/heartbeat/periodSeconds"), "shop");
        assert_eq!(origin("/heartbeat/hardwareProfile/include"), "base");
        assert_eq!(origin("/values/tags"), "shop");
        assert_eq!(origin("/values/colour"), "device");
    }

    #[test]
    fn lists_with_a_key_merge_by_it() {
        let base = document(
            "base",
            &json!({"mounts": [{"folder": "/a", "device": "/dev/sda"}, {"folder": "/b", "device": "/dev/sdb"}]}),
        );
        let device = document(
            "device",
            &json!({"mounts": [{"folder": "/b", "options": "ro"}, {"folder": "/c", "device": "/dev/sdc"}]}),
        );
        let merged = merge([&base, &device]);
        assert_eq!(
            merged.value["mounts"],
            json!([{"folder": "/a", "device": "/dev/sda"}, {"folder": "/b", "device": "/dev/sdb", "options": "ro"}, {"folder": "/c", "device": "/dev/sdc"}])
        );
        assert_eq!(merged.origins["/mounts/1/options"].document(), "device");
        assert_eq!(merged.origins["/mounts/1/device"].document(), "base");
    }

    #[test]
    fn a_mapping_over_a_plain_value_replaces_it() {
        let base = document("base", &json!({"values": {"x": 1}}));
        let device = document("device", &json!({"values": {"x": {"y": 2}}}));
        assert_eq!(
            merge([&base, &device]).value["values"]["x"],
            json!({"y": 2})
        );
    }
}
