//! Keeps the release in force up with its source: looks, renders, publishes, and starts over.
//!
//! Level-triggered: every round reads source and inventory anew and brings the release up with both, whatever woke it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotta_bundle::DeviceName;
use flotta_bundle::release::Revision;
use flotta_renderer::{Finding, Severity, Tree};
use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{Notify, watch};

use super::{Notice, Outcome, PublishError, Published, Publisher, Refusal};
use crate::failures::chain;
use crate::index::{Current, Index};
use crate::source::{Checkout, Source};
use crate::store::{FleetEvent, NewRelease, Store, StoreError};

/// How long to wait for more when a device joins: a pallet of machines switched on together makes one release.
const SETTLE: Duration = Duration::from_millis(250);

/// Most errors, and most devices of each, that become events: what is wrong shows in the first ones.
const HELD_EVENTS: usize = 100;

#[cfg(test)]
mod tests;

/// How a failure to follow the source is called.
pub const SOURCE: &str = "following the source";

/// What the source held.
#[derive(Debug, Clone)]
struct Latest {
    tree: Arc<Tree>,
    revision: Revision,
    label: String,
}

/// Why a round did not come to its end; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows one source.
#[derive(Debug)]
pub struct Follower {
    source: Source,
    publisher: Publisher,
    store: Store,
    index: Arc<Index>,
    /// What it held last.
    latest: Option<Latest>,
    /// What it held when it last had no errors: who joins while a newer commit is refused gets that.
    good: Option<Latest>,
    /// The commit that was refused last: it is not rendered again.
    refused: Option<Revision>,
    /// The warnings of the last release: said once.
    warned: BTreeSet<String>,
    /// Whether it was said that the release in force is the source's.
    greeted: bool,
}

impl Follower {
    /// Takes up the release that is in the depot: devices are offered it before the source is looked at.
    pub fn new(source: Source, publisher: Publisher, store: Store, index: Arc<Index>) -> Self {
        if let Some(current) = publisher.current() {
            index.publish(offer(current));
        }
        Self {
            source,
            publisher,
            store,
            index,
            latest: None,
            good: None,
            refused: None,
            warned: BTreeSet::new(),
            greeted: false,
        }
    }

    /// Follows until `stop` is true. A round that writes is not broken off.
    pub async fn run(
        mut self,
        interval: Duration,
        wake: Arc<Notify>,
        mut stop: watch::Receiver<bool>,
        say: impl Fn(&Notice) + Send + Sync,
    ) {
        let mut inventory = self.store.inventory_changes();
        loop {
            inventory.mark_unchanged();
            let polled = tokio::select! {
                // a fetch that is broken off ends its child and leaves the mirror usable
                () = stopped(&mut stop) => return,
                polled = self.source.poll() => polled,
            };
            let (checkout, unavailable) = match polled {
                Ok(checkout) => (checkout, Ok(())),
                Err(error) => (None, Err(error.into())),
            };
            // who joins, and a release that ends, do not wait for a source that cannot be reached
            let done = self.round(checkout, &say).await.and(unavailable);
            self.settle(done, &say);
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(jittered(interval)) => {}
                () = wake.notified() => {}
                _ = inventory.changed() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// Brings the release up with the source and the inventory.
    async fn round(
        &mut self,
        checkout: Option<Checkout>,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<(), RoundError> {
        if let Some(checkout) = checkout {
            self.latest = Some(Latest {
                label: checkout.label(),
                tree: Arc::new(checkout.tree),
                revision: checkout.revision,
            });
        }
        let accepted = |latest: &&Latest| self.refused.as_ref() != Some(&latest.revision);
        let latest = self.latest.as_ref().filter(accepted);
        let Some(latest) = latest.or(self.good.as_ref()).cloned() else {
            return Ok(());
        };
        let inventory = self.store.inventory().await?;
        let (started, now) = (Instant::now(), Timestamp::now());
        let (label, tree) = (latest.label.clone(), Arc::clone(&latest.tree));
        let revision = latest.revision.clone();
        let outcome = self
            .publisher
            .publish(tree, revision.clone(), inventory, now)
            .await?;
        self.index.describe(Arc::clone(self.publisher.described()));
        match outcome {
            Outcome::Unchanged => {
                self.good = Some(latest);
                self.catch_up(now).await?;
                if !self.greeted {
                    say(&Notice::Unchanged {
                        label,
                        sequence: self.in_force().unwrap_or_default(),
                    });
                }
            }
            Outcome::Refused(refusal) => {
                self.record_refusal(&revision, &refusal, now).await?;
                say(&Notice::Refused {
                    label,
                    refusal: refusal.to_string(),
                    in_force: self.in_force(),
                });
                self.refused = Some(revision);
            }
            Outcome::Published {
                release,
                counts,
                findings,
                held,
            } => {
                self.index.publish(offer(&release));
                self.good = Some(latest);
                self.record(&release, counts.workloads, now).await?;
                self.record_held(&findings, now).await?;
                self.record_warnings(&findings, now).await?;
                say(&Notice::Published {
                    label,
                    counts,
                    sequence: release.release.sequence,
                    took: started.elapsed(),
                    manifests: release.manifests(),
                    held,
                });
            }
        }
        self.greeted = true;
        Ok(())
    }

    /// A server that was killed, or could not write, between depot and store has a release that the store does not know.
    async fn catch_up(&self, now: Timestamp) -> Result<(), StoreError> {
        match self.publisher.current() {
            Some(current)
                if self.store.highest_sequence().await? < Some(current.release.sequence) =>
            {
                self.record(current, 0, now).await
            }
            _ => Ok(()),
        }
    }

    async fn record(
        &self,
        release: &Published,
        workloads: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let statement = &release.release;
        self.store
            .add_release(NewRelease {
                sequence: Some(statement.sequence),
                revision: statement.revision.clone(),
                at: statement.issued,
                refused: None,
                devices: statement.tree.size,
                workloads: workloads as u64,
                manifests: release.manifests() as u64,
            })
            .await?;
        let message = format!(
            "release {} of commit {}: {} devices",
            statement.sequence,
            statement.revision.short(),
            statement.tree.size
        );
        self.event(None, "Released", message, false, now).await
    }

    async fn record_refusal(
        &self,
        revision: &Revision,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let reason = refusal.to_string();
        // after a restart the same commit is refused again, and that is no news
        let newest = self.store.releases(1).await?;
        let known = newest.first().is_some_and(|newest| {
            newest.release.revision.commit == revision.commit
                && newest.release.refused.as_ref() == Some(&reason)
        });
        if known {
            return Ok(());
        }
        let message = format!("commit {} refused: {reason}", revision.short());
        self.event(None, "Refused", message, true, now).await?;
        self.store
            .add_release(NewRelease {
                sequence: None,
                revision: revision.clone(),
                at: now,
                refused: Some(reason),
                devices: 0,
                workloads: 0,
                manifests: 0,
            })
            .await
    }

    /// Tells of each device that an error holds back why it gets nothing new.
    async fn record_held(&self, findings: &[Finding], now: Timestamp) -> Result<(), StoreError> {
        let errors = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        for finding in errors.take(HELD_EVENTS) {
            let message = words(finding);
            for device in finding.devices.iter().take(HELD_EVENTS) {
                let device = Some(device.clone());
                self.event(device, "HeldBack", message.clone(), true, now)
                    .await?;
            }
        }
        Ok(())
    }

    /// Tells of what someone should look at, once: not again with every release that still has it.
    async fn record_warnings(
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

    fn in_force(&self) -> Option<u64> {
        self.publisher
            .current()
            .map(|current| current.release.sequence)
    }

    /// Says what failed, once, and that it works again, once.
    fn settle(&self, done: Result<(), RoundError>, say: &impl Fn(&Notice)) {
        match done {
            Ok(()) => {
                if self.store.failures().remove(SOURCE).is_some() {
                    say(&Notice::Recovered);
                }
            }
            Err(error) => {
                let failures = self.store.failures();
                if let Some(message) = failures.add(SOURCE, &chain(&error), Timestamp::now()) {
                    say(&Notice::Failed {
                        message,
                        in_force: self.in_force(),
                    });
                }
            }
        }
    }
}

fn offer(published: &Published) -> Current {
    Current::new(
        published.envelope.clone(),
        published.release.sequence,
        published.leaves.values().cloned(),
    )
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // an error means that the sender is gone, which is a stop too
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A tenth more or less: a hundred servers that were started together do not ask one forge together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}

/// `FLT0104 web.yaml:15:36: ConfigMap …`.
fn words(finding: &Finding) -> String {
    format!("{} {}: {}", finding.code.id, finding.place, finding.message)
}
