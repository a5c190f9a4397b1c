//! Renders a commit: from its objects to the manifests of all devices.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use flotta_bundle::{DeviceName, Digest, code};
use serde::{Deserialize, Serialize};

use crate::bundle::{Clash, assemble, conflicts};
use crate::check::gather;
use crate::finding::{Finding, Scope, Severity};
use crate::fleet::{Contents, Fleet, InventoryDevice, Known};
use crate::input::Input;
use crate::place::Place;
use crate::select::Labels;

/// Options of a render.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Images without a digest are errors.
    pub require_digests: bool,
}

/// The size of a render.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The number of files read, or of objects of a cluster.
    pub files: usize,
    /// The number of devices, including held ones.
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
    /// Its sets. Later ones override earlier ones.
    pub sets: Vec<String>,
    /// Its labels.
    pub labels: Labels,
    /// Its workloads, sorted; devices with the same manifest share them.
    pub workloads: Arc<[String]>,
}

/// How much a release may remove before someone must approve it, from `EdgeFleet` or the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The largest share of a workload's devices, in percent, from which it may be removed.
    pub share_percent: u32,
    /// A workload may always be removed from fewer devices than this.
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
    /// The findings, sorted by place.
    pub findings: Vec<Finding>,
    /// Devices that rendered without error.
    pub devices: BTreeMap<DeviceName, RenderedDevice>,
    /// Manifests and file contents, by digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The size of the render.
    pub counts: Counts,
    /// Devices with errors. They keep their current bundle.
    pub held: BTreeSet<DeviceName>,
    /// How much a release may remove before someone must approve it.
    pub guard: Guard,
}

/// Renders the content of a source. This is a pure function: the same objects and inventory give the same bytes, independent of
/// the machine, its clock, its locale and the order of its directories.
pub fn render(input: &Input, inventory: &[InventoryDevice], options: &Options) -> Rendered {
    let mut out = Rendered {
        findings: input.findings.clone(),
        ..Rendered::default()
    };
    let (objects, found) = gather(input.batches.iter().map(AsRef::as_ref));
    out.findings.extend(found);
    if objects.empty {
        let message = "the source holds no object of Flotta's";
        let finding = Finding::warning(code::EMPTY, Place::Nowhere, message);
        out.findings.push(finding);
    }
    out.counts.files = input.batches.len();
    out.counts.workloads = objects.workloads.len();
    out.guard = Guard::of(objects.fleet.map(|fleet| &fleet.object.spec));
    out.add(&Fleet::new(&objects, inventory));
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

/// The result that devices with the same contents share.
struct Shared {
    manifest: Result<Digest, Vec<Clash>>,
    workloads: Arc<[String]>,
}

impl Shared {
    fn new(
        fleet: &Fleet<'_>,
        contents: &Contents<'_>,
        blobs: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Self {
        let parts = fleet.parts(contents);
        Self {
            workloads: parts.iter().map(|part| part.name.to_owned()).collect(),
            manifest: assemble(&parts, contents.settings.clone(), blobs),
        }
    }
}

impl Rendered {
    /// Adds the devices and the findings of the fleet.
    fn add(&mut self, fleet: &Fleet<'_>) {
        self.counts.devices = fleet.devices().len();
        self.findings.extend(fleet.findings());
        let mut shared: HashMap<Contents<'_>, Shared> = HashMap::new();
        let mut known = Known::default();
        let mut clashes: BTreeMap<Clash, Vec<DeviceName>> = BTreeMap::new();
        let mut held: HashMap<Contents<'_>, Vec<&DeviceName>> = HashMap::new();
        for device in fleet.devices() {
            if fleet.is_held(device) {
                self.held.insert(device.name.clone());
                held.entry(fleet.contents_of_held(device))
                    .or_default()
                    .push(&device.name);
                continue;
            }
            let contents = fleet.contents(device, &mut known);
            let shared = match shared.entry(contents) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let new = Shared::new(fleet, entry.key(), &mut self.blobs);
                    entry.insert(new)
                }
            };
            match &shared.manifest {
                Ok(manifest) => {
                    let sets = fleet.sets_of(device).map(|set| set.name.to_owned());
                    let rendered = RenderedDevice {
                        manifest: *manifest,
                        sets: sets.collect(),
                        labels: device.labels.clone(),
                        workloads: Arc::clone(&shared.workloads),
                    };
                    self.devices.insert(device.name.clone(), rendered);
                }
                Err(found) => {
                    self.held.insert(device.name.clone());
                    for clash in found {
                        let devices = clashes.entry(clash.clone()).or_default();
                        devices.push(device.name.clone());
                    }
                }
            }
        }
        for (contents, names) in held {
            for clash in conflicts(&fleet.parts(&contents)) {
                let devices = clashes.entry(clash).or_default();
                devices.extend(names.iter().copied().cloned());
            }
        }
        let manifests = self.devices.values().map(|device| device.manifest);
        self.counts.manifests = manifests.collect::<BTreeSet<_>>().len();
        let clashes = clashes.into_iter().map(|(clash, mut devices)| {
            devices.sort();
            let finding = Finding::error(clash.code(), clash.place.clone(), clash.message);
            finding.reaching(Scope::Devices(devices))
        });
        self.findings.extend(clashes);
    }
}

#[cfg(test)]
mod tests;
