//! From a checkout to the release in force: render, sign, write to the depot. A commit with errors changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotta_bundle::code::{self, Code};
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::{Envelope, EnvelopeError};
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::Role;
use flotta_bundle::tree::Tree as MerkleTree;
use flotta_bundle::{DeviceName, Digest, FleetName, Leaf, Manifest};
use flotta_renderer::{
    Counts, Finding, Input, InventoryDevice, Options, Rendered, Severity, render,
};
use jiff::{SignedDuration, Timestamp};

use crate::clock::{InDoubt, SKEW};
use crate::depot::{Depot, DepotError, Stored};
use crate::index::Described;
use crate::keys::Fleet;
use crate::source::refuses;

pub mod details;
mod follower;
pub mod guard;
pub mod inventory;
mod notice;
pub mod offline;

use details::{Details, Few};
pub(crate) use follower::STANDING;
pub use follower::{Follower, SOURCE};
use guard::{Becomes, Content, Losses, Step};
use inventory::{Before, Entry, Left, Will};
pub use notice::Notice;

#[cfg(test)]
mod tests;

/// How long a release is good for. A quarter: longer than a shop is closed, shorter than a forgotten key stays unnoticed.
pub const VALIDITY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// When a release that nothing has followed is signed anew, before it expires: devices have a month to fetch it.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Most errors of a refused commit that a line names by their place; all of them are in the release's details.
const NAMED: usize = 5;

/// A release with its leaves: what the next one follows, and what devices are offered.
#[derive(Debug, Clone)]
pub struct Published {
    /// The statement.
    pub release: Release,
    /// Its signed form.
    pub envelope: Envelope,
    /// Its leaves, by device; their order is that of the tree.
    pub leaves: BTreeMap<DeviceName, Leaf>,
}

impl Published {
    /// Signs the release over `leaves`.
    pub fn sign(
        fleet: &FleetName,
        key: &SigningKey,
        sequence: u64,
        revision: Revision,
        leaves: BTreeMap<DeviceName, Leaf>,
        now: Timestamp,
    ) -> Self {
        let tree = MerkleTree::new(leaves.values().map(Leaf::encode));
        let release = Release {
            schema: release::SCHEMA,
            fleet: fleet.clone(),
            sequence,
            revision,
            issued: now,
            expires: now.saturating_add(VALIDITY).unwrap_or(Timestamp::MAX),
            tree: tree.head(),
        };
        let envelope = Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[key]);
        Self {
            release,
            envelope,
            leaves,
        }
    }

    /// Reads a release back from the depot: signed as `role` asks, and over these leaves.
    pub fn open(stored: &Stored, role: &Role) -> Result<Self, OpenError> {
        let payload = stored
            .envelope
            .verify(release::PAYLOAD_TYPE, &role.keys, role.threshold)
            .map_err(OpenError::Signature)?;
        let release = Release::parse(&payload).map_err(OpenError::Malformed)?;
        let tree = MerkleTree::new(stored.leaves.iter().map(|leaf| leaf.clone().into_bytes()));
        if tree.head() != release.tree {
            return Err(OpenError::Leaves);
        }
        let leaves = stored
            .leaves
            .iter()
            .map(|text| Leaf::parse(text.as_bytes()).map(|leaf| (leaf.device.clone(), leaf)))
            .collect::<Result<_, _>>()
            .map_err(OpenError::Malformed)?;
        Ok(Self {
            release,
            envelope: stored.envelope.clone(),
            leaves,
        })
    }

    /// As the depot holds it.
    pub fn stored(&self) -> Stored {
        let text = |leaf: &Leaf| String::from_utf8(leaf.encode()).expect("JSON is UTF-8");
        Stored {
            envelope: self.envelope.clone(),
            leaves: self.leaves.values().map(text).collect(),
        }
    }

    /// How many manifests its devices share.
    pub fn manifests(&self) -> usize {
        let digests: BTreeSet<_> = self.leaves.values().map(|leaf| leaf.manifest).collect();
        digests.len()
    }
}

/// Why a release in the depot is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not signed by the fleet's key.
    #[error("the release in the depot is not signed by this fleet's keys")]
    Signature(#[source] EnvelopeError),
    /// Signed, but not readable.
    #[error("the release in the depot cannot be read: {0}")]
    Malformed(String),
    /// The leaves are not those it was signed over.
    #[error("the leaves in the depot are not those of their release")]
    Leaves,
}

/// Why nothing was published, although the commit may be good.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The depot failed.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The depot holds what this fleet did not write.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The release key was taken away.
    #[error("there is no release key in the data directory: releases are signed elsewhere")]
    NoKey,
    /// Nothing is signed with a time that is likely wrong.
    #[error(transparent)]
    Clock(#[from] InDoubt),
    /// Rendering did not come to an end.
    #[error("rendering failed: {0}")]
    Render(String),
}

impl PublishError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Depot(error) => error.code(),
            Self::Open(_) => code::DEPOT,
            Self::NoKey => code::KEYS,
            Self::Clock(doubt) => doubt.code(),
            Self::Render(_) => code::REFUSED_COMMIT,
        }
    }
}

/// A commit that was not published.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its errors, in the order of files.
    pub errors: Vec<Finding>,
}

impl std::fmt::Display for Refusal {
    /// `2 errors (FLT0103 fleet/workloads/web.yaml:14:13, FLT0101 fleet/devices.yaml:3:1)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.errors.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} error{plural}")?;
        for (error, n) in self.errors.iter().take(NAMED).zip(0..) {
            let before = if n == 0 { " (" } else { ", " };
            write!(f, "{before}{} {}", error.code.id, error.place)?;
        }
        match count {
            0 => Ok(()),
            1..=NAMED => f.write_str(")"),
            more => write!(f, ", and {} more)", more - NAMED),
        }
    }
}

/// A commit that is good and was not published, for what it takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// `would remove till from 40 of 40 devices (limit 30 %)`.
    pub reason: String,
    /// What goes, by name.
    pub details: Details,
    /// What was rendered.
    pub counts: Counts,
}

/// What became of a checkout.
#[derive(Debug)]
pub enum Outcome {
    /// A new release is in the depot.
    Published {
        /// It.
        release: Arc<Published>,
        /// What was rendered.
        counts: Counts,
        /// Errors that hold single devices back, and warnings.
        findings: Vec<Finding>,
        /// How many devices keep what they have, because of errors that concern them alone.
        held: usize,
        /// What it takes away, for people.
        details: Box<Details>,
    },
    /// The release in force says the same.
    Unchanged,
    /// The commit has errors; the release before stays in force.
    Refused(Refusal),
    /// The commit removes more than the fleet's limits allow; the release before stays in force.
    Held(Box<Holding>),
}

/// Makes releases, one after the other.
#[derive(Debug)]
pub struct Publisher {
    fleet: Arc<Fleet>,
    depot: Depot,
    options: Options,
    /// The lowest number that the release in force may have: devices take none below it.
    least: u64,
    current: Option<Arc<Published>>,
    /// The devices that a commit declares.
    declared: Option<(String, BTreeSet<DeviceName>)>,
    /// The inventory of the release in force; none when the depot does not have it.
    inventory: Option<Vec<Entry>>,
    /// What manifests of the release in force hold, as far as it was asked.
    contents: BTreeMap<Digest, Content>,
    described: Arc<BTreeMap<DeviceName, Described>>,
}

impl Publisher {
    /// Takes up what the depot holds. `floor` is the highest sequence ever published, as remembered elsewhere: devices that
    /// accepted it take no lower one, and no other release of that number, whatever became of the depot.
    pub async fn open(
        fleet: Arc<Fleet>,
        depot: Depot,
        options: Options,
        floor: u64,
    ) -> Result<Self, PublishError> {
        let current = in_force(&depot, &fleet.trust_root().release)
            .await?
            .map(Arc::new);
        let inventory = match &current {
            Some(current) => known_inventory(&depot, &current.release.revision).await?,
            None => None,
        };
        let last = current.as_ref().map_or(0, |last| last.release.sequence);
        if let Some(current) = &current {
            fleet.clock().signed(current.release.issued);
        }
        Ok(Self {
            fleet,
            depot,
            options,
            least: if last < floor { floor + 1 } else { 0 },
            current,
            declared: None,
            inventory,
            contents: BTreeMap::new(),
            described: Arc::default(),
        })
    }

    /// The release in force.
    pub fn current(&self) -> Option<&Arc<Published>> {
        self.current.as_ref()
    }

    /// Devices have accepted what this server does not know of: from now on the release in force has at least this number.
    /// Says whether that asks for a new one.
    pub fn raise(&mut self, least: u64) -> bool {
        self.least = self.least.max(least);
        self.current
            .as_ref()
            .is_some_and(|current| current.release.sequence < self.least)
    }

    /// What rendering found out about the devices.
    pub fn described(&self) -> &Arc<BTreeMap<DeviceName, Described>> {
        &self.described
    }

    fn describe(&mut self, rendered: &Rendered, entries: &[Entry]) {
        let in_git = |name| matches!(&self.declared, Some((_, names)) if names.contains(name));
        let described = rendered.devices.iter().map(|(name, device)| {
            let described = Described {
                // the renderer has the one that wins last
                sets: device.sets.iter().rev().cloned().collect(),
                labels: device.labels.clone(),
                in_git: in_git(name),
                left: None,
            };
            (name.clone(), described)
        });
        let left = entries.iter().filter_map(|entry| {
            let described = Described {
                labels: entry.labels.clone(),
                left: Some(entry.left?),
                ..Described::default()
            };
            Some((entry.device.clone(), described))
        });
        // those that an error holds back are as they were; one that is new in Git is known all the same
        let held = rendered.held.iter().filter_map(|name| {
            let before = self.described.get(name).cloned();
            let new = || {
                in_git(name).then(|| Described {
                    in_git: true,
                    ..Described::default()
                })
            };
            Some((name.clone(), before.or_else(new)?))
        });
        self.described = Arc::new(described.chain(held).chain(left).collect());
    }

    /// Whether the release in force is old enough to be signed anew, or was signed by a clock that was ahead.
    pub fn renewal_due(&self, now: Timestamp) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let Release {
                issued, expires, ..
            } = current.release;
            expires.duration_since(now) < RENEW_BEFORE || issued.duration_since(now) > SKEW
        })
    }

    /// Renders and publishes. The release is in the depot when this returns; it is for the caller to offer it to devices.
    ///
    /// `joined` are the devices that have joined; those that have no `EdgeDevice` in Git are the inventory. Commit and
    /// inventory as in the release in force make no new one, so that a restart makes nothing new.
    pub async fn publish(
        &mut self,
        input: Arc<Input>,
        mut revision: Revision,
        joined: Vec<InventoryDevice>,
        will: &Will,
        now: Timestamp,
    ) -> Result<Outcome, PublishError> {
        let base = self.declare(&input, &revision.commit).await?;
        if let Some(refused) = base.as_ref().filter(|base| refuses(base)) {
            return Ok(Outcome::Refused(refusal(refused)));
        }
        let members: BTreeSet<_> = joined.iter().map(|joined| joined.device.clone()).collect();
        let entries = self.entries(joined, will);
        let list = inventory::encode(&entries);
        revision.inventory = list.as_ref().map(|(digest, _)| *digest);
        if let Some(current) = &self.current
            && current.release.revision == revision
            // a depot from a backup: devices that accepted more take nothing below it
            && current.release.sequence >= self.least
            // what says the same waits for a clock that is right
            && (!self.renewal_due(now) || self.fleet.clock().check().is_err())
        {
            // after a restart
            if let Some(base) = base.as_ref().filter(|_| self.described.is_empty()) {
                self.describe(base, &entries);
            }
            if self.inventory.is_none() {
                // a release of a version that did not keep it
                if let Some(list) = list {
                    self.depot.put_blobs(&BTreeMap::from([list])).await?;
                }
                self.inventory = Some(entries);
            }
            return Ok(Outcome::Unchanged);
        }
        self.fleet.clock().check()?;
        let asked = inventory::rendered(&entries);
        let mut rendered = match base {
            Some(base) if asked.is_empty() => base,
            _ => self.render(input, asked).await?,
        };
        if refuses(&rendered) {
            return Ok(Outcome::Refused(refusal(&rendered)));
        }
        let losses = self.losses(&rendered, &entries, &members).await?;
        let mut details = details_of(&losses);
        details.let_go = Few::of(&inventory::let_go(&entries, self.inventory.as_deref()));
        if let Some(allowed_by) = &will.allowed_by {
            details.allowed_by.clone_from(allowed_by);
        } else if let Some(reason) = losses.held(rendered.guard) {
            details.held = true;
            return Ok(Outcome::Held(Box::new(Holding {
                reason,
                details,
                counts: rendered.counts,
            })));
        }
        let left = self.left(&entries, &mut rendered.blobs).await?;
        let release = Arc::new(self.next(&rendered, left, revision, now)?);
        rendered.blobs.extend(list);
        store(&self.depot, &rendered.blobs, &release).await?;
        // only now: what could not be stored is not in force, and is judged again against what is
        self.describe(&rendered, &entries);
        self.inventory = Some(entries);
        let in_force: BTreeSet<_> = release.leaves.values().map(|leaf| leaf.manifest).collect();
        self.contents.retain(|digest, _| in_force.contains(digest));
        self.fleet.clock().signed(release.release.issued);
        self.current = Some(Arc::clone(&release));
        Ok(Outcome::Published {
            release,
            counts: rendered.counts,
            findings: rendered.findings,
            held: rendered.held.len(),
            details: Box::new(details),
        })
    }

    /// The inventory of the next release.
    fn entries(&self, joined: Vec<InventoryDevice>, will: &Will) -> Vec<Entry> {
        let none = BTreeMap::new();
        let before = Before {
            leaves: self
                .current
                .as_ref()
                .map_or(&none, |current| &current.leaves),
            inventory: self.inventory.as_deref(),
        };
        let nobody = BTreeSet::new();
        let declared = self.declared.as_ref().map_or(&nobody, |(_, names)| names);
        inventory::next(joined, declared, before, will)
    }

    /// What the release would take away from devices that have joined.
    async fn losses(
        &mut self,
        rendered: &Rendered,
        entries: &[Entry],
        members: &BTreeSet<DeviceName>,
    ) -> Result<Losses, PublishError> {
        let Some(current) = self.current.clone() else {
            return Ok(Losses::default());
        };
        let left: BTreeMap<_, _> = entries
            .iter()
            .filter_map(|entry| Some((&entry.device, entry.left?)))
            .collect();
        let gone_before: BTreeSet<_> = self
            .inventory
            .iter()
            .flatten()
            .filter(|entry| entry.left.is_some())
            .map(|entry| &entry.device)
            .collect();
        let mut steps = Vec::new();
        for (device, leaf) in &current.leaves {
            if !members.contains(device) {
                continue;
            }
            let becomes = match (rendered.devices.get(device), left.get(device)) {
                (Some(found), _) => Becomes::Has(found.manifest),
                (None, Some(Left::Keeps(_))) if gone_before.contains(device) => Becomes::Left,
                (None, Some(Left::Keeps(_))) => Becomes::Leaves,
                // someone said so
                (None, Some(Left::Decommissioned)) => continue,
                _ => Becomes::Has(leaf.manifest),
            };
            steps.push(Step {
                device,
                before: leaf.manifest,
                becomes,
            });
        }
        if !steps.iter().any(Step::changes) {
            return Ok(Losses::default());
        }
        let digests = steps.iter().flat_map(|step| match step.becomes {
            Becomes::Has(after) => [step.before, after],
            Becomes::Leaves | Becomes::Left => [step.before, step.before],
        });
        for digest in digests.collect::<BTreeSet<_>>() {
            self.learn(digest, &rendered.blobs).await?;
        }
        let mut losses = guard::losses(&steps, &self.contents);
        // a commit that has devices, and none of those that run something, gives them other names
        let none = self
            .declared
            .as_ref()
            .is_none_or(|(_, names)| names.is_empty());
        losses.everyone_leaves &= none;
        Ok(losses)
    }

    /// Learns what a manifest holds.
    async fn learn(
        &mut self,
        digest: Digest,
        blobs: &BTreeMap<Digest, Vec<u8>>,
    ) -> Result<(), PublishError> {
        if self.contents.contains_key(&digest) {
            return Ok(());
        }
        let parsed = match blobs.get(&digest) {
            Some(bytes) => Manifest::parse(bytes).ok(),
            None => self.manifest(digest).await?,
        };
        // what cannot be read is as good as empty: a damaged depot must not hold every release from now on
        let content = parsed.as_ref().map(Content::of).unwrap_or_default();
        self.contents.insert(digest, content);
        Ok(())
    }

    /// A manifest of the depot; none when it is not there, or damaged.
    async fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, PublishError> {
        let bytes = match self.depot.blob(&digest).await {
            Err(error @ DepotError::Damaged { .. }) => {
                tracing::warn!(%error, "a manifest of the release in force is damaged");
                None
            }
            read => read?,
        };
        Ok(bytes.and_then(|bytes| Manifest::parse(&bytes).ok()))
    }

    /// The leaves of devices that are not in Git any more: they keep theirs, or have nothing to run.
    async fn left(
        &self,
        entries: &[Entry],
        blobs: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Result<Vec<Leaf>, PublishError> {
        let mut leaves = Vec::new();
        for entry in entries {
            let leaf = self
                .current
                .as_ref()
                .and_then(|current| current.leaves.get(&entry.device));
            let manifest = match entry.left {
                None => continue,
                Some(Left::Keeps(manifest)) => manifest,
                Some(Left::Decommissioned) => {
                    let before = match leaf {
                        Some(leaf) => self.manifest(leaf.manifest).await?,
                        None => None,
                    };
                    let (digest, bytes) = inventory::nothing(before.as_ref());
                    blobs.insert(digest, bytes);
                    digest
                }
            };
            leaves.push(Leaf::following(entry.device.clone(), manifest, leaf));
        }
        Ok(leaves)
    }

    /// Learns which devices the commit itself declares, if that is not known yet: devices that joined under such a name are
    /// no inventory. Returns what it rendered for that.
    async fn declare(
        &mut self,
        input: &Arc<Input>,
        commit: &str,
    ) -> Result<Option<Rendered>, PublishError> {
        if matches!(&self.declared, Some((known, _)) if known == commit) {
            return Ok(None);
        }
        let base = self.render(Arc::clone(input), Vec::new()).await?;
        let declared = base.devices.keys().chain(&base.held).cloned().collect();
        self.declared = Some((commit.to_owned(), declared));
        Ok(Some(base))
    }

    async fn render(
        &self,
        input: Arc<Input>,
        inventory: Vec<InventoryDevice>,
    ) -> Result<Rendered, PublishError> {
        let options = self.options;
        tokio::task::spawn_blocking(move || render(&input, &inventory, &options))
            .await
            .map_err(|error| PublishError::Render(error.to_string()))
    }

    fn next(
        &self,
        rendered: &Rendered,
        left: Vec<Leaf>,
        revision: Revision,
        now: Timestamp,
    ) -> Result<Published, PublishError> {
        let key = self.fleet.release_key().ok_or(PublishError::NoKey)?;
        let none = BTreeMap::new();
        let (last, previous) = match &self.current {
            Some(current) => (current.release.sequence, &current.leaves),
            None => (0, &none),
        };
        let sequence = self.least.max(last + 1);
        let mut leaves = flotta_renderer::leaves(rendered, previous);
        leaves.extend(left.into_iter().map(|leaf| (leaf.device.clone(), leaf)));
        let fleet = self.fleet.name();
        Ok(Published::sign(
            fleet, &key, sequence, revision, leaves, now,
        ))
    }
}

/// The release that the depot's head names; none in a new depot.
async fn in_force(depot: &Depot, role: &Role) -> Result<Option<Published>, PublishError> {
    let Some(head) = depot.head().await? else {
        return Ok(None);
    };
    let Some(stored) = depot.release(head.sequence).await? else {
        return Err(OpenError::Malformed(format!("release {} is missing", head.sequence)).into());
    };
    Ok(Some(Published::open(&stored, role)?))
}

/// Writes a release: what it leads to first, the head last.
async fn store(
    depot: &Depot,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    release: &Published,
) -> Result<(), DepotError> {
    let sequence = release.release.sequence;
    depot.put_blobs(blobs).await?;
    depot.put_release(sequence, &release.stored()).await?;
    depot.put_head(sequence).await
}

fn refusal(rendered: &Rendered) -> Refusal {
    let errors = rendered
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    Refusal {
        errors: errors.cloned().collect(),
    }
}

/// What a release takes away, as it is remembered.
fn details_of(losses: &Losses) -> Details {
    Details {
        removes: losses.removals(),
        empties: Few::of(&losses.emptied),
        leaves_git: Few::of(&losses.leaving),
        ..Details::default()
    }
}

/// The inventory that a release names; none when the depot does not have it, or not as it was.
async fn known_inventory(
    depot: &Depot,
    revision: &Revision,
) -> Result<Option<Vec<Entry>>, PublishError> {
    let Some(digest) = revision.inventory else {
        return Ok(Some(Vec::new()));
    };
    let bytes = match depot.blob(&digest).await {
        Err(DepotError::Damaged { .. }) => None,
        read => read?,
    };
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
