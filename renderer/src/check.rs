//! Each object by itself: kind, schema, names. What objects mean together is the business of later rooms.

mod rules;
mod schema;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use flotta_api::v1alpha1::{EdgeDevice, EdgeDeviceSet, EdgeWorkload};
use flotta_api::{GROUP, VERSION};
use flotta_bundle::name::{DEFAULT_NAMESPACE, check_label, check_subdomain};
use flotta_bundle::{DeviceName, code};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::decode::Document;
use crate::finding::{Finding, Place};

/// An object that passed every check of its own, with where it stands.
#[derive(Debug, Clone)]
pub struct Checked<K> {
    /// The typed object; `metadata.namespace` is always set (`default` when absent).
    pub object: K,
    /// What it was read from: pointers into it give places.
    pub document: Document,
}

/// All objects of a tree that passed, in the order of the tree.
#[derive(Debug, Default)]
pub struct Objects {
    /// Devices.
    pub devices: Vec<Checked<EdgeDevice>>,
    /// Device sets.
    pub sets: Vec<Checked<EdgeDeviceSet>>,
    /// Workloads.
    pub workloads: Vec<Checked<EdgeWorkload>>,
    /// `ConfigMap`s.
    pub config_maps: Vec<Checked<ConfigMap>>,
}

/// Checks each document by itself and all names against each other; sorts them by kind.
pub fn check(documents: Vec<Document>) -> (Objects, Vec<Finding>) {
    let mut desk = Desk::default();
    for document in documents {
        desk.take(document);
    }
    (desk.objects, desk.findings)
}

#[derive(Default)]
struct Desk {
    objects: Objects,
    /// Kind, namespace, name -> where it was first seen.
    seen: BTreeMap<(String, String, String), Place>,
    findings: Vec<Finding>,
}

impl Desk {
    fn take(&mut self, mut document: Document) {
        let Some(kind) = self.kind(&document) else {
            return;
        };
        prepare(&kind, &mut document.value);
        let before = self.findings.len();
        self.findings.extend(schema::check(&kind, &document));
        if self.findings.len() > before {
            return;
        }
        let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default().to_owned();
        let namespace = text("/metadata/namespace").unwrap_or_default().to_owned();
        if !self.names(&kind, &namespace, &name, &document) {
            return;
        }
        self.findings.extend(rules::unused(&kind, &document));
        match kind.as_str() {
            "EdgeDevice" => keep(&mut self.objects.devices, document, &mut self.findings),
            "EdgeDeviceSet" => keep(&mut self.objects.sets, document, &mut self.findings),
            "EdgeWorkload" => keep(&mut self.objects.workloads, document, &mut self.findings),
            "ConfigMap" => keep(&mut self.objects.config_maps, document, &mut self.findings),
            _ => {}
        }
    }

    /// The kind, when the object is one that this renderer knows.
    fn kind(&mut self, document: &Document) -> Option<String> {
        let text = |key: &str| document.value.get(key).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let missing = if text("kind").is_some() {
                "apiVersion"
            } else {
                "kind"
            };
            let message = format!("not an object of Kubernetes' shape: `{missing}` is missing");
            let finding = Finding::error(code::UNSUPPORTED_KIND, document.place(""), message);
            self.findings.push(finding);
            return None;
        };
        let ours = format!("{GROUP}/{VERSION}");
        if version == ours && schema::knows(kind) || version == "v1" && kind == "ConfigMap" {
            return Some(kind.to_owned());
        }
        let place = document.place("/apiVersion");
        let alike = schema::kinds().find(|known| {
            known.eq_ignore_ascii_case(kind) || strsim::jaro_winkler(known, kind) > 0.95
        });
        self.findings.push(if let Some(known) = alike {
            let expected = if known == "ConfigMap" { "v1" } else { &ours };
            let message = format!("`{version}` `{kind}` is not a kind of Flotta's");
            Finding::error(code::UNSUPPORTED_KIND, place, message).with_help(format!(
                "did you mean `apiVersion: {expected}`, `kind: {known}`?"
            ))
        } else if version.starts_with(GROUP) {
            let message = format!("`{version}` has no kind `{kind}` that this version knows");
            Finding::error(code::UNSUPPORTED_KIND, place, message)
        } else {
            let message = format!("`{kind}` of `{version}` takes no part in the fleet");
            Finding::warning(code::IGNORED_FILE, place, message)
        });
        None
    }

    /// Whether the names can stand; says so when not.
    fn names(&mut self, kind: &str, namespace: &str, name: &str, document: &Document) -> bool {
        let place = document.place("/metadata/name");
        let checked = match kind {
            "EdgeDevice" => DeviceName::new(namespace, name).map(drop),
            _ => check_label(namespace).and_then(|()| check_subdomain(name)),
        };
        if let Err(error) = checked {
            self.findings
                .push(Finding::error(code::BAD_NAME, place, error.to_string()));
            return false;
        }
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        match self.seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(place);
                true
            }
            Entry::Occupied(first) => {
                let message = format!("{kind} `{namespace}/{name}` stands twice");
                let help = format!("the first one: {}", first.get());
                self.findings
                    .push(Finding::error(code::DUPLICATE, place, message).with_help(help));
                false
            }
        }
    }
}

/// What Kubernetes fills in: the namespace, and a spec where nothing in it is required.
fn prepare(kind: &str, value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .entry("namespace")
            .or_insert_with(|| json!(DEFAULT_NAMESPACE));
    }
    if let ("EdgeDevice" | "EdgeDeviceSet", Some(object)) = (kind, value.as_object_mut()) {
        object.entry("spec").or_insert_with(|| json!({}));
    }
}

trait Rules {
    fn rules(_: &Checked<Self>) -> Vec<Finding>
    where
        Self: Sized,
    {
        Vec::new()
    }
}

impl Rules for EdgeDevice {}
impl Rules for ConfigMap {}
impl Rules for EdgeDeviceSet {
    fn rules(set: &Checked<Self>) -> Vec<Finding> {
        rules::selector(
            set.object.spec.selector.as_ref(),
            "/spec/selector",
            &set.document,
        )
    }
}
impl Rules for EdgeWorkload {
    fn rules(workload: &Checked<Self>) -> Vec<Finding> {
        rules::workload(workload)
    }
}

fn keep<K: DeserializeOwned + Rules>(
    list: &mut Vec<Checked<K>>,
    document: Document,
    findings: &mut Vec<Finding>,
) {
    match serde_json::from_value::<K>(document.value.clone()) {
        Ok(object) => {
            let checked = Checked { object, document };
            let broken = K::rules(&checked);
            if broken.is_empty() {
                list.push(checked);
            }
            findings.extend(broken);
        }
        // The schema let it pass, the type does not: quantities and times have a grammar of their own.
        Err(error) => {
            findings.push(Finding::error(
                code::SCHEMA,
                document.place(""),
                error.to_string(),
            ));
        }
    }
}
