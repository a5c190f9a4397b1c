//! The way of a commit through all rooms of this crate.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::Settings;
use flotta_bundle::{DeviceName, Digest, code};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::bundle::{Clash, Part, assemble};
use crate::check::{Checked, Objects, check};
use crate::compile::{Compiled, ConfigMaps, compile};
use crate::decode::{Document, decode, step};
use crate::finding::{Finding, Place, Severity};
use crate::merge::merge;
use crate::select::{Labels, MEMBER_OF, matches};
use crate::tree::Tree;

/// What a render is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Images without a digest are errors.
    pub require_digests: bool,
}

/// A device that joined without an `EdgeDevice` in Git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryDevice {
    /// Its name.
    pub device: DeviceName,
    /// The set that its token or approval put it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// How much was rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Files read.
    pub files: usize,
    /// Devices, held ones too.
    pub devices: usize,
    /// Workloads.
    pub workloads: usize,
    /// Different manifests.
    pub manifests: usize,
}

/// One device, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedDevice {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its sets, the one that wins last.
    pub sets: Vec<String>,
    /// Its labels.
    pub labels: Labels,
    /// Its workloads, sorted.
    pub workloads: Vec<String>,
}

/// A commit, rendered.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// What a person should know, sorted by place.
    pub findings: Vec<Finding>,
    /// Devices that rendered without error.
    pub devices: BTreeMap<DeviceName, RenderedDevice>,
    /// Manifests and file contents, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// How much it was.
    pub counts: Counts,
    /// Devices that errors concern: they keep the bundle they have.
    pub held: BTreeSet<DeviceName>,
}

impl Rendered {
    /// Whether an error concerns the whole commit: then nothing of it may be released.
    pub fn refused(&self) -> bool {
        self.findings.iter().any(Finding::refuses_commit)
    }
}

/// Renders a tree. A pure function: the same files and inventory give the same bytes, whatever the machine, its clock, its
/// locale or the order of its directories.
pub fn render(tree: &Tree, inventory: &[InventoryDevice], options: &Options) -> Rendered {
    let mut findings = Vec::new();
    for path in &tree.skipped {
        let place = Place {
            file: path.clone(),
            ..Place::default()
        };
        findings.push(Finding::warning(
            code::IGNORED_FILE,
            place,
            "symbolic links and names that are not UTF-8 are not read",
        ));
    }
    let mut documents = Vec::new();
    for file in &tree.files {
        match decode(file) {
            Ok(found) => documents.extend(found),
            Err(finding) => findings.push(*finding),
        }
    }
    let (objects, found) = check(documents);
    findings.extend(found);
    let mut out = Rendered {
        findings,
        ..Rendered::default()
    };
    out.counts.files = tree.files.len();
    out.counts.workloads = objects.workloads.len();
    Fleet::new(&objects, inventory).render(&mut out);
    if options.require_digests {
        for finding in out
            .findings
            .iter_mut()
            .filter(|finding| finding.code == code::NO_DIGEST)
        {
            finding.severity = Severity::Error;
            finding.code = code::DIGEST_REQUIRED;
        }
    }
    let key = |f: &Finding| (f.place.clone(), f.severity, f.code.id, f.message.clone());
    out.findings.sort_by_cached_key(key);
    out
}

/// One device on its way.
struct Device<'a> {
    name: DeviceName,
    labels: Labels,
    /// The set its token or approval put it in.
    set: Option<&'a str>,
    /// Absent for devices of the inventory.
    document: Option<&'a Document>,
}

/// One workload, compiled, and whom it concerns.
struct Workload<'a> {
    name: &'a str,
    namespace: &'a str,
    place: Place,
    checked: &'a Checked<flotta_api::v1alpha1::EdgeWorkload>,
    compiled: Compiled,
    devices: Vec<DeviceName>,
}

struct Fleet<'a> {
    objects: &'a Objects,
    devices: Vec<Device<'a>>,
    workloads: Vec<Workload<'a>>,
}

/// Namespace and name, which every checked object has.
fn name(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

impl<'a> Fleet<'a> {
    fn new(objects: &'a Objects, inventory: &'a [InventoryDevice]) -> Self {
        let mut devices = BTreeMap::new();
        for device in inventory {
            devices.insert(
                device.device.clone(),
                Device {
                    name: device.device.clone(),
                    labels: device.labels.clone(),
                    set: device.set.as_deref(),
                    document: None,
                },
            );
        }
        // What Git says of a device wins over what its token said.
        for device in &objects.devices {
            let (namespace, name) = name(&device.object.metadata);
            let Ok(name) = DeviceName::new(namespace, name) else {
                continue;
            };
            let labels = device.object.metadata.labels.clone().unwrap_or_default();
            devices.insert(
                name.clone(),
                Device {
                    name,
                    labels,
                    set: None,
                    document: Some(&device.document),
                },
            );
        }
        let config_maps: ConfigMaps<'_> = objects
            .config_maps
            .iter()
            .map(|map| (name(&map.object.metadata), map))
            .collect();
        let mut workloads: Vec<_> = objects
            .workloads
            .iter()
            .map(|checked| {
                let (namespace, name) = name(&checked.object.metadata);
                let place = checked.document.place("/metadata/name");
                Workload {
                    name,
                    namespace,
                    place,
                    checked,
                    compiled: compile(checked, &config_maps),
                    devices: Vec::new(),
                }
            })
            .collect();
        workloads.sort_by_key(|workload| (workload.namespace, workload.name));
        Self {
            objects,
            devices: devices.into_values().collect(),
            workloads,
        }
    }

    fn render(mut self, out: &mut Rendered) {
        out.counts.devices = self.devices.len();
        self.place_workloads(out);
        // Devices that want the same share one manifest: it is put together once.
        let mut known: BTreeMap<(Vec<usize>, u32), Result<Digest, Vec<Clash>>> = BTreeMap::new();
        let mut clashes: BTreeMap<Clash, Vec<DeviceName>> = BTreeMap::new();
        let mut members: BTreeSet<usize> = BTreeSet::new();
        for device in &self.devices {
            let sets = self.sets_of(device, out);
            members.extend(&sets);
            let layers = sets
                .iter()
                .map(|at| &self.objects.sets[*at].document)
                .chain(device.document);
            let settings = settings(&merge(layers).value);
            let own: Vec<usize> = (0..self.workloads.len())
                .filter(|at| {
                    self.workloads[*at]
                        .devices
                        .binary_search(&device.name)
                        .is_ok()
                })
                .collect();
            if own.iter().any(|at| self.workloads[*at].broken()) {
                out.held.insert(device.name.clone());
                continue;
            }
            let key = (own.clone(), settings.heartbeat_seconds);
            let manifest = known.entry(key).or_insert_with(|| {
                let parts: Vec<_> = own.iter().map(|at| self.workloads[*at].part()).collect();
                assemble(&parts, settings, &mut out.blobs)
            });
            match manifest {
                Ok(manifest) => {
                    let set_names = sets
                        .iter()
                        .map(|at| name(&self.objects.sets[*at].object.metadata).1.to_owned());
                    let rendered = RenderedDevice {
                        manifest: *manifest,
                        sets: set_names.collect(),
                        labels: device.labels.clone(),
                        workloads: own
                            .iter()
                            .map(|at| self.workloads[*at].name.to_owned())
                            .collect(),
                    };
                    out.devices.insert(device.name.clone(), rendered);
                }
                Err(found) => {
                    out.held.insert(device.name.clone());
                    for clash in found {
                        clashes
                            .entry(clash.clone())
                            .or_default()
                            .push(device.name.clone());
                    }
                }
            }
        }
        out.counts.manifests = out
            .devices
            .values()
            .map(|device| device.manifest)
            .collect::<BTreeSet<_>>()
            .len();
        out.findings
            .extend(clashes.into_iter().map(|(clash, devices)| {
                let mut finding = Finding::error(clash.code(), clash.place.clone(), clash.message);
                finding.devices = devices;
                finding
            }));
        for (at, set) in self.objects.sets.iter().enumerate() {
            if set.object.spec.selector.is_some() && !members.contains(&at) {
                let place = set.document.key_place("/spec/selector");
                let message = format!(
                    "the selector of set `{}` matches no device",
                    name(&set.object.metadata).1
                );
                out.findings
                    .push(Finding::warning(code::MATCHES_NOTHING, place, message));
            }
        }
        for workload in self.workloads {
            out.findings.extend(workload.into_findings());
        }
    }

    /// Finds the devices of each workload.
    fn place_workloads(&mut self, out: &mut Rendered) {
        for workload in &mut self.workloads {
            let spec = &workload.checked.object.spec;
            let document = &workload.checked.document;
            let local = self
                .devices
                .iter()
                .filter(|device| device.name.namespace() == workload.namespace);
            if let Some(wanted) = &spec.device {
                workload.devices = local
                    .filter(|device| device.name.name() == wanted)
                    .map(|device| device.name.clone())
                    .collect();
                if workload.devices.is_empty() {
                    let message = format!(
                        "device `{}/{wanted}` is neither in Git nor has it joined",
                        workload.namespace
                    );
                    out.findings.push(Finding::warning(
                        code::MATCHES_NOTHING,
                        document.place("/spec/device"),
                        message,
                    ));
                }
            } else if let Some(selector) = &spec.device_selector {
                workload.devices = local
                    .filter(|device| matches(selector, &device.labels))
                    .map(|device| device.name.clone())
                    .collect();
                if workload.devices.is_empty() {
                    let message = format!(
                        "`deviceSelector` of workload `{}` matches no device",
                        workload.name
                    );
                    out.findings.push(Finding::warning(
                        code::MATCHES_NOTHING,
                        document.key_place("/spec/deviceSelector"),
                        message,
                    ));
                }
            }
        }
    }

    /// The sets of a device, the one that wins last.
    fn sets_of(&self, device: &Device<'_>, out: &mut Rendered) -> Vec<usize> {
        let label = device.labels.get(MEMBER_OF).map(String::as_str);
        let named = label.or(device.set);
        let mut found: Vec<_> = self
            .objects
            .sets
            .iter()
            .enumerate()
            .filter(|(_, set)| {
                let (namespace, name) = name(&set.object.metadata);
                let selected = set
                    .object
                    .spec
                    .selector
                    .as_ref()
                    .is_some_and(|selector| matches(selector, &device.labels));
                namespace == device.name.namespace() && (named == Some(name) || selected)
            })
            .collect();
        found.sort_by_key(|(_, set)| {
            (
                set.object.spec.priority.unwrap_or(0),
                name(&set.object.metadata).1,
            )
        });
        let is_named = |(_, set): &(usize, &Checked<_>)| {
            let set: &Checked<flotta_api::v1alpha1::EdgeDeviceSet> = set;
            Some(name(&set.object.metadata).1) == named
        };
        if let (Some(named), false) = (named, found.iter().any(is_named)) {
            let place = device
                .document
                .map(|document| document.place(&format!("/metadata/labels/{}", step(MEMBER_OF))));
            let message = format!(
                "device `{}` is a member of set `{named}`, which does not exist",
                device.name
            );
            let place = place.unwrap_or(Place {
                file: "(inventory)".to_owned(),
                ..Place::default()
            });
            out.findings
                .push(Finding::warning(code::MISSING_SET, place, message));
        }
        found.into_iter().map(|(at, _)| at).collect()
    }
}

/// What the merged spec says of the agent itself.
fn settings(spec: &serde_json::Value) -> Settings {
    let period = spec
        .pointer("/heartbeat/periodSeconds")
        .and_then(serde_json::Value::as_u64);
    let period = period
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0);
    period.map_or_else(Settings::default, |heartbeat_seconds| Settings {
        heartbeat_seconds,
    })
}

impl Workload<'_> {
    /// Whether its devices must keep what they have.
    fn broken(&self) -> bool {
        self.compiled
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }

    fn part(&self) -> Part<'_> {
        Part {
            name: self.name,
            place: &self.place,
            compiled: &self.compiled,
        }
    }

    /// Its findings, with the devices that they concern.
    fn into_findings(self) -> impl Iterator<Item = Finding> {
        let Self {
            compiled, devices, ..
        } = self;
        compiled.findings.into_iter().map(move |mut finding| {
            if finding.severity == Severity::Error && !compiled.refused {
                finding.devices.clone_from(&devices);
                // Nobody has it yet: it must not stop those who have nothing to do with it.
                if devices.is_empty() {
                    finding.severity = Severity::Warning;
                }
            }
            finding
        })
    }
}
