//! Finds the devices of sets and workloads.

use std::collections::{BTreeSet, HashMap};

use flotta_bundle::code;

use super::{Device, Fleet, Workload};
use crate::finding::Finding;
use crate::place::Place;
use crate::pointer::step;
use crate::select::{ByLabel, MEMBER_OF};

impl Fleet<'_> {
    /// Finds the sets and workloads of every device.
    pub(super) fn place(&mut self) {
        let mut findings = Vec::new();
        let devices = self.devices.iter();
        let devices = devices.map(|device| (device.name.namespace(), device.labels));
        let by_label = ByLabel::new(devices);
        let workloads = self.workloads.iter();
        let placed: Vec<_> = workloads
            .map(|workload| self.select(workload, &by_label, &mut findings))
            .collect();
        let sets = self.place_sets(&by_label, &mut findings);
        let of_device = invert(self.devices.len(), &placed);
        for ((device, sets), workloads) in self.devices.iter_mut().zip(sets).zip(of_device) {
            (device.sets, device.workloads) = (sets, workloads);
        }
        for (workload, devices) in self.workloads.iter_mut().zip(placed) {
            workload.devices = devices;
        }
        self.findings = findings;
    }

    /// Returns the devices of a workload.
    fn select(
        &self,
        workload: &Workload<'_>,
        by_label: &ByLabel<'_>,
        findings: &mut Vec<Finding>,
    ) -> Vec<usize> {
        let spec = &workload.checked.object.spec;
        let document = &workload.checked.document;
        let (found, nowhere) = if let Some(wanted) = &spec.device {
            let found = self.find(workload.namespace, wanted);
            let nowhere = || {
                let (place, namespace) = (document.place("/spec/device"), workload.namespace);
                let message =
                    format!("device `{namespace}/{wanted}` is neither in Git nor has it joined");
                (place, message)
            };
            let gone =
                found.is_none() && !self.unusable.has("EdgeDevice", workload.namespace, wanted);
            (found.into_iter().collect(), gone.then(nowhere))
        } else if let Some(selector) = &spec.device_selector {
            let found = by_label.select(workload.namespace, selector);
            let nowhere = || {
                let place = document.key_place("/spec/deviceSelector");
                let name = workload.name;
                let message = format!("`deviceSelector` of workload `{name}` matches no device");
                (place, message)
            };
            let none = found.is_empty() && !self.unusable.has_devices(workload.namespace);
            (found, none.then(nowhere))
        } else {
            (Vec::new(), None)
        };
        let warning = |(place, message)| Finding::warning(code::MATCHES_NOTHING, place, message);
        findings.extend(nowhere.map(warning));
        found
    }

    /// Returns the sets of each device. Later ones override earlier ones.
    fn place_sets(&self, by_label: &ByLabel<'_>, findings: &mut Vec<Finding>) -> Vec<Vec<usize>> {
        let mut selected = Vec::new();
        let mut by_name = HashMap::new();
        for (at, set) in self.sets.iter().enumerate() {
            by_name.insert((set.namespace, set.name), at);
            let selector = set.checked.object.spec.selector.as_ref();
            let members = selector.map(|selector| by_label.select(set.namespace, selector));
            selected.push(members.unwrap_or_default());
        }
        let mut sets = invert(self.devices.len(), &selected);
        let mut named_by_none: BTreeSet<usize> = (0..selected.len()).collect();
        for (device, sets) in self.devices.iter().zip(&mut sets) {
            let label = device.labels.get(MEMBER_OF).map(String::as_str);
            if let Some(named) = label.or(device.joined) {
                match by_name.get(&(device.name.namespace(), named)) {
                    Some(at) if sets.contains(at) => {}
                    Some(at) => {
                        sets.push(*at);
                        named_by_none.remove(at);
                    }
                    None if self.is_unusable_set(device, named) => {}
                    None => findings.push(missing_set(device, named)),
                }
            }
            sets.sort_by_key(|at| {
                let set = &self.sets[*at];
                (set.checked.object.spec.priority.unwrap_or(0), set.name)
            });
        }
        for at in named_by_none {
            let set = &self.sets[at];
            let selects = set.checked.object.spec.selector.is_some();
            let known = !self.unusable.has_devices(set.namespace);
            if selects && selected[at].is_empty() && known {
                let message = format!("the selector of set `{}` matches no device", set.name);
                let place = set.checked.document.key_place("/spec/selector");
                findings.push(Finding::warning(code::MATCHES_NOTHING, place, message));
            }
        }
        sets
    }

    fn is_unusable_set(&self, device: &Device<'_>, named: &str) -> bool {
        let namespace = device.name.namespace();
        self.unusable.has("EdgeDeviceSet", namespace, named)
    }
}

/// Inverts a mapping: from the devices of each item to the items of each device.
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
    let place = place.unwrap_or(Place::Inventory);
    let message = format!(
        "device `{}` is a member of set `{named}`, which does not exist",
        device.name
    );
    Finding::warning(code::MISSING_SET, place, message)
}
