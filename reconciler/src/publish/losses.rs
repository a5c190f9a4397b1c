//! Computes what the next release would take away, from the manifests of both releases.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::{DeviceName, Digest, Manifest};
use flotta_renderer::Rendered;

use super::details::{Details, Few};
use super::guard::{self, Becomes, Content, Losses, Step};
use super::inventory::{Entry, Left};
use super::{PublishError, Publisher};
use crate::depot::DepotError;

impl Publisher {
    /// The losses of devices that have joined.
    pub(super) async fn losses(
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
                // a person decided that
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
        // a commit that has devices, but none of those that run something, renames them
        let none = self
            .declared
            .as_ref()
            .is_none_or(|(_, names)| names.is_empty());
        losses.everyone_leaves &= none;
        Ok(losses)
    }

    /// Caches the content of a manifest.
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
        // an unreadable manifest counts as empty, so that a damaged depot does not hold every release from now on
        let content = parsed.as_ref().map(Content::of).unwrap_or_default();
        self.contents.insert(digest, content);
        Ok(())
    }

    /// Reads a manifest from the depot; none when it is missing or damaged.
    pub(super) async fn manifest(&self, digest: Digest) -> Result<Option<Manifest>, PublishError> {
        let bytes = match self.depot.blob(&digest).await {
            Err(error @ DepotError::Damaged { .. }) => {
                tracing::warn!(%error, "a manifest of the release in force is damaged");
                None
            }
            read => read?,
        };
        Ok(bytes.and_then(|bytes| Manifest::parse(&bytes).ok()))
    }
}

/// The details to store about losses.
pub(super) fn details_of(losses: &Losses) -> Details {
    Details {
        removes: losses.removals(),
        empties: Few::of(&losses.emptied),
        leaves_git: Few::of(&losses.leaving),
        ..Details::default()
    }
}
