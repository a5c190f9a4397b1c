//! What the follower records for people: releases, commits that did not become one, events.

use std::collections::BTreeSet;

use flotta_bundle::release::Revision;
use flotta_bundle::{DeviceName, code};
use flotta_renderer::{Finding, Severity};
use jiff::Timestamp;

use super::super::details::Details;
use super::super::{CommitErrors, Published};
use super::{Follower, Latest, words};
use crate::server_state::{Failure, Verdict};
use crate::source::Ancestry;
use crate::store::{FleetEvent, NewRelease, StoreError};

/// The store's key for the state of the source.
pub(crate) const SOURCE_STATE: &str = "source";
/// Most errors, and most devices of each, that become events: the first ones show what is wrong.
const HELD_EVENTS: usize = 100;

impl Follower {
    /// Adds the release in the depot to the store, if a server was killed, or could not write, between the two.
    pub(super) async fn catch_up(&self, now: Timestamp) -> Result<(), StoreError> {
        match self.publisher.current() {
            Some(current)
                if self.store.highest_sequence().await? < Some(current.release.sequence) =>
            {
                self.record(current, 0, Details::default(), now).await
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn record(
        &self,
        release: &Published,
        workloads: usize,
        details: Details,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let statement = &release.release;
        let mut message = format!(
            "release {} of commit {}: {} devices",
            statement.sequence,
            statement.revision.short(),
            statement.tree.size
        );
        if !details.allowed_by.is_empty() {
            message = format!(
                "{message}; what it takes away was allowed by {}",
                details.allowed_by
            );
        }
        self.record_leaving(&details, statement.sequence, now)
            .await?;
        self.store
            .add_release(NewRelease {
                sequence: Some(statement.sequence),
                revision: statement.revision.clone(),
                at: statement.issued,
                refused: None,
                devices: statement.tree.size,
                workloads: workloads as u64,
                manifests: release.manifests() as u64,
                details,
            })
            .await?;
        self.event(None, "Released", message, false, now).await
    }

    /// Adds events for devices that left Git, and for those that have nothing to run any more.
    async fn record_leaving(
        &self,
        details: &Details,
        sequence: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for device in &details.let_go.names {
            let message = format!("not in Git; release {sequence} has nothing for it to run");
            self.event(Some(device.clone()), "LetGo", message, true, now)
                .await?;
        }
        for device in &details.leaves_git.names {
            let message = format!(
                "left Git and keeps what it runs; to remove it: flotta decommission {device}"
            );
            self.event(Some(device.clone()), "LeftGit", message, true, now)
                .await?;
        }
        Ok(())
    }

    /// Records that a commit did not become a release, and why. Returns whether that is news.
    pub(super) async fn set_aside(
        &self,
        latest: &Latest,
        why: Aside,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Aside {
            state,
            reason,
            message,
            devices,
            details,
        } = why;
        // after a restart the same commit is refused again, which is not news
        let known = self.server_state.source();
        let newest = self.store.releases(1).await?;
        let known = known.commit == latest.revision.commit
            && known
                .verdict
                .is_some_and(|verdict| verdict.state == state && verdict.message == reason)
            || newest.first().is_some_and(|newest| {
                newest.release.revision.commit == latest.revision.commit
                    && newest.release.refused.as_ref() == Some(&reason)
            });
        self.stand(latest, state, reason.clone(), now).await?;
        if known {
            return Ok(false);
        }
        let event = if details.held { "Held" } else { "Refused" };
        self.event(None, event, message, true, now).await?;
        self.store
            .add_release(NewRelease {
                sequence: None,
                revision: latest.revision.clone(),
                at: now,
                refused: Some(reason),
                devices,
                workloads: 0,
                manifests: 0,
                details,
            })
            .await?;
        Ok(true)
    }

    /// Records what happened with the source's newest commit.
    pub(super) async fn stand(
        &self,
        latest: &Latest,
        state: &str,
        message: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let changed = self.server_state.change(|source| {
            let same = source.commit == latest.revision.commit;
            let since = match &source.verdict {
                Some(before) if same && before.state == state => before.since,
                _ => now,
            };
            source.label.clone_from(&latest.label);
            source.commit.clone_from(&latest.revision.commit);
            source.verdict = Some(Verdict {
                state: state.to_owned(),
                since,
                message,
            });
        });
        if changed {
            self.keep_server_state().await
        } else {
            Ok(())
        }
    }

    /// Records whether the source, or publishing, fails: with an event when that begins and one when it ends.
    pub(super) async fn stand_failure(
        &self,
        failure: Option<(bool, String)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let before = self.server_state.source().failure;
        let after = failure.map(|(source, message)| Failure {
            source,
            since: match &before {
                Some(before) if before.source == source => before.since,
                _ => now,
            },
            message,
        });
        let kind = |failure: &Option<Failure>| failure.as_ref().map(|failure| failure.source);
        if kind(&before) != kind(&after) {
            let (reason, message) = match (&before, &after) {
                (
                    _,
                    Some(Failure {
                        source: true,
                        message,
                        ..
                    }),
                ) => ("SourceUnavailable", message.clone()),
                (_, Some(failure)) => ("PublishFailed", failure.message.clone()),
                (Some(Failure { source: true, .. }), None) => {
                    ("SourceAvailable", "the source can be read again".to_owned())
                }
                _ => ("PublishWorks", "releases can be made again".to_owned()),
            };
            self.event(None, reason, message, after.is_some(), now)
                .await?;
        }
        if self.server_state.change(|source| source.failure = after) {
            self.keep_server_state().await?;
        }
        Ok(())
    }

    async fn keep_server_state(&self) -> Result<(), StoreError> {
        let text = serde_json::to_string(&self.server_state.source());
        self.store
            .set_meta(SOURCE_STATE, text.expect("it has string keys"))
            .await
    }

    /// Adds an event for a branch that was reset or rewritten.
    pub(super) async fn record_ancestry(
        &self,
        message: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.event(None, "HistoryRewritten", message, true, now)
            .await
    }

    /// Adds an event for each device that an error holds back.
    pub(super) async fn record_held(
        &self,
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let errors = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        for finding in errors.take(HELD_EVENTS) {
            let message = words(finding);
            for device in finding.devices().iter().take(HELD_EVENTS) {
                let device = Some(device.clone());
                self.event(device, "HeldBack", message.clone(), true, now)
                    .await?;
            }
        }
        Ok(())
    }

    /// Adds events for new warnings: not again with every release that still has them.
    pub(super) async fn record_warnings(
        &mut self,
        findings: &[Finding],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let warnings = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Warning);
        let warnings: BTreeSet<_> = warnings.take(HELD_EVENTS).map(words).collect();
        for message in warnings.difference(&self.warned) {
            self.event(None, "Warned", message.clone(), true, now)
                .await?;
        }
        self.warned = warnings;
        Ok(())
    }

    async fn event(
        &self,
        device: Option<DeviceName>,
        reason: &str,
        message: String,
        warning: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.store
            .add_event(FleetEvent {
                id: 0,
                time: now,
                device,
                reason: reason.to_owned(),
                message,
                warning,
            })
            .await
    }
}

/// The message for a branch that was reset or rewritten.
pub(super) fn moved(ancestry: Ancestry, before: &str, revision: &Revision) -> String {
    let before: String = before.chars().take(7).collect();
    let now = revision.short();
    match ancestry {
        Ancestry::Ancestor => format!("the source was reset from {before} to {now}"),
        _ => format!("the source's history was rewritten: {now} is not a descendant of {before}"),
    }
}

/// Why a commit did not become a release.
#[derive(Debug)]
pub(super) struct Aside {
    /// `Refused` or `Held`.
    state: &'static str,
    /// The reason in one line.
    reason: String,
    /// The message of the event.
    message: String,
    /// The number of devices in it, if known.
    devices: u64,
    /// All details.
    details: Details,
}

impl Aside {
    /// A commit that is refused for its errors. The event names as many of them as fit.
    pub(super) fn refused(latest: &Latest, refusal: &CommitErrors, notes: Vec<String>) -> Self {
        let all: Vec<_> = refusal.errors.iter().take(HELD_EVENTS).map(words).collect();
        Self {
            state: "Refused",
            reason: refusal.to_string(),
            message: format!(
                "commit {} refused: {}",
                latest.revision.short(),
                all.join("; ")
            ),
            devices: 0,
            details: Details {
                notes,
                ..Details::refused(&refusal.errors)
            },
        }
    }

    /// A commit that is held for what it takes away.
    pub(super) fn held(latest: &Latest, reason: &str, devices: u64, details: Details) -> Self {
        let commit = latest.revision.short();
        Self {
            state: "Held",
            reason: reason.to_owned(),
            message: format!(
                "commit {commit} held: {}: it {reason}; let it through: flotta release allow {commit}",
                code::HELD.id
            ),
            devices,
            details,
        }
    }
}
