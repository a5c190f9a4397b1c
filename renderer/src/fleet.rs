//! The fleet that a commit describes: devices, sets and workloads, which of them belong together, and where each merged value
//! comes from.

mod place;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flotta_api::v1alpha1::{EdgeDeviceSet, EdgeWorkload};
use flotta_bundle::DeviceName;
use flotta_bundle::manifest::Settings;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::bundle::Part;
use crate::check::{Checked, Objects, Unusable};
use crate::compile::{Compiled, ConfigMaps, compile};
use crate::decode::Document;
use crate::finding::{Finding, Scope, Severity};
use crate::merge::{Merged, merge};
use crate::place::Place;
use crate::select::Labels;
use crate::settings::settings;

static NO_LABELS: Labels = Labels::new();

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

/// All devices, sets and workloads.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// Sorted by name.
    devices: Vec<Device<'a>>,
    /// In the order of the source.
    sets: Vec<Set<'a>>,
    /// Sorted by namespace and name.
    workloads: Vec<Workload<'a>>,
    /// Objects that exist and cannot be used.
    unusable: Unusable<'a>,
    /// Selectors that match nothing, and missing references.
    findings: Vec<Finding>,
}

/// One device.
#[derive(Debug)]
pub struct Device<'a> {
    /// Its name.
    pub name: DeviceName,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its object; `None` for devices of the inventory.
    pub document: Option<&'a Document>,
    /// The set that its token or approval put it in.
    joined: Option<&'a str>,
    /// The positions of its sets. Later ones override earlier ones.
    sets: Vec<usize>,
    /// The positions of its workloads, in order.
    workloads: Vec<usize>,
}

/// One set.
#[derive(Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The object.
    pub checked: &'a Checked<EdgeDeviceSet>,
}

/// One workload, compiled.
#[derive(Debug)]
pub struct Workload<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The place of its name.
    pub place: Place,
    /// The object.
    pub checked: &'a Checked<EdgeWorkload>,
    /// The result of compiling it for all devices.
    pub compiled: Compiled,
    /// The result for each device, by position, if the workload contains the name of the device.
    on: BTreeMap<usize, Compiled>,
    /// The positions of its devices, in order.
    devices: Vec<usize>,
}

/// Everything that a device's manifest is made of. Devices with the same contents share one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Contents<'f> {
    /// The positions of the workloads.
    workloads: &'f [usize],
    /// The position of the device, if one of the workloads contains its name.
    device: Option<usize>,
    /// The agent's settings.
    pub settings: Settings,
}

/// A cache of the merged settings by sets, because most devices have no settings of their own.
#[derive(Debug, Default)]
pub struct Known<'f>(HashMap<&'f [usize], Settings>);

/// Returns the namespace and name, which every checked object has.
fn name(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

impl<'a> Fleet<'a> {
    /// Returns the fleet of these objects and of the devices that joined without one. Each workload is compiled once, and again for
    /// each of its devices only if it contains the name of the device.
    pub fn new(objects: &Objects<'a>, inventory: &'a [InventoryDevice]) -> Self {
        let sets = objects.sets.iter().map(|checked| {
            let (namespace, name) = name(&checked.object.metadata);
            Set {
                name,
                namespace,
                checked,
            }
        });
        let config_maps = ConfigMaps::new(objects);
        let mut fleet = Self {
            devices: devices(objects, inventory),
            sets: sets.collect(),
            workloads: workloads(objects, &config_maps),
            unusable: objects.unusable.clone(),
            findings: Vec::new(),
        };
        fleet.place();
        fleet.compile_alone(&config_maps);
        fleet
    }

    /// Compiles the workloads that contain the name of the device for each of their devices.
    fn compile_alone(&mut self, config_maps: &ConfigMaps<'_>) {
        let devices = &self.devices;
        for workload in &mut self.workloads {
            if workload.compiled.per_device && !workload.compiled.is_broken() {
                let places = workload.devices.iter();
                let compiled = places.map(|at| {
                    let name = devices[*at].name.name();
                    (*at, compile(workload.checked, config_maps, Some(name)))
                });
                workload.on = compiled.collect();
            }
        }
    }

    /// Returns all devices, sorted by name.
    pub fn devices(&self) -> &[Device<'a>] {
        &self.devices
    }

    /// Returns all sets, in the order of the source.
    pub fn sets(&self) -> &[Set<'a>] {
        &self.sets
    }

    /// Returns all workloads, sorted by namespace and name.
    pub fn workloads(&self) -> &[Workload<'a>] {
        &self.workloads
    }

    /// Returns the device with this name.
    pub fn device(&self, name: &DeviceName) -> Option<&Device<'a>> {
        self.find(name.namespace(), name.name())
            .map(|at| &self.devices[at])
    }

    fn find(&self, namespace: &str, name: &str) -> Option<usize> {
        let key = |device: &Device<'a>| {
            let own = (device.name.namespace(), device.name.name());
            own.cmp(&(namespace, name))
        };
        self.devices.binary_search_by(key).ok()
    }

    /// Returns the sets of a device. Later ones override earlier ones.
    pub fn sets_of(&self, device: &Device<'a>) -> impl Iterator<Item = &Set<'a>> {
        device.sets.iter().map(|at| &self.sets[*at])
    }

    /// Returns the workloads of a device, sorted by name.
    pub fn workloads_of(&self, device: &Device<'a>) -> impl Iterator<Item = &Workload<'a>> {
        device.workloads.iter().map(|at| &self.workloads[*at])
    }

    /// Whether a workload of a device is broken, so that the device must keep its current bundle.
    pub fn is_held(&self, device: &Device<'a>) -> bool {
        let alone = |workload: &Workload<'a>| {
            // The device is looked up only for workloads that contain its name.
            let own = || workload.on.get(&self.find_place(device)?);
            !workload.on.is_empty() && own().is_some_and(Compiled::is_broken)
        };
        self.workloads_of(device)
            .any(|workload| workload.compiled.is_broken() || alone(workload))
    }

    fn find_place(&self, device: &Device<'a>) -> Option<usize> {
        self.find(device.name.namespace(), device.name.name())
    }

    /// Returns the devices of a workload, sorted by name.
    pub fn devices_of(&self, workload: &Workload<'a>) -> impl Iterator<Item = &Device<'a>> {
        workload.devices.iter().map(|at| &self.devices[*at])
    }

    /// Returns the merged settings of a device and of its sets, and where each value comes from.
    pub fn merged(&self, device: &Device<'a>) -> Merged {
        let layers = self.sets_of(device).map(|set| &set.checked.document);
        merge(layers.chain(device.document))
    }

    /// Returns the contents of a device's manifest.
    pub fn contents<'f>(&self, device: &'f Device<'a>, known: &mut Known<'f>) -> Contents<'f> {
        let merged = || settings(self.merged(device).settings());
        let settings = match device.document {
            Some(document) if document.says("spec") => merged(),
            _ => known.0.entry(&device.sets).or_insert_with(merged).clone(),
        };
        Contents {
            workloads: &device.workloads,
            device: self.place_alone(device),
            settings,
        }
    }

    /// Returns the contents of the manifest that a held device does not get, for the checks across its workloads. They need no
    /// settings.
    pub fn contents_of_held<'f>(&self, device: &'f Device<'a>) -> Contents<'f> {
        Contents {
            workloads: &device.workloads,
            device: self.place_alone(device),
            settings: Settings::default(),
        }
    }

    /// Returns the position of a device if one of its workloads contains its name.
    fn place_alone(&self, device: &Device<'a>) -> Option<usize> {
        let mut workloads = self.workloads_of(device);
        let alone = workloads.any(|workload| workload.compiled.per_device);
        alone.then(|| self.find_place(device)).flatten()
    }

    /// Returns the workloads of a manifest, sorted by name.
    pub fn parts(&self, contents: &Contents<'_>) -> Vec<Part<'_>> {
        let parts = contents.workloads.iter().map(|at| {
            let workload = &self.workloads[*at];
            let own = contents.device.and_then(|device| workload.on.get(&device));
            Part {
                name: workload.name,
                place: &workload.place,
                compiled: own.unwrap_or(&workload.compiled),
            }
        });
        parts.collect()
    }

    /// Returns all findings. Errors in workloads concern the devices that have them.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        let of_workloads = self.workloads.iter().flat_map(|workload| {
            let findings = workload.compiled.findings.iter().cloned();
            findings.map(|finding| self.concerning(workload, finding))
        });
        let own = self.findings.iter().cloned();
        let of_devices = self
            .workloads
            .iter()
            .flat_map(|workload| self.found_alone(workload));
        own.chain(self.config_maps())
            .chain(of_workloads)
            .chain(of_devices)
    }

    /// Returns the findings that a workload has only on some of its devices.
    fn found_alone(&self, workload: &Workload<'a>) -> Vec<Finding> {
        let mut found: Vec<(&Finding, Vec<DeviceName>)> = Vec::new();
        for (at, compiled) in &workload.on {
            let of_all = &workload.compiled.findings;
            let new = |finding: &&Finding| !of_all.contains(finding);
            for finding in compiled.findings.iter().filter(new) {
                let device = self.devices[*at].name.clone();
                match found.iter_mut().find(|(known, _)| *known == finding) {
                    Some((_, devices)) => devices.push(device),
                    None => found.push((finding, vec![device])),
                }
            }
        }
        let found = found.into_iter();
        let reaching =
            found.map(|(finding, devices)| finding.clone().reaching(Scope::Devices(devices)));
        reaching.collect()
    }

    /// Returns what is wrong with `ConfigMap`s: errors for the devices that need them.
    fn config_maps(&self) -> impl Iterator<Item = Finding> {
        let all = self.unusable.config_maps().iter();
        all.map(|(namespace, name, finding)| {
            let needs = |workload: &&Workload<'_>| {
                let here = workload.namespace == *namespace || namespace.is_empty();
                here && workload.compiled.lacks.contains(*name)
            };
            let workloads = self.workloads.iter().filter(needs);
            let devices: BTreeSet<_> = workloads
                .flat_map(|workload| self.devices_of(workload))
                .map(|device| device.name.clone())
                .collect();
            if devices.is_empty() {
                return finding.clone().as_warning();
            }
            let devices = Scope::Devices(devices.into_iter().collect());
            finding.clone().reaching(devices)
        })
    }

    fn concerning(&self, workload: &Workload<'a>, mut finding: Finding) -> Finding {
        if let Scope::Devices(devices) = &mut finding.scope {
            if workload.compiled.is_refused() {
                finding.scope = Scope::Object;
                return finding;
            }
            let concerned = self.devices_of(workload);
            devices.extend(concerned.map(|device| device.name.clone()));
            // No device has the workload, so the error must not stop others.
            if devices.is_empty() {
                finding.severity = Severity::Warning;
            }
        }
        finding
    }
}

/// Returns all devices. An `EdgeDevice` in Git replaces the entry of the inventory.
fn devices<'a>(objects: &Objects<'a>, inventory: &'a [InventoryDevice]) -> Vec<Device<'a>> {
    let mut devices = BTreeMap::new();
    let mut add = |name: DeviceName, labels, joined, document| {
        let device = Device {
            name: name.clone(),
            labels,
            document,
            joined,
            sets: Vec::new(),
            workloads: Vec::new(),
        };
        devices.insert(name, device);
    };
    for device in inventory {
        let set = device.set.as_deref();
        add(device.device.clone(), &device.labels, set, None);
    }
    for device in &objects.devices {
        let metadata = &device.object.metadata;
        let (namespace, name) = name(metadata);
        if let Ok(name) = DeviceName::new(namespace, name) {
            let labels = metadata.labels.as_ref().unwrap_or(&NO_LABELS);
            add(name, labels, None, Some(&device.document));
        }
    }
    devices.into_values().collect()
}

fn workloads<'a>(objects: &Objects<'a>, config_maps: &ConfigMaps<'_>) -> Vec<Workload<'a>> {
    let compiled = objects.workloads.iter().map(|checked| {
        let (namespace, name) = name(&checked.object.metadata);
        Workload {
            name,
            namespace,
            place: checked.document.place("/metadata/name"),
            checked,
            compiled: compile(checked, config_maps, None),
            on: BTreeMap::new(),
            devices: Vec::new(),
        }
    });
    let mut workloads: Vec<_> = compiled.collect();
    workloads.sort_by_key(|workload| (workload.namespace, workload.name));
    workloads
}

#[cfg(test)]
mod tests;
