//! The way of a commit through all rooms of this crate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use flotta_bundle::manifest::Settings;
use flotta_bundle::{DeviceName, Digest, code};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::bundle::{Clash, Part, assemble};
use crate::check::{Checked, Objects, gather};
use crate::compile::{Compiled, ConfigMaps, compile};
use crate::decode::{Document, step};
use crate::finding::{Finding, Place, Severity};
use crate::merge::merge;
use crate::read::Reader;
use crate::select::{ByLabel, Labels, MEMBER_OF};
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
    /// Its workloads, sorted; devices with the same manifest share them.
    pub workloads: Arc<[String]>,
}

/// How much a release may take away before someone must allow it: what `EdgeFleet` says, or the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The largest share of the devices that run a workload, in percent, that it may be taken from.
    pub share_percent: u32,
    /// It may always be taken from fewer devices than this.
    pub min_devices: u32,
}

impl Default for Guard {
    /// A third of a fleet is more than a rollout touches at once, and five devices are what a person sees at a glance.
    fn default() -> Self {
        Self {
            share_percent: 30,
            min_devices: 5,
        }
    }
}

impl Guard {
    fn of(spec: Option<&flotta_api::v1alpha1::EdgeFleetSpec>) -> Self {
        let given = spec.and_then(|spec| spec.guard.as_ref());
        let default = Self::default();
        Self {
            share_percent: given
                .and_then(|guard| guard.share_percent)
                .unwrap_or(default.share_percent),
            min_devices: given
                .and_then(|guard| guard.min_devices)
                .unwrap_or(default.min_devices),
        }
    }
}

/// A commit, rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// How much a release may take away before someone must allow it.
    pub guard: Guard,
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
    Renderer::default().render(tree, inventory, options)
}

/// Renders one tree after the other, and reads only the files that the one before did not have.
#[derive(Debug, Default)]
pub struct Renderer(Reader);

impl Renderer {
    /// What [`render`] does: what is remembered is a function of what it is remembered by.
    pub fn render(
        &mut self,
        tree: &Tree,
        inventory: &[InventoryDevice],
        options: &Options,
    ) -> Rendered {
        let mut out = Rendered::default();
        for path in &tree.skipped {
            let place = Place {
                file: path.clone(),
                ..Place::default()
            };
            out.findings.push(Finding::warning(
                code::IGNORED_FILE,
                place,
                "symbolic links and names that are not UTF-8 are not read",
            ));
        }
        let files = self.0.read(&tree.files);
        let (objects, found) = gather(files.iter().map(AsRef::as_ref));
        out.findings.extend(found);
        out.counts.files = tree.files.len();
        out.counts.workloads = objects.workloads.len();
        out.guard = Guard::of(objects.fleet.map(|fleet| &fleet.object.spec));
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
}

static NO_LABELS: Labels = Labels::new();

/// One device on its way.
struct Device<'a> {
    name: DeviceName,
    labels: &'a Labels,
    /// The set its token or approval put it in.
    set: Option<&'a str>,
    /// Absent for devices of the inventory.
    document: Option<&'a Document>,
}

/// One workload, compiled.
struct Workload<'a> {
    name: &'a str,
    namespace: &'a str,
    place: Place,
    checked: &'a Checked<flotta_api::v1alpha1::EdgeWorkload>,
    compiled: Compiled,
}

/// What devices share that have the same workloads and settings: put together once.
struct Shared {
    manifest: Result<Digest, Vec<Clash>>,
    workloads: Arc<[String]>,
}

struct Fleet<'a> {
    objects: &'a Objects<'a>,
    /// Sorted by name.
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
    fn new(objects: &'a Objects<'a>, inventory: &'a [InventoryDevice]) -> Self {
        let mut devices = BTreeMap::new();
        for device in inventory {
            devices.insert(
                device.device.clone(),
                Device {
                    name: device.device.clone(),
                    labels: &device.labels,
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
            let labels = device.object.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
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
            .map(|map| (name(&map.object.metadata), *map))
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

    fn render(self, out: &mut Rendered) {
        out.counts.devices = self.devices.len();
        let by_label = ByLabel::new(
            self.devices
                .iter()
                .map(|device| (device.name.namespace(), device.labels)),
        );
        let placed = self.place_workloads(&by_label, out);
        let members = self.place_sets(&by_label, out);
        let mut known: HashMap<(&[usize], Settings), Shared> = HashMap::new();
        let mut clashes: BTreeMap<Clash, Vec<DeviceName>> = BTreeMap::new();
        let of_device = invert(self.devices.len(), &placed);
        let mut of_sets: HashMap<&[usize], Settings> = HashMap::new();
        for ((device, sets), own) in self.devices.iter().zip(&members).zip(&of_device) {
            let merged = || {
                let layers = sets.iter().map(|at| &self.objects.sets[*at].document);
                settings(&merge(layers.chain(device.document)).value)
            };
            // most devices say nothing of their own, and are set as their sets are
            let settings = match device.document {
                Some(document) if document.says("spec") => merged(),
                _ => of_sets
                    .entry(sets.as_slice())
                    .or_insert_with(merged)
                    .clone(),
            };
            if own.iter().any(|at| self.workloads[*at].broken()) {
                out.held.insert(device.name.clone());
                continue;
            }
            let key = (own.as_slice(), settings.clone());
            let shared = known.entry(key).or_insert_with(|| {
                let parts: Vec<_> = own.iter().map(|at| self.workloads[*at].part()).collect();
                Shared {
                    manifest: assemble(&parts, settings, &mut out.blobs),
                    workloads: parts.iter().map(|part| part.name.to_owned()).collect(),
                }
            });
            match &shared.manifest {
                Ok(manifest) => {
                    let set_names = sets
                        .iter()
                        .map(|at| name(&self.objects.sets[*at].object.metadata).1.to_owned());
                    let rendered = RenderedDevice {
                        manifest: *manifest,
                        sets: set_names.collect(),
                        labels: device.labels.clone(),
                        workloads: Arc::clone(&shared.workloads),
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
        let manifests = out.devices.values().map(|device| device.manifest);
        out.counts.manifests = manifests.collect::<BTreeSet<_>>().len();
        out.findings
            .extend(clashes.into_iter().map(|(clash, devices)| {
                let mut finding = Finding::error(clash.code(), clash.place.clone(), clash.message);
                finding.devices = devices;
                finding
            }));
        let devices = &self.devices;
        for (workload, placed) in self.workloads.into_iter().zip(&placed) {
            let concerned = || placed.iter().map(|at| devices[*at].name.clone()).collect();
            out.findings.extend(workload.into_findings(concerned));
        }
    }

    /// The devices of each workload, by their places.
    fn place_workloads(&self, by_label: &ByLabel<'_>, out: &mut Rendered) -> Vec<Vec<usize>> {
        let mut nowhere = |place, message| {
            out.findings
                .push(Finding::warning(code::MATCHES_NOTHING, place, message));
        };
        let place = |workload: &Workload<'_>| {
            let spec = &workload.checked.object.spec;
            let document = &workload.checked.document;
            let mut found = Vec::new();
            if let Some(wanted) = &spec.device {
                let key = (workload.namespace, wanted.as_str());
                let at = self.devices.binary_search_by_key(&key, |device| {
                    (device.name.namespace(), device.name.name())
                });
                found.extend(at);
                if found.is_empty() {
                    let message = format!(
                        "device `{}/{wanted}` is neither in Git nor has it joined",
                        workload.namespace
                    );
                    nowhere(document.place("/spec/device"), message);
                }
            } else if let Some(selector) = &spec.device_selector {
                found = by_label.select(workload.namespace, selector);
                if found.is_empty() {
                    let message = format!(
                        "`deviceSelector` of workload `{}` matches no device",
                        workload.name
                    );
                    nowhere(document.key_place("/spec/deviceSelector"), message);
                }
            }
            found
        };
        self.workloads.iter().map(place).collect()
    }

    /// The sets of each device, the one that wins last.
    fn place_sets(&self, by_label: &ByLabel<'_>, out: &mut Rendered) -> Vec<Vec<usize>> {
        let mut selected = Vec::new();
        let mut by_name = HashMap::new();
        for (at, set) in self.objects.sets.iter().enumerate() {
            let (namespace, name) = name(&set.object.metadata);
            by_name.insert((namespace, name), at);
            let selector = set.object.spec.selector.as_ref();
            let members = selector.map(|selector| by_label.select(namespace, selector));
            selected.push(members.unwrap_or_default());
        }
        let mut sets = invert(self.devices.len(), &selected);
        let mut named_by_none: BTreeSet<usize> = (0..selected.len()).collect();
        for (device, sets) in self.devices.iter().zip(&mut sets) {
            let label = device.labels.get(MEMBER_OF).map(String::as_str);
            if let Some(named) = label.or(device.set) {
                match by_name.get(&(device.name.namespace(), named)) {
                    Some(at) if sets.contains(at) => {}
                    Some(at) => {
                        sets.push(*at);
                        named_by_none.remove(at);
                    }
                    None => out.findings.push(missing_set(device, named)),
                }
            }
            sets.sort_by_key(|at| {
                let set = &self.objects.sets[*at].object;
                (set.spec.priority.unwrap_or(0), name(&set.metadata).1)
            });
        }
        for at in named_by_none {
            let set = &self.objects.sets[at];
            if set.object.spec.selector.is_some() && selected[at].is_empty() {
                let message = format!(
                    "the selector of set `{}` matches no device",
                    name(&set.object.metadata).1
                );
                let place = set.document.key_place("/spec/selector");
                out.findings
                    .push(Finding::warning(code::MATCHES_NOTHING, place, message));
            }
        }
        sets
    }
}

/// From the devices of each to those of each device.
fn invert(devices: usize, placed: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut of_device = vec![Vec::new(); devices];
    for (at, placed) in placed.iter().enumerate() {
        for device in placed {
            of_device[*device].push(at);
        }
    }
    of_device
}

fn missing_set(device: &Device<'_>, named: &str) -> Finding {
    let place = device
        .document
        .map(|document| document.place(&format!("/metadata/labels/{}", step(MEMBER_OF))));
    let place = place.unwrap_or(Place {
        file: "(inventory)".to_owned(),
        ..Place::default()
    });
    let message = format!(
        "device `{}` is a member of set `{named}`, which does not exist",
        device.name
    );
    Finding::warning(code::MISSING_SET, place, message)
}

/// What the merged spec says of the agent itself.
fn settings(spec: &serde_json::Value) -> Settings {
    let period = spec
        .pointer("/heartbeat/periodSeconds")
        .and_then(serde_json::Value::as_u64);
    let period = period
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0);
    let servers = spec.get("servers").and_then(serde_json::Value::as_array);
    let servers = servers.into_iter().flatten();
    Settings {
        heartbeat_seconds: period.unwrap_or(Settings::default().heartbeat_seconds),
        servers: servers
            .filter_map(|server| server.as_str().map(str::to_owned))
            .collect(),
    }
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
    fn into_findings(
        self,
        concerned: impl Fn() -> Vec<DeviceName>,
    ) -> impl Iterator<Item = Finding> {
        let compiled = self.compiled;
        compiled.findings.into_iter().map(move |mut finding| {
            if finding.severity == Severity::Error && !compiled.refused {
                finding.devices = concerned();
                // Nobody has it yet: it must not stop those who have nothing to do with it.
                if finding.devices.is_empty() {
                    finding.severity = Severity::Warning;
                }
            }
            finding
        })
    }
}
