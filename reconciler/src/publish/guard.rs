//! The guard against mass removals: what the next release would take away, compared with the one in force. Pure.
//!
//! A commit that removes a folder by mistake is common, and devices follow it within seconds. So a release that takes a
//! workload from many devices, or everything from one, is held until a person allows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flotta_bundle::manifest::Wanted;
use flotta_bundle::{DeviceName, Digest, Manifest};
use flotta_renderer::Guard;

use super::details::{Few, Removal};

#[cfg(test)]
mod tests;

/// The workloads of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The workloads that run.
    runs: BTreeSet<String>,
    /// All workloads, running or not.
    has: BTreeSet<String>,
}

impl Content {
    /// The content of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let mut content = Self::default();
        for unit in &manifest.units {
            content.has.insert(unit.workload.to_string());
            if unit.wanted != Wanted::Loaded {
                content.runs.insert(unit.workload.to_string());
            }
        }
        content
    }
}

/// What happens to a joined device that is in the release in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It gets this manifest, which may be the same as before.
    Has(Digest),
    /// It leaves Git with this commit. It keeps what it runs, but even that may be a mistake.
    Leaves,
    /// It left Git earlier, and keeps what it runs.
    Left,
}

/// A device with its current manifest, and what happens to it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The device.
    pub device: &'a DeviceName,
    /// The device's manifest in the release in force.
    pub before: Digest,
    /// What happens to it.
    pub becomes: Becomes,
}

impl Step<'_> {
    /// Whether anything changes for the device.
    pub fn changes(&self) -> bool {
        self.becomes != Becomes::Has(self.before) && self.becomes != Becomes::Left
    }
}

/// What a release takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Each workload that it takes from a device.
    pub workloads: Vec<Loss>,
    /// How many devices lose something.
    pub losing: usize,
    /// How many devices run something now.
    pub running: usize,
    /// The devices that would have nothing left to run.
    pub emptied: Vec<DeviceName>,
    /// The devices that leave Git.
    pub leaving: Vec<DeviceName>,
    /// Whether every device that runs something leaves Git. The publisher clears this when the commit has other devices,
    /// because then it renames them.
    pub everyone_leaves: bool,
}

/// A workload that is taken from devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub workload: String,
    /// The devices that would lose it, sorted.
    pub devices: Vec<DeviceName>,
    /// How many run it now.
    pub of: usize,
    /// Whether its files stay on all of them and it only stops running.
    pub stops: bool,
}

/// The losses of these steps. `contents` has the manifests that they name; a missing one counts as empty.
pub fn losses(steps: &[Step<'_>], contents: &BTreeMap<Digest, Content>) -> Losses {
    let empty = Content::default();
    let content = |digest: &Digest| contents.get(digest).unwrap_or(&empty);
    let mut found = Losses::default();
    let mut taken: BTreeMap<(&str, &str), Loss> = BTreeMap::new();
    let mut running: HashMap<(&str, Digest), usize> = HashMap::new();
    let mut stays = false;
    for step in steps {
        let namespace = step.device.namespace();
        let before = content(&step.before);
        if before.runs.is_empty() {
            continue;
        }
        *running.entry((namespace, step.before)).or_default() += 1;
        found.running += 1;
        let after = match &step.becomes {
            Becomes::Has(digest) => {
                stays = true;
                content(digest)
            }
            Becomes::Leaves => {
                found.leaving.push(step.device.clone());
                &empty
            }
            Becomes::Left => continue,
        };
        if !step.changes() {
            continue;
        }
        if after.runs.is_empty() && step.becomes != Becomes::Leaves {
            found.emptied.push(step.device.clone());
        }
        found.losing += usize::from(!before.runs.is_subset(&after.runs));
        for workload in before.runs.difference(&after.runs) {
            let loss = taken.entry((namespace, workload)).or_insert_with(|| Loss {
                namespace: namespace.to_owned(),
                workload: workload.clone(),
                devices: Vec::new(),
                of: 0,
                stops: true,
            });
            loss.devices.push(step.device.clone());
            loss.stops &= after.has.contains(workload);
        }
    }
    for ((namespace, digest), count) in running {
        for workload in &content(&digest).runs {
            if let Some(loss) = taken.get_mut(&(namespace, workload.as_str())) {
                loss.of += count;
            }
        }
    }
    found.everyone_leaves = !stays && !found.leaving.is_empty();
    found.workloads = taken.into_values().collect();
    // the workload with the most losses first
    found
        .workloads
        .sort_by_key(|loss| std::cmp::Reverse(loss.devices.len()));
    found
}

/// Whether this is more than the guard allows.
fn exceeds(guard: Guard, lost: usize, of: usize) -> bool {
    let (lost, of) = (lost as u64, of as u64);
    lost >= u64::from(guard.min_devices) && lost * 100 > of * u64::from(guard.share_percent)
}

impl Loss {
    fn words(&self) -> String {
        let verb = if self.stops { "stop" } else { "remove" };
        let from = if self.stops { "on" } else { "from" };
        let (lost, of) = (self.devices.len(), self.of);
        let devices = if of == 1 { "device" } else { "devices" };
        format!("{verb} {} {from} {lost} of {of} {devices}", self.workload)
    }
}

impl Losses {
    /// Why the release is held: `would remove till from 40 of 40 devices (limit 30 %)`; none when it is not.
    pub fn held(&self, guard: Guard) -> Option<String> {
        let mut reasons = Vec::new();
        let beyond: Vec<_> = self
            .workloads
            .iter()
            .filter(|loss| exceeds(guard, loss.devices.len(), loss.of))
            .collect();
        let limit = guard.share_percent;
        if let Some(first) = beyond.first() {
            let more = match beyond.len() - 1 {
                0 => String::new(),
                1 => " and 1 more workload".to_owned(),
                more => format!(" and {more} more workloads"),
            };
            reasons.push(format!("{}{more} (limit {limit} %)", first.words()));
        } else if exceeds(guard, self.losing, self.running) {
            // few devices for each workload or namespace can still be many together
            let (lost, of) = (self.losing, self.running);
            let devices = if of == 1 { "device" } else { "devices" };
            reasons.push(format!(
                "take workloads from {lost} of {of} {devices} (limit {limit} %)"
            ));
        }
        if !self.emptied.is_empty() {
            reasons.push(format!(
                "leave {} without a workload",
                devices(&self.emptied)
            ));
        }
        if self.everyone_leaves {
            reasons.push("leave no device in Git".to_owned());
        }
        (!reasons.is_empty()).then(|| format!("would {}", reasons.join(", and ")))
    }

    /// The removed workloads for people, bounded.
    pub fn removals(&self) -> Vec<Removal> {
        let removal = |loss: &Loss| Removal {
            workload: format!("{}/{}", loss.namespace, loss.workload),
            of: loss.of as u64,
            stops: loss.stops,
            devices: Few::of(&loss.devices),
        };
        self.workloads
            .iter()
            .take(super::details::MOST)
            .map(removal)
            .collect()
    }
}

/// `device shop-1`, or `40 devices`.
fn devices(names: &[DeviceName]) -> String {
    match names {
        [one] => format!("device {one}"),
        many => format!("{} devices", many.len()),
    }
}
