//! Each object by itself: kind, schema, names. What objects mean together is the business of later rooms.

mod rules;
mod schema;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use flotta_api::v1alpha1::{EdgeDevice, EdgeDeviceSet, EdgeFleet, EdgeWorkload};
use flotta_api::{GROUP, VERSION};
use flotta_bundle::name::{DEFAULT_NAMESPACE, NameError, check_label, check_subdomain};
use flotta_bundle::{DeviceName, code};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::decode::{Document, decode};
use crate::finding::Finding;
use crate::place::Place;

/// An object that passed every check of its own, with where it stands.
#[derive(Debug, Clone)]
pub struct Checked<K> {
    /// The typed object; `metadata.namespace` is always set (`default` when absent).
    pub object: K,
    /// What it was read from: pointers into it give places.
    pub document: Document,
}

/// What changes together: the objects of a file, or one object of a cluster, each checked by itself. A function of what it was
/// made from, whatever else there is.
#[derive(Debug, Default)]
pub struct Batch {
    named: Vec<Named>,
    findings: Vec<Finding>,
}

/// An object whose schema and name are good.
#[derive(Debug)]
struct Named {
    kind: String,
    namespace: String,
    name: String,
    place: Place,
    /// None when its rules are broken, or nothing is done with its kind.
    object: Option<Object>,
    findings: Vec<Finding>,
}

#[derive(Debug)]
enum Object {
    Device(Box<Checked<EdgeDevice>>),
    Set(Box<Checked<EdgeDeviceSet>>),
    Workload(Box<Checked<EdgeWorkload>>),
    Fleet(Box<Checked<EdgeFleet>>),
    ConfigMap(Box<Checked<ConfigMap>>),
}

/// All objects of a source that passed, in its order.
#[derive(Debug, Default)]
pub struct Objects<'a> {
    /// Devices.
    pub devices: Vec<&'a Checked<EdgeDevice>>,
    /// Device sets.
    pub sets: Vec<&'a Checked<EdgeDeviceSet>>,
    /// Workloads.
    pub workloads: Vec<&'a Checked<EdgeWorkload>>,
    /// The fleet's settings: the first ones, when there are several.
    pub fleet: Option<&'a Checked<EdgeFleet>>,
    /// `ConfigMap`s.
    pub config_maps: Vec<&'a Checked<ConfigMap>>,
}

/// Checks the names of all objects against each other; sorts them by kind.
pub fn gather<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> (Objects<'a>, Vec<Finding>) {
    let (mut objects, mut findings) = (Objects::default(), Vec::new());
    let mut seen = HashMap::new();
    for batch in batches {
        findings.extend_from_slice(&batch.findings);
        for named in &batch.named {
            let Named {
                kind,
                namespace,
                name,
                place,
                ..
            } = named;
            match seen.entry((kind, namespace, name)) {
                Entry::Vacant(entry) => entry.insert(place),
                Entry::Occupied(first) => {
                    let message = format!("{kind} `{namespace}/{name}` is defined twice");
                    let help = format!("the first one: {}", first.get());
                    let finding = Finding::error(code::DUPLICATE, place.clone(), message);
                    findings.push(finding.with_help(help));
                    continue;
                }
            };
            findings.extend_from_slice(&named.findings);
            match &named.object {
                Some(Object::Device(device)) => objects.devices.push(device),
                Some(Object::Set(set)) => objects.sets.push(set),
                Some(Object::Workload(workload)) => objects.workloads.push(workload),
                Some(Object::Fleet(fleet)) => match objects.fleet {
                    None => objects.fleet = Some(fleet),
                    Some(first) => findings.push(second_fleet(first, place)),
                },
                Some(Object::ConfigMap(map)) => objects.config_maps.push(map),
                None => {}
            }
        }
    }
    (objects, findings)
}

/// A fleet has one set of settings: which of two counts would be anyone's guess.
fn second_fleet(first: &Checked<EdgeFleet>, place: &Place) -> Finding {
    let message = "a second `EdgeFleet`: a fleet has one";
    let help = format!("the first one: {}", first.document.place("/metadata/name"));
    Finding::error(code::DUPLICATE, place.clone(), message).with_help(help)
}

impl Batch {
    /// Reads a YAML file. The path is for people: nothing is read from it.
    pub fn of_file(path: &str, content: &[u8]) -> Self {
        match decode(path, content) {
            Ok(documents) => Self::of(documents),
            Err(finding) => Self {
                named: Vec::new(),
                findings: vec![*finding],
            },
        }
    }

    /// Checks documents, whatever their origin.
    pub fn of(documents: impl IntoIterator<Item = Document>) -> Self {
        let mut batch = Self::default();
        for document in documents {
            batch.take(document);
        }
        batch
    }

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
        let place = document.place("/metadata/name");
        if let Err(error) = check_name(&kind, &namespace, &name) {
            let finding = Finding::error(code::BAD_NAME, place, error.to_string());
            self.findings.push(finding);
            return;
        }
        let mut findings = rules::unused(&kind, &document);
        let object = match kind.as_str() {
            "EdgeDevice" => keep(document, &mut findings).map(Object::Device),
            "EdgeDeviceSet" => keep(document, &mut findings).map(Object::Set),
            "EdgeWorkload" => keep(document, &mut findings).map(Object::Workload),
            "EdgeFleet" => keep(document, &mut findings).map(Object::Fleet),
            "ConfigMap" => keep(document, &mut findings).map(Object::ConfigMap),
            _ => None,
        };
        self.named.push(Named {
            kind,
            namespace,
            name,
            place,
            object,
            findings,
        });
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
}

fn check_name(kind: &str, namespace: &str, name: &str) -> Result<(), NameError> {
    match kind {
        "EdgeDevice" => DeviceName::new(namespace, name).map(drop),
        _ => check_label(namespace).and_then(|()| check_subdomain(name)),
    }
}

/// What Kubernetes fills in: the namespace, and a spec where nothing in it is required.
fn prepare(kind: &str, value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .entry("namespace")
            .or_insert_with(|| json!(DEFAULT_NAMESPACE));
    }
    if let ("EdgeDevice" | "EdgeDeviceSet" | "EdgeFleet", Some(object)) =
        (kind, value.as_object_mut())
    {
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

impl Rules for EdgeDevice {
    fn rules(device: &Checked<Self>) -> Vec<Finding> {
        let servers = &device.object.spec.servers;
        rules::servers(servers, &device.document)
            .into_iter()
            .collect()
    }
}
impl Rules for EdgeFleet {}
impl Rules for ConfigMap {}
impl Rules for EdgeDeviceSet {
    fn rules(set: &Checked<Self>) -> Vec<Finding> {
        let spec = &set.object.spec;
        let mut findings = rules::selector(spec.selector.as_ref(), "/spec/selector", &set.document);
        findings.extend(rules::servers(&spec.servers, &set.document));
        findings
    }
}
impl Rules for EdgeWorkload {
    fn rules(workload: &Checked<Self>) -> Vec<Finding> {
        rules::workload(workload)
    }
}

fn keep<K: DeserializeOwned + Rules>(
    document: Document,
    findings: &mut Vec<Finding>,
) -> Option<Box<Checked<K>>> {
    match K::deserialize(&document.value) {
        Ok(object) => {
            let checked = Checked { object, document };
            let broken = K::rules(&checked);
            let good = broken.is_empty();
            findings.extend(broken);
            good.then(|| Box::new(checked))
        }
        // The schema let it pass, the type does not: quantities and times have a grammar of their own.
        Err(error) => {
            findings.push(Finding::error(
                code::SCHEMA,
                document.place(""),
                error.to_string(),
            ));
            None
        }
    }
}
