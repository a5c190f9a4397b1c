//! Commits that are set aside: refused for their errors, or held for what they take away.

use std::collections::BTreeSet;

use flotta_bundle::DeviceName;
use flotta_bundle::release::Revision;
use flotta_renderer::InventoryDevice;
use jiff::Timestamp;

use super::record::Aside;
use super::{Follower, Latest, RoundError};
use crate::publish::inventory::Decisions;
use crate::publish::{CommitErrors, Holding, Notice};

/// A commit that was refused or held. It is not rendered again, unless it is held and someone allows it, or the devices that it
/// was held for have changed.
#[derive(Debug)]
pub(super) struct SetAside {
    pub(super) revision: Revision,
    /// The devices that it was held for; none when it was refused.
    pub(super) held: Option<Members>,
}

/// The devices that have joined, and those that were decommissioned.
pub(super) type Members = (BTreeSet<DeviceName>, BTreeSet<DeviceName>);

pub(super) fn members(joined: &[InventoryDevice], decisions: &Decisions) -> Members {
    let joined = joined.iter().map(|joined| joined.device.clone());
    (joined.collect(), decisions.decommissioned.clone())
}

impl Follower {
    /// Sets a commit aside for its errors.
    pub(super) async fn refuse(
        &mut self,
        latest: &Latest,
        refusal: &CommitErrors,
        now: Timestamp,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<(), RoundError> {
        let aside = Aside::refused(latest, refusal, latest.notes.clone());
        self.set_aside(latest, aside, now).await?;
        say(&Notice::Refused {
            label: latest.label.clone(),
            refusal: refusal.to_string(),
            in_force: self.sequence(),
        });
        self.aside = Some(SetAside {
            revision: latest.revision.clone(),
            held: None,
        });
        Ok(())
    }

    /// Holds a commit that takes too much away from these devices.
    pub(super) async fn hold(
        &mut self,
        latest: &Latest,
        holding: Holding,
        from: Members,
        now: Timestamp,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<(), RoundError> {
        let mut details = holding.details;
        details.notes.clone_from(&latest.notes);
        let devices = holding.counts.devices as u64;
        let aside = Aside::held(latest, &holding.reason, devices, details);
        let is_news = self.set_aside(latest, aside, now).await?;
        let revision = &latest.revision;
        let was = self.aside.as_ref().map(|aside| &aside.revision);
        if is_news || was != Some(revision) {
            say(&Notice::Held {
                label: latest.label.clone(),
                counts: holding.counts,
                reason: holding.reason,
                commit: revision.short().to_owned(),
            });
        }
        self.aside = Some(SetAside {
            revision: revision.clone(),
            held: Some(from),
        });
        Ok(())
    }
}
