//! The follower keeps the release in force up to date with its source: it polls, renders and publishes in a loop.
//!
//! Level-triggered: every round reads source and inventory again and updates the release, whatever woke it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotta_bundle::release::Revision;
use flotta_renderer::{Finding, Input, InventoryDevice};
use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{Notify, watch};

use super::inventory::Decisions;
use super::{Notice, Outcome, PublishError, Published, Publisher};
use crate::failures::chain;
use crate::index::{Current, Index};
use crate::server_state::ServerState;
use crate::source::{ALLOW_REMOVAL, Ancestry, Checkout, Source};
use crate::store::{Proof, Store, StoreError};

mod aside;
mod record;

use aside::{SetAside, members};
pub(crate) use record::SOURCE_STATE;

/// How long to wait for more after a device joins, so that a pallet of machines switched on together makes one release.
const SETTLE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;

/// The name of a failure to follow the source.
pub const SOURCE: &str = "following the source";

/// A commit of the source.
#[derive(Debug, Clone)]
struct Latest {
    input: Arc<Input>,
    revision: Revision,
    label: String,
    /// Whether the commit itself allows its removals.
    allows_removal: bool,
    /// Remarks about it.
    notes: Vec<String>,
}

impl Latest {
    fn of(checkout: Checkout) -> Self {
        Self {
            label: checkout.label(),
            input: Arc::new(checkout.input),
            revision: checkout.revision,
            allows_removal: checkout.allows_removal,
            notes: Vec::new(),
        }
    }
}

/// Why a round failed; the next one tries again.
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
    server_state: ServerState,
    /// The newest commit.
    latest: Option<Latest>,
    /// The newest commit that was published: devices that join while a newer one is refused or held get this one.
    good: Option<Latest>,
    /// The commit that was last refused or held.
    aside: Option<SetAside>,
    /// The warnings of the last release, which are reported once.
    warned: BTreeSet<String>,
    /// Whether it was reported that the release in force is up to date.
    greeted: bool,
}

/// A commit that a round tries to publish.
#[derive(Debug)]
struct Candidate {
    latest: Latest,
    joined: Vec<InventoryDevice>,
    decisions: Decisions,
}

impl Follower {
    /// Starts with the release in the depot, so that devices are offered it before the source is polled.
    pub fn new(
        mut source: Source,
        publisher: Publisher,
        store: Store,
        index: Arc<Index>,
        server_state: ServerState,
    ) -> Self {
        if let Some(current) = publisher.current() {
            index.publish(offer(current));
        }
        // the last commit seen, also if it was refused; an earlier version stored only the one in force
        let seen = server_state.source().commit;
        let in_force = publisher
            .current()
            .map(|current| current.release.revision.commit.clone());
        if let Some(before) = Some(seen).filter(|seen| !seen.is_empty()).or(in_force) {
            source.follows(&before);
        }
        Self {
            source,
            publisher,
            store,
            index,
            server_state,
            latest: None,
            good: None,
            aside: None,
            warned: BTreeSet::new(),
            greeted: false,
        }
    }

    /// Follows the source until `stop` is true. A round that writes is not interrupted.
    pub async fn run(
        mut self,
        interval: Duration,
        wake: Arc<Notify>,
        mut stop: watch::Receiver<bool>,
        say: impl Fn(&Notice) + Send + Sync,
    ) {
        let mut inventory = self.store.inventory_changes();
        self.server_state
            .change(|source| source.interval_seconds = interval.as_secs());
        let mut proofs = self.store.proofs();
        loop {
            inventory.mark_unchanged();
            let proof = proofs.borrow_and_update().clone();
            let polled = tokio::select! {
                // dropping a fetch kills its child process and leaves the mirror usable
                () = stopped(&mut stop) => return,
                polled = self.source.poll() => polled,
            };
            let (checkout, unavailable) = match polled {
                Ok(checkout) => {
                    let now = Timestamp::now();
                    self.server_state.change(|source| source.looked = Some(now));
                    (checkout, Ok(()))
                }
                Err(error) => (None, Err(error.into())),
            };
            // new devices, proofs and renewals do not wait for an unreachable source
            let done = self.round(checkout, proof, &say).await.and(unavailable);
            self.settle(done, &say).await;
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(jittered(interval)) => {}
                () = wake.notified() => {}
                _ = inventory.changed() => tokio::time::sleep(SETTLE).await,
                _ = proofs.changed() => {}
            }
        }
    }

    /// Updates the release from the source and the inventory.
    async fn round(
        &mut self,
        checkout: Option<Checkout>,
        proof: Option<Proof>,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<(), RoundError> {
        if let Some(checkout) = checkout {
            self.take(checkout, say).await?;
        }
        // when the newest commit is set aside, the previous one is next, so that devices that joined do not wait
        while let Some(candidate) = self.candidate().await? {
            if !self.attempt(candidate, proof.as_ref(), say).await? {
                break;
            }
        }
        Ok(())
    }

    /// Publishes a commit, or sets it aside. Returns whether it was set aside.
    async fn attempt(
        &mut self,
        candidate: Candidate,
        proof: Option<&Proof>,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<bool, RoundError> {
        let Candidate {
            latest,
            joined,
            decisions,
        } = candidate;
        // only now that there is something to sign
        let above = proof.filter(|proof| self.publisher.raise(proof.sequence + 1));
        let members = members(&joined, &decisions);
        let (started, now) = (Instant::now(), Timestamp::now());
        let (label, input) = (latest.label.clone(), Arc::clone(&latest.input));
        let revision = latest.revision.clone();
        let of_source = self
            .latest
            .as_ref()
            .is_some_and(|of| of.revision == revision);
        let outcome = self
            .publisher
            .publish(input, revision.clone(), joined, &decisions, now)
            .await?;
        self.index.describe(Arc::clone(self.publisher.described()));
        if !of_source && matches!(outcome, Outcome::Refused(_) | Outcome::Held(_)) {
            // only the source's newest commit is shown as set aside; this one was valid before
            tracing::warn!(
                commit = revision.short(),
                "the commit in force can no longer be released"
            );
            return Ok(false);
        }
        match outcome {
            Outcome::Unchanged => {
                self.catch_up(now).await?;
                self.in_force(&latest, &decisions, now).await?;
                if !self.greeted && of_source {
                    say(&Notice::Unchanged {
                        label,
                        sequence: self.sequence().unwrap_or_default(),
                    });
                }
            }
            Outcome::Refused(refusal) => {
                self.refuse(&latest, &refusal, now, say).await?;
                return Ok(true);
            }
            Outcome::Held(holding) => {
                self.hold(&latest, *holding, members, now, say).await?;
                return Ok(true);
            }
            Outcome::Published {
                release,
                counts,
                findings,
                held,
                mut details,
            } => {
                self.index.publish(offer(&release));
                details.notes.clone_from(&latest.notes);
                let left = details.leaves_git.count;
                self.record(&release, counts.workloads, *details, now)
                    .await?;
                self.record_held(&findings, now).await?;
                self.record_warnings(&findings, now).await?;
                self.in_force(&latest, &decisions, now).await?;
                say(&Notice::Published {
                    label,
                    counts,
                    above: above.map(|proof| proof.sequence),
                    sequence: release.release.sequence,
                    took: started.elapsed(),
                    manifests: release.manifests(),
                    held,
                    left,
                });
            }
        }
        self.greeted |= of_source;
        Ok(false)
    }

    /// Takes a new commit of the source.
    async fn take(
        &mut self,
        checkout: Checkout,
        say: &(impl Fn(&Notice) + Send + Sync),
    ) -> Result<(), RoundError> {
        let ancestry = checkout.ancestry.clone();
        let mut latest = Latest::of(checkout);
        let moved = match ancestry {
            Some((before, ancestry @ (Ancestry::Ancestor | Ancestry::Unrelated))) => {
                Some(record::moved(ancestry, &before, &latest.revision))
            }
            _ => None,
        };
        latest.notes.extend(moved.clone());
        let label = latest.label.clone();
        // the source returns a commit once, so it is stored before anything can fail
        self.latest = Some(latest);
        if let Some(message) = moved {
            say(&Notice::Moved {
                label,
                message: message.clone(),
            });
            self.record_ancestry(message, Timestamp::now()).await?;
        }
        Ok(())
    }

    /// The commit to publish: the newest, or the one before if that was set aside.
    async fn candidate(&mut self) -> Result<Option<Candidate>, StoreError> {
        let joined = self.store.inventory().await?;
        let mut decisions = Decisions {
            allowed_by: None,
            decommissioned: self.store.decommissioned().await?,
        };
        if let Some(latest) = &self.latest {
            decisions.allowed_by = if latest.allows_removal {
                Some(format!("the commit itself ({ALLOW_REMOVAL})"))
            } else {
                self.store.allowed(&latest.revision.commit).await?
            };
            let aside = self.aside.as_ref();
            let is_aside = match aside.filter(|aside| aside.revision == latest.revision) {
                None => false,
                Some(SetAside { held: None, .. }) => true,
                Some(SetAside {
                    held: Some(before), ..
                }) => decisions.allowed_by.is_none() && *before == members(&joined, &decisions),
            };
            if !is_aside {
                return Ok(Some(Candidate {
                    latest: latest.clone(),
                    joined,
                    decisions,
                }));
            }
        }
        decisions.allowed_by = None;
        if self.good.is_none() {
            let in_force = self.publisher.current();
            let commit = in_force.map(|current| current.release.revision.commit.clone());
            if let Some(commit) = commit {
                self.good = self.source.recall(&commit).await.map(Latest::of);
            }
        }
        Ok(self.good.clone().map(|latest| Candidate {
            latest,
            joined,
            decisions,
        }))
    }

    /// Records that a commit is in force.
    async fn in_force(
        &mut self,
        latest: &Latest,
        decisions: &Decisions,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if decisions.allowed_by.is_some() && !latest.allows_removal {
            self.store.forget_allowed().await?;
        }
        let described = self.publisher.described();
        let back = decisions
            .decommissioned
            .iter()
            .filter(|device| described.get(device).is_some_and(|known| known.in_git));
        let back: Vec<_> = back.cloned().collect();
        if !back.is_empty() {
            self.store.recommission(back).await?;
        }
        // if a newer commit was set aside, this is not the source's newest commit
        if self
            .latest
            .as_ref()
            .is_some_and(|of| of.revision == latest.revision)
        {
            self.aside = None;
            self.stand(latest, "InForce", String::new(), now).await?;
        }
        self.good = Some(Latest {
            notes: Vec::new(),
            ..latest.clone()
        });
        Ok(())
    }

    fn sequence(&self) -> Option<u64> {
        self.publisher
            .current()
            .map(|current| current.release.sequence)
    }

    /// Reports the first failure of a series, and its end.
    async fn settle(&self, done: Result<(), RoundError>, say: &(impl Fn(&Notice) + Sync)) {
        let failures = self.store.failures();
        let is_said = matches!(done, Err(RoundError::Publish(PublishError::Clock(_))));
        let failure = done
            .err()
            .map(|error| (matches!(error, RoundError::Source(_)), chain(&error)));
        match &failure {
            None => {
                if failures.remove(SOURCE).is_some() {
                    say(&Notice::Recovered);
                }
            }
            // the clock's own check reports that
            Some(_) if is_said => {}
            Some((source, message)) => {
                if let Some(message) = failures.add(SOURCE, message, Timestamp::now()) {
                    say(&Notice::Failed {
                        source: *source,
                        message,
                        in_force: self.sequence(),
                    });
                }
            }
        }
        if let Err(error) = self.stand_failure(failure, Timestamp::now()).await {
            tracing::error!(%error, "the state of the source could not be saved");
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
    // an error means that the sender is gone, which also means stop
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The interval, give or take a tenth, so that a hundred servers that were started together do not poll one forge together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}

/// `FLT0104 web.yaml:15:36: ConfigMap …`.
fn words(finding: &Finding) -> String {
    format!("{} {}: {}", finding.code.id, finding.place, finding.message)
}
