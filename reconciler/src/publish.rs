//! Publishes releases: renders a checkout, signs the release and writes it to the depot. A commit with errors changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotta_bundle::release::{Release, Revision};
use flotta_bundle::{DeviceName, Digest, Leaf};
use flotta_renderer::{Input, InventoryDevice, Options, Rendered, render};
use jiff::{SignedDuration, Timestamp};

use crate::clock::SKEW;
use crate::depot::{Depot, DepotError};
use crate::index::Described;
use crate::keys::Fleet;
use crate::source::refuses;

pub mod details;
mod follower;
pub mod guard;
pub mod inventory;
mod losses;
mod notice;
pub mod offline;
mod outcome;
mod published;

use details::Few;
pub(crate) use follower::SOURCE_STATE;
pub use follower::{Follower, SOURCE};
use guard::Content;
use inventory::{Before, Decisions, Entry, Left};
use losses::details_of;
pub use notice::Notice;
use outcome::errors_of;
pub use outcome::{CommitErrors, Holding, Outcome, PublishError};
pub use published::{OpenError, Published, VALIDITY};
use published::{in_force, store};

#[cfg(test)]
mod tests;

/// How long before its expiry a release without a successor is renewed: devices have a month to fetch the new one.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Publishes releases, one after the other.
#[derive(Debug)]
pub struct Publisher {
    fleet: Arc<Fleet>,
    depot: Depot,
    options: Options,
    /// The lowest sequence for the release in force: devices accept none below it.
    least: u64,
    current: Option<Arc<Published>>,
    /// The devices that a commit declares.
    declared: Option<(String, BTreeSet<DeviceName>)>,
    /// The inventory of the release in force; none when the depot does not have it.
    inventory: Option<Vec<Entry>>,
    /// The contents of manifests of the release in force, as far as they were needed.
    contents: BTreeMap<Digest, Content>,
    described: Arc<BTreeMap<DeviceName, Described>>,
}

impl Publisher {
    /// Loads the state of the depot. `floor` is the highest sequence ever published, from the store: devices that accepted it
    /// take no lower one, and no other release with that sequence, whatever happened to the depot.
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

    /// Raises the lowest sequence, because devices have accepted a release that this server does not know. Returns whether a new
    /// release is needed.
    pub fn raise(&mut self, least: u64) -> bool {
        self.least = self.least.max(least);
        self.current
            .as_ref()
            .is_some_and(|current| current.release.sequence < self.least)
    }

    /// What rendering found about the devices.
    pub fn described(&self) -> &Arc<BTreeMap<DeviceName, Described>> {
        &self.described
    }

    fn describe(&mut self, rendered: &Rendered, entries: &[Entry]) {
        let in_git = |name| matches!(&self.declared, Some((_, names)) if names.contains(name));
        let described = rendered.devices.iter().map(|(name, device)| {
            let described = Described {
                // the renderer lists the set that wins last
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
        // devices that an error holds back keep their description; one that is new in Git gets an empty one
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

    /// Whether the release in force is due for renewal by its age, or was signed by a clock that was ahead.
    pub fn renewal_due(&self, now: Timestamp) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let Release {
                issued, expires, ..
            } = current.release;
            expires.duration_since(now) < RENEW_BEFORE || issued.duration_since(now) > SKEW
        })
    }

    /// Renders and publishes a checkout. The release is in the depot when this returns; the caller offers it to devices.
    ///
    /// `joined` are the devices that have joined; those without an `EdgeDevice` in Git are the inventory. The same commit and
    /// inventory as in the release in force make no new release, so that a restart changes nothing.
    pub async fn publish(
        &mut self,
        input: Arc<Input>,
        mut revision: Revision,
        joined: Vec<InventoryDevice>,
        decisions: &Decisions,
        now: Timestamp,
    ) -> Result<Outcome, PublishError> {
        let base = self.declare(&input, &revision.commit).await?;
        if let Some(refused) = base.as_ref().filter(|base| refuses(base)) {
            return Ok(Outcome::Refused(errors_of(refused)));
        }
        let members: BTreeSet<_> = joined.iter().map(|joined| joined.device.clone()).collect();
        let entries = self.entries(joined, decisions);
        let list = inventory::encode(&entries);
        revision.inventory = list.as_ref().map(|(digest, _)| *digest);
        if let Some(current) = &self.current
            && current.release.revision == revision
            // with a depot from a backup, devices that accepted a later release take nothing below it
            && current.release.sequence >= self.least
            // an unchanged release is only renewed by a clock that is right
            && (!self.renewal_due(now) || self.fleet.clock().check().is_err())
        {
            // after a restart
            if let Some(base) = base.as_ref().filter(|_| self.described.is_empty()) {
                self.describe(base, &entries);
            }
            if self.inventory.is_none() {
                // an earlier version did not store the inventory
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
            return Ok(Outcome::Refused(errors_of(&rendered)));
        }
        let losses = self.losses(&rendered, &entries, &members).await?;
        let mut details = details_of(&losses);
        details.let_go = Few::of(&inventory::let_go(&entries, self.inventory.as_deref()));
        if let Some(allowed_by) = &decisions.allowed_by {
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
        // only now, because a release that could not be stored is not in force
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

    /// Computes the inventory of the next release.
    fn entries(&self, joined: Vec<InventoryDevice>, decisions: &Decisions) -> Vec<Entry> {
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
        inventory::next(joined, declared, before, decisions)
    }

    /// The leaves of devices that left Git: they keep their manifest, or have nothing to run.
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

    /// Determines which devices the commit itself declares, if that is not known yet: devices that joined under such a name are
    /// not in the inventory. Returns what was rendered for that.
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

/// Reads the inventory that a release names; none when the depot does not have it, or it is damaged.
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
