//! Checks each object by itself: its kind, schema and names. Later modules check objects together.

mod kind;
mod rules;
mod schema;
mod unusable;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use flotta_api::WITHOUT_SPEC;
use flotta_api::v1alpha1::{EdgeDevice, EdgeDeviceSet, EdgeFleet, EdgeWorkload};
use flotta_bundle::name::{DEFAULT_NAMESPACE, NameError, check_label, check_subdomain};
use flotta_bundle::{DeviceName, code};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::decode::{Document, decode};
use crate::finding::{Finding, Scope};
use crate::place::Place;
use kind::{Foreign, Is};

pub use schema::editor_schema;
pub use unusable::Unusable;

/// The beginning of a Git LFS pointer. The commit does not contain the file itself, so it is not known whether the file may be
/// ignored.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// An object that passed all its checks, with its document.
#[derive(Debug, Clone)]
pub struct Checked<K> {
    /// The typed object; `metadata.namespace` is always set (`default` when absent).
    pub object: K,
    /// The document that it was read from, which gives places for pointers.
    pub document: Document,
}

/// Objects that change together: those of a file, or one object of a cluster, each checked by itself. The result does not depend
/// on other batches.
#[derive(Debug, Default)]
pub struct Batch {
    named: Vec<Named>,
    wrong: Vec<WrongObject>,
    findings: Vec<Finding>,
    /// Whether it may have other objects, because part of it cannot be read.
    is_open: bool,
    /// The text of a file that names something of ours and cannot be read.
    unread: Option<Box<str>>,
}

/// An object with a name.
#[derive(Debug)]
struct Named {
    kind: &'static str,
    namespace: String,
    name: String,
    place: Place,
    /// `None` when it is broken, or when its kind is not acted on.
    object: Option<Object>,
    findings: Vec<Finding>,
}

/// An object that has a name, but not a valid kind and version.
#[derive(Debug)]
struct WrongObject {
    /// The kinds that it may have been meant to be.
    kinds: Vec<&'static str>,
    namespace: String,
    name: String,
    finding: Finding,
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
    /// Objects that exist and cannot be used.
    pub unusable: Unusable<'a>,
    /// Whether there is no object of ours at all, good or broken.
    pub empty: bool,
}

/// Sorts all objects by kind, and reports duplicates.
pub fn gather<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> (Objects<'a>, Vec<Finding>) {
    let (mut objects, mut findings) = (Objects::default(), Vec::new());
    let mut seen = HashMap::new();
    let mut twice = HashSet::new();
    for batch in batches {
        findings.extend_from_slice(&batch.findings);
        objects.unusable.add_batch(batch, &mut findings);
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
                    let finding = finding.with_help(help);
                    if *kind == "ConfigMap" {
                        twice.insert((namespace.as_str(), name.as_str()));
                        let finding = std::iter::once(finding);
                        objects.unusable.add_config_map(namespace, name, finding);
                    } else {
                        findings.push(finding);
                    }
                    continue;
                }
            };
            if named.is_broken_config_map() {
                let found = named.findings.iter().cloned();
                objects.unusable.add_config_map(namespace, name, found);
                continue;
            }
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
                None => objects.unusable.add(kind, namespace, name),
            }
        }
    }
    if !twice.is_empty() {
        // which of them is meant is not known
        let is_one = |map: &&Checked<ConfigMap>| {
            let metadata = &map.object.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            !twice.contains(&(namespace, metadata.name.as_deref().unwrap_or_default()))
        };
        objects.config_maps.retain(is_one);
    }
    objects.empty = seen.is_empty() && !findings.iter().any(Finding::is_error);
    (objects, findings)
}

/// Reports a second `EdgeFleet`, because it would not be clear which of the two counts.
fn second_fleet(first: &Checked<EdgeFleet>, place: &Place) -> Finding {
    let message = "a second `EdgeFleet`: a fleet has only one";
    let help = format!("the first one: {}", first.document.place("/metadata/name"));
    Finding::error(code::DUPLICATE, place.clone(), message).with_help(help)
}

impl Named {
    /// Whether it is a `ConfigMap` that cannot be used. It may not belong to the fleet: whether that is an error depends on the
    /// workloads that need it.
    fn is_broken_config_map(&self) -> bool {
        self.kind == "ConfigMap" && self.object.is_none()
    }
}

impl Batch {
    /// Reads a YAML file. The path is only for messages.
    pub fn of_file(path: &str, content: &[u8]) -> Self {
        if content.starts_with(LFS_POINTER) {
            let message = "a Git LFS pointer: the file itself is not in the repository";
            let finding = Finding::error(code::UNREADABLE, Place::file(path), message)
                .with_help("commit the file itself, or keep it outside the fleet's folder")
                .reaching(Scope::Commit);
            return Self {
                findings: vec![finding],
                is_open: true,
                ..Self::default()
            };
        }
        match decode(path, content) {
            Ok(documents) => Self::of(documents),
            Err(finding) => Self::unread(*finding, content),
        }
    }

    /// Reports a file that cannot be read: an error if it names one of our kinds, because objects may then be missing.
    fn unread(finding: Finding, content: &[u8]) -> Self {
        // in UTF-16, which some editors write, every other byte is a zero
        let text: Vec<u8> = content.iter().copied().filter(|byte| *byte != 0).collect();
        let text = String::from_utf8_lossy(&text);
        if kind::is_named_in(&text) {
            return Self {
                findings: vec![finding],
                unread: Some(text.into()),
                ..Self::default()
            };
        }
        let message = format!(
            "it is not part of the fleet, and cannot be read as YAML: {}",
            finding.message
        );
        let ignored = Finding::warning(code::IGNORED_FILE, finding.place, message);
        Self {
            findings: vec![ignored],
            ..Self::default()
        }
    }

    /// Checks documents of any origin.
    pub fn of(documents: impl IntoIterator<Item = Document>) -> Self {
        let (mut batch, mut foreign) = (Self::default(), Vec::new());
        for document in documents {
            batch.take(document, &mut foreign);
        }
        batch.findings.extend(kind::ignored(foreign));
        batch
    }

    fn take(&mut self, mut document: Document, foreign: &mut Vec<Foreign>) {
        let kind = match kind::read(&document) {
            Is::Ours(kind) => kind,
            Is::List(of) => {
                for item in document.items(of.as_deref()) {
                    self.take(item, foreign);
                }
                return;
            }
            Is::Foreign(other) => return foreign.push(other),
            Is::Wrong(wrong) => return self.take_wrong(*wrong, &document),
        };
        prepare(kind, &mut document.value);
        let (namespace, name) = names(&document);
        let place = document.place("/metadata/name");
        let encrypted = kind::encrypted(kind, &name, &document);
        let mut findings = match encrypted {
            Some(encrypted) => vec![encrypted],
            None => schema::check(kind, &document),
        };
        if let (true, Err(error)) = (findings.is_empty(), check_name(kind, &namespace, &name)) {
            let message = error.to_string();
            findings.push(Finding::error(code::BAD_NAME, place.clone(), message));
        }
        let mut object = None;
        if findings.is_empty() {
            findings = rules::unused(kind, &document);
            object = known(kind, document, &mut findings);
        }
        let named = Named {
            kind,
            namespace,
            name,
            place,
            object,
            findings,
        };
        if !named.name.is_empty() {
            self.named.push(named);
        } else if named.is_broken_config_map() {
            // nothing can refer to it
            let warnings = named.findings.into_iter().map(Finding::as_warning);
            self.findings.extend(warnings);
        } else {
            self.findings.extend(named.findings);
        }
    }

    fn take_wrong(&mut self, wrong: kind::Wrong, document: &Document) {
        let kind::Wrong { finding, kinds } = wrong;
        let (namespace, name) = names(document);
        self.is_open |= kinds.is_empty();
        if kinds.is_empty() || name.is_empty() {
            let is_config_map = kinds == ["ConfigMap"];
            let warning = || finding.clone().as_warning();
            let finding = if is_config_map { warning() } else { finding };
            self.findings.push(finding);
            return;
        }
        self.wrong.push(WrongObject {
            kinds,
            namespace,
            name,
            finding,
        });
    }
}

/// Returns the namespace and the name of an object. A namespace that cannot be read is empty.
fn names(document: &Document) -> (String, String) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text(document.at("/metadata/name"));
    match document.at("/metadata/namespace") {
        None => (DEFAULT_NAMESPACE.to_owned(), name),
        given => (text(given), name),
    }
}

/// Returns the typed object, if its kind is acted on and it keeps the rules of its kind.
fn known(kind: &str, document: Document, findings: &mut Vec<Finding>) -> Option<Object> {
    match kind {
        "EdgeDevice" => keep(kind, document, findings).map(Object::Device),
        "EdgeDeviceSet" => keep(kind, document, findings).map(Object::Set),
        "EdgeWorkload" => keep(kind, document, findings).map(Object::Workload),
        "EdgeFleet" => keep(kind, document, findings).map(Object::Fleet),
        "ConfigMap" => keep(kind, document, findings).map(Object::ConfigMap),
        _ => None,
    }
}

fn check_name(kind: &str, namespace: &str, name: &str) -> Result<(), NameError> {
    match kind {
        "EdgeDevice" => DeviceName::new(namespace, name).map(drop),
        _ => check_label(namespace).and_then(|()| check_subdomain(name)),
    }
}

/// Adds what Kubernetes adds: the namespace, and a spec if no field of it is required.
fn prepare(kind: &str, value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .entry("namespace")
            .or_insert_with(|| json!(DEFAULT_NAMESPACE));
    }
    if WITHOUT_SPEC.contains(&kind)
        && let Some(object) = value.as_object_mut()
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
        let servers = &device.object.spec.settings.servers;
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
        findings.extend(rules::servers(&spec.settings.servers, &set.document));
        findings
    }
}
impl Rules for EdgeWorkload {
    fn rules(workload: &Checked<Self>) -> Vec<Finding> {
        rules::workload(workload)
    }
}

fn keep<K: DeserializeOwned + Rules>(
    kind: &str,
    document: Document,
    findings: &mut Vec<Finding>,
) -> Option<Box<Checked<K>>> {
    let Ok(object) = K::deserialize(&document.value) else {
        // it is read once more, for the place: valid objects are read only once
        let error = serde_path_to_error::deserialize::<_, K>(&document.value).err();
        findings.extend(error.map(|error| schema::refused_by_type(kind, &document, &error)));
        return None;
    };
    let checked = Checked { object, document };
    let broken = K::rules(&checked);
    let good = broken.is_empty();
    findings.extend(broken);
    good.then(|| Box::new(checked))
}
