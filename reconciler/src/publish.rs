//! From a checkout to the release in force: render, sign, write to the depot. A commit with errors changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotta_bundle::code::{self, Code};
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::{Envelope, EnvelopeError};
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::Role;
use flotta_bundle::tree::Tree as MerkleTree;
use flotta_bundle::{DeviceName, Digest, FleetName, Leaf};
use flotta_renderer::{
    Counts, Finding, InventoryDevice, Options, Rendered, Renderer, Severity, Tree,
};
use jiff::{SignedDuration, Timestamp};

use crate::depot::{Depot, DepotError, Stored};
use crate::index::Described;
use crate::keys::Fleet;

mod follower;
mod notice;
pub mod offline;

pub use follower::{Follower, SOURCE};
pub use notice::Notice;

#[cfg(test)]
mod tests;

/// How long a release is good for. A quarter: longer than a shop is closed, shorter than a forgotten key stays unnoticed.
pub const VALIDITY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// When a release that nothing has followed is signed anew, before it expires: devices have a month to fetch it.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

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
    /// `2 errors (FLT0103 fleet/workloads/web.yaml:14:13, …)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.errors.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} error{plural}")?;
        if let Some(first) = self.errors.first() {
            let more = if count > 1 { ", …" } else { "" };
            write!(f, " ({} {}{more})", first.code.id, first.place)?;
        }
        Ok(())
    }
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
    },
    /// The release in force says the same.
    Unchanged,
    /// The commit has errors; the release before stays in force.
    Refused(Refusal),
}

/// Makes releases, one after the other.
#[derive(Debug)]
pub struct Publisher {
    fleet: Arc<Fleet>,
    depot: Depot,
    options: Options,
    renderer: Renderer,
    floor: u64,
    current: Option<Arc<Published>>,
    /// The devices that a commit declares.
    declared: Option<(String, BTreeSet<DeviceName>)>,
    described: Arc<BTreeMap<DeviceName, Described>>,
}

impl Publisher {
    /// Takes up what the depot holds. `floor` is the highest sequence ever published, as remembered elsewhere: devices that
    /// accepted it take no lower one, whatever became of the depot.
    pub async fn open(
        fleet: Arc<Fleet>,
        depot: Depot,
        options: Options,
        floor: u64,
    ) -> Result<Self, PublishError> {
        let current = in_force(&depot, &fleet.trust_root().release)
            .await?
            .map(Arc::new);
        Ok(Self {
            fleet,
            depot,
            options,
            renderer: Renderer::default(),
            floor,
            current,
            declared: None,
            described: Arc::default(),
        })
    }

    /// The release in force.
    pub fn current(&self) -> Option<&Arc<Published>> {
        self.current.as_ref()
    }

    /// What rendering found out about the devices.
    pub fn described(&self) -> &Arc<BTreeMap<DeviceName, Described>> {
        &self.described
    }

    fn describe(&mut self, rendered: &Rendered) {
        let described = rendered.devices.iter().map(|(name, device)| {
            let described = Described {
                // the renderer has the one that wins last
                sets: device.sets.iter().rev().cloned().collect(),
                labels: device.labels.clone(),
            };
            (name.clone(), described)
        });
        // those that an error holds back are as they were; one that is new in Git is known all the same
        let in_git = |name| matches!(&self.declared, Some((_, names)) if names.contains(name));
        let held = rendered.held.iter().filter_map(|name| {
            let before = self.described.get(name).cloned();
            let new = || in_git(name).then(Described::default);
            Some((name.clone(), before.or_else(new)?))
        });
        self.described = Arc::new(described.chain(held).collect());
    }

    /// Whether the release in force is old enough to be signed anew.
    pub fn renewal_due(&self, now: Timestamp) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.release.expires.duration_since(now) < RENEW_BEFORE)
    }

    /// Renders and publishes. The release is in the depot when this returns; it is for the caller to offer it to devices.
    ///
    /// `inventory` are the devices that joined; those that have an `EdgeDevice` in Git are left out of it. Commit and inventory as in the release in
    /// force make no new one, so that a restart makes nothing new.
    pub async fn publish(
        &mut self,
        tree: Arc<Tree>,
        mut revision: Revision,
        mut inventory: Vec<InventoryDevice>,
        now: Timestamp,
    ) -> Result<Outcome, PublishError> {
        let base = self.declare(&tree, &revision.commit).await?;
        if let Some(refused) = base.as_ref().filter(|base| base.refused()) {
            return Ok(Outcome::Refused(refusal(refused)));
        }
        if let Some((_, declared)) = &self.declared {
            inventory.retain(|joined| !declared.contains(&joined.device));
        }
        inventory.sort_by(|a, b| a.device.cmp(&b.device));
        revision.inventory = inventory_digest(&inventory);
        if let Some(current) = &self.current
            && current.release.revision == revision
            // a depot from a backup: devices that accepted the floor take nothing below it
            && current.release.sequence >= self.floor
            && !self.renewal_due(now)
        {
            // after a restart
            if let Some(base) = base.as_ref().filter(|_| self.described.is_empty()) {
                self.describe(base);
            }
            return Ok(Outcome::Unchanged);
        }
        let rendered = match base {
            Some(base) if inventory.is_empty() => base,
            _ => self.render(tree, inventory).await?,
        };
        if rendered.refused() {
            return Ok(Outcome::Refused(refusal(&rendered)));
        }
        self.describe(&rendered);
        let release = Arc::new(self.next(&rendered, revision, now)?);
        store(&self.depot, &rendered.blobs, &release).await?;
        self.current = Some(Arc::clone(&release));
        Ok(Outcome::Published {
            release,
            counts: rendered.counts,
            findings: rendered.findings,
            held: rendered.held.len(),
        })
    }

    /// Learns which devices the commit itself declares, if that is not known yet: devices that joined under such a name are
    /// no inventory. Returns what it rendered for that.
    async fn declare(
        &mut self,
        tree: &Arc<Tree>,
        commit: &str,
    ) -> Result<Option<Rendered>, PublishError> {
        if matches!(&self.declared, Some((known, _)) if known == commit) {
            return Ok(None);
        }
        let base = self.render(Arc::clone(tree), Vec::new()).await?;
        let declared = base.devices.keys().chain(&base.held).cloned().collect();
        self.declared = Some((commit.to_owned(), declared));
        Ok(Some(base))
    }

    async fn render(
        &mut self,
        tree: Arc<Tree>,
        inventory: Vec<InventoryDevice>,
    ) -> Result<Rendered, PublishError> {
        let options = self.options;
        // one that does not come to its end takes with it what it remembers, and the next begins anew
        let mut renderer = std::mem::take(&mut self.renderer);
        let round = tokio::task::spawn_blocking(move || {
            let out = renderer.render(&tree, &inventory, &options);
            (out, renderer)
        });
        let (out, renderer) = round
            .await
            .map_err(|error| PublishError::Render(error.to_string()))?;
        self.renderer = renderer;
        Ok(out)
    }

    fn next(
        &self,
        rendered: &Rendered,
        revision: Revision,
        now: Timestamp,
    ) -> Result<Published, PublishError> {
        let key = self.fleet.release_key().ok_or(PublishError::NoKey)?;
        let none = BTreeMap::new();
        let (last, previous) = match &self.current {
            Some(current) => (current.release.sequence, &current.leaves),
            None => (0, &none),
        };
        let sequence = last.max(self.floor) + 1;
        let leaves = flotta_renderer::leaves(rendered, previous);
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

/// The digest that `revision` names the inventory by; none when there is none.
fn inventory_digest(inventory: &[InventoryDevice]) -> Option<Digest> {
    if inventory.is_empty() {
        return None;
    }
    let bytes = serde_json::to_vec(inventory).expect("maps here have string keys");
    Some(Digest::of(&bytes))
}
