//! The inventory of a release: the devices that joined without an `EdgeDevice` in the commit. A sorted list, which the release
//! names by its digest and the depot keeps as a blob.
//!
//! Absence is never an order: a device that was in Git and is not any more stands here with the manifest that it keeps, until
//! someone says that it is to go.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::{Manifest, SCHEMA, Settings};
use flotta_bundle::{DeviceName, Digest, Leaf};
use flotta_renderer::InventoryDevice;
use serde::{Deserialize, Serialize};

/// One device of the inventory. Fields that are not needed are left out, so that an inventory without them has the digest it
/// always had.
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
    /// That it is not in Git any more, and what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// What becomes of a device that left Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Left {
    /// It keeps this manifest.
    Keeps(Digest),
    /// Someone said that it is to go: it has nothing to run.
    Decommissioned,
}

/// What people have said about devices that leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Will {
    /// Who allowed the commit to take away what it does: devices that leave with it go.
    pub allowed_by: Option<String>,
    /// Devices that were decommissioned by name.
    pub decommissioned: BTreeSet<DeviceName>,
}

/// What the release in force knows.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Its leaves.
    pub leaves: &'a BTreeMap<DeviceName, Leaf>,
    /// Its inventory; none when that is not known: then nobody can say who was in Git.
    pub inventory: Option<&'a [Entry]>,
}

/// The inventory of the next release: who of `joined` is not `declared` in Git, and what becomes of each.
pub fn next(
    joined: Vec<InventoryDevice>,
    declared: &BTreeSet<DeviceName>,
    before: Before<'_>,
    will: &Will,
) -> Vec<Entry> {
    let known: Option<BTreeMap<_, _>> = before.inventory.map(|entries| {
        let pairs = entries.iter().map(|entry| (&entry.device, entry.left));
        pairs.collect()
    });
    let became = |device: &DeviceName| {
        // whoever allows a commit speaks of what goes with it, not of those that left before
        if let Some(left) = known.as_ref()?.get(device) {
            return *left;
        }
        // it is in the release, and not of its inventory: it was in Git
        let keeps = Left::Keeps(before.leaves.get(device)?.manifest);
        let is_allowed = will.allowed_by.is_some();
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
            left: if will.decommissioned.contains(&joined.device) {
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

/// The devices that have nothing to run from this inventory on, sorted.
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

/// Those that the renderer is asked about: the others have what they have.
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

/// The list as the depot keeps it, with the digest that a release names it by; none when it is empty.
pub fn encode(entries: &[Entry]) -> Option<(Digest, Vec<u8>)> {
    if entries.is_empty() {
        return None;
    }
    let bytes = serde_json::to_vec(entries).expect("maps here have string keys");
    Some((Digest::of(&bytes), bytes))
}

/// The manifest of a device that has nothing to run any more. It is set as it was: where its server is, how often it reports.
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
