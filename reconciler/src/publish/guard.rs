//! What the next release would take away from devices, against the one in force. Pure.
//!
//! A commit that removes a folder is an ordinary mishap, and devices follow it within seconds. So a release that takes a
//! workload from many devices, or everything from one, is held until someone says that it is meant.

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
    /// Those that are to run.
    runs: BTreeSet<String>,
    /// Those that are there at all.
    has: BTreeSet<String>,
}

impl Content {
    /// What a manifest holds.
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

/// What becomes of a device that has joined and is in the release in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It has this manifest next; that may be the one it has.
    Has(Digest),
    /// Git does not have it any more. It keeps what it runs, and whoever commits may not have meant even that.
    Leaves,
    /// It left Git before, and keeps what it runs.
    Left,
}

/// A device, what it has, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The device.
    pub device: &'a DeviceName,
    /// Its manifest in the release in force.
    pub before: Digest,
    /// What becomes of it.
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
    /// How many run something now.
    pub running: usize,
    /// Devices that would have nothing left to run.
    pub emptied: Vec<DeviceName>,
    /// Devices that leave Git.
    pub leaving: Vec<DeviceName>,
    /// Whether every device that runs something leaves Git. The publisher drops this when the commit has other devices: then
    /// it renames them.
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
    /// Whether it stays on all of them and only stops.
    pub stops: bool,
}

/// What the steps come to. `contents` has every manifest that they name; one that is not there counts as empty.
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
    // what goes from most devices first
    found
        .workloads
        .sort_by_key(|loss| std::cmp::Reverse(loss.devices.len()));
    found
}

/// Whether it is more than the guard lets through.
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
    /// Why the release is held: `would remove till from 40 of 40 devices (limit 30 %)`; none when it may go on.
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
            // each of few, in one namespace or another, and of many together
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

    /// The workloads that go, for people: bounded.
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
