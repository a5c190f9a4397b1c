//! The inventory of a release: the devices that joined without an `EdgeDevice` in the commit. A sorted list, which the release
//! names by its digest and the depot keeps as a blob.
//!
//! Absence is never an order: a device that left Git is listed here with the manifest that it keeps, until a person
//! decommissions it.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::{Manifest, SCHEMA, Settings};
use flotta_bundle::{DeviceName, Digest, Leaf};
use flotta_renderer::InventoryDevice;
use serde::{Deserialize, Serialize};

/// A device of the inventory. Unused fields are left out, so that an inventory without them keeps its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub device: DeviceName,
    /// The set that its token or approval put it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Set if it left Git, with what happens to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// What happens to a device that left Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Left {
    /// It keeps this manifest.
    Keeps(Digest),
    /// A person decommissioned it: it has nothing to run.
    Decommissioned,
}

/// The decisions of people about devices that leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Who allowed the commit's removals: devices that leave with it are decommissioned.
    pub allowed_by: Option<String>,
    /// Devices that were decommissioned by name.
    pub decommissioned: BTreeSet<DeviceName>,
}

/// The state of the release in force.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Its leaves.
    pub leaves: &'a BTreeMap<DeviceName, Leaf>,
    /// Its inventory; none when that is not known, and so which devices were in Git is not known either.
    pub inventory: Option<&'a [Entry]>,
}

/// The inventory of the next release: the `joined` devices that are not `declared` in Git, and what happens to each.
pub fn next(
    joined: Vec<InventoryDevice>,
    declared: &BTreeSet<DeviceName>,
    before: Before<'_>,
    decisions: &Decisions,
) -> Vec<Entry> {
    let known: Option<BTreeMap<_, _>> = before.inventory.map(|entries| {
        let pairs = entries.iter().map(|entry| (&entry.device, entry.left));
        pairs.collect()
    });
    let became = |device: &DeviceName| {
        // allowing a commit is about the devices that leave with it, not those that left before
        if let Some(left) = known.as_ref()?.get(device) {
            return *left;
        }
        // it is in the release but not in its inventory, so it was in Git
        let keeps = Left::Keeps(before.leaves.get(device)?.manifest);
        let is_allowed = decisions.allowed_by.is_some();
        Some(if is_allowed {
            Left::Decommissioned
        } else {
            keeps
        })
    };
    let mut entries: Vec<_> = joined
        .into_iter()
        .filter(|joined| !declared.contains(&joined.device))
        .map(|joined| Entry {
            left: if decisions.decommissioned.contains(&joined.device) {
                Some(Left::Decommissioned)
            } else {
                became(&joined.device)
            },
            device: joined.device,
            set: joined.set,
            labels: joined.labels,
        })
        .collect();
    entries.sort_by(|a, b| a.device.cmp(&b.device));
    entries
}

/// The devices that are decommissioned with this inventory, sorted.
pub fn let_go(entries: &[Entry], before: Option<&[Entry]>) -> Vec<DeviceName> {
    let is_gone = |entry: &&Entry| entry.left == Some(Left::Decommissioned);
    let gone = before.unwrap_or_default().iter().filter(is_gone);
    let gone: BTreeSet<_> = gone.map(|entry| &entry.device).collect();
    let going = entries.iter().filter(is_gone).map(|entry| &entry.device);
    going
        .filter(|device| !gone.contains(device))
        .cloned()
        .collect()
}

/// The devices to render; the others keep what they have.
pub fn rendered(entries: &[Entry]) -> Vec<InventoryDevice> {
    let staying = entries.iter().filter(|entry| entry.left.is_none());
    staying
        .map(|entry| InventoryDevice {
            device: entry.device.clone(),
            set: entry.set.clone(),
            labels: entry.labels.clone(),
        })
        .collect()
}

/// Encodes the list for the depot, with its digest; none when it is empty.
pub fn encode(entries: &[Entry]) -> Option<(Digest, Vec<u8>)> {
    if entries.is_empty() {
        return None;
    }
    let bytes = serde_json::to_vec(entries).expect("maps here have string keys");
    Some((Digest::of(&bytes), bytes))
}

/// The manifest of a decommissioned device, with nothing to run. It keeps its settings: the server's addresses, the heartbeat.
pub fn nothing(before: Option<&Manifest>) -> (Digest, Vec<u8>) {
    let manifest = Manifest {
        schema: SCHEMA,
        files: Vec::new(),
        units: Vec::new(),
        images: Vec::new(),
        health: Vec::new(),
        settings: before.map_or_else(Settings::default, |before| before.settings.clone()),
    };
    let bytes = manifest.encode();
    (Digest::of(&bytes), bytes)
}
