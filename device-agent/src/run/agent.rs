//! The loop that owns the ledger and changes the machine.

use std::path::PathBuf;
use std::time::Duration;

use flotta_bundle::code::{self, Code, Problem};
use flotta_bundle::manifest::Settings;
use flotta_bundle::policy::Policy;
use flotta_bundle::verify::{self, Accepted, Memory};
use flotta_bundle::wire::{Applied, Offer, WorkloadReport, WorkloadState};
use flotta_bundle::{DeviceName, Manifest};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use crate::clock::{Clock, SKEW};
use crate::ledger::{Ledger, LedgerError};
use crate::policy;
use crate::pull::link::Known;
use crate::pull::{Session, chain};
use crate::report::Live;
use crate::state_machine::{NoEdge, State};

mod managed_host;
mod mounts;
#[cfg(test)]
mod tests;
mod work;

use managed_host::{Change, ManagedHost};

/// Shortest and longest bound of the wait before failed work is retried.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(600));
/// The same before the server is asked for another offer after a refused one.
pub(super) const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// After this long without a failure the backoff starts again.
const CALM: Duration = Duration::from_secs(900);
/// Longest wait before drift is corrected, however often it occurs: within the minute that is promised, and long enough that
/// it is reported first.
const SOON: Duration = Duration::from_secs(5);
/// How often a folder that is mounted read-only is tried, because there is no event when that ends.
const PROBE: Duration = Duration::from_secs(5);
/// Longest sleep: a suspended machine wakes at another time, and the clock's floor has to be saved.
const LOOK: Duration = Duration::from_secs(6 * 3600);

/// A type without values: the loop does not return normally.
#[derive(Debug)]
pub(super) enum Never {}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// A bug in this program.
    #[error(transparent)]
    NoEdge(#[from] NoEdge),
    /// The machine can write where the agent cannot: its view of the mounts is out of date.
    #[error("the agent's view of the machine's mounts is out of date")]
    ShutOut,
}

/// The loop that owns the ledger and changes the machine.
pub(super) struct Agent<H> {
    pub(super) device: DeviceName,
    pub(super) ledger: Ledger,
    pub(super) machine: H,
    pub(super) clock: Clock,
    pub(super) state: State,
    pub(super) offers: mpsc::Receiver<Offer>,
    pub(super) sessions: watch::Receiver<Option<Session>>,
    pub(super) acknowledgements: watch::Receiver<u64>,
    pub(super) refusals: mpsc::Receiver<Problem>,
    pub(super) known: watch::Sender<Known>,
    pub(super) live: watch::Sender<Live>,
    pub(super) backoff: Backoff,
    /// The backoff before the server is asked for another offer after a refused one.
    pub(super) again: Backoff,
    /// When the state `Waiting` ends.
    pub(super) retry_at: Option<Instant>,
    pub(super) last_trouble: Option<Instant>,
    /// Why the newest offer was refused, until one is accepted.
    pub(super) refused: Option<Problem>,
    /// What failed in the last round of work.
    pub(super) problems: Vec<Problem>,
    /// Why the last write of the ledger failed.
    pub(super) unkept: Option<Problem>,
    pub(super) workloads: Vec<WorkloadReport>,
    pub(super) settings: Settings,
    /// An offer that could not be saved in the ledger, and why. It is kept, because the server does not send it again by itself.
    pub(super) held: Option<(Offer, Problem)>,
    pub(super) clock_file: Option<PathBuf>,
    /// The file with the device's policy, and what is wrong with it.
    pub(super) policy_file: PathBuf,
    pub(super) policy_problem: Option<Problem>,
    /// The file with the time when the agent last exited because of its mounts, for the next start.
    pub(super) ended_file: Option<PathBuf>,
}

impl<H: ManagedHost> Agent<H> {
    /// Runs for as long as it is polled.
    pub(super) async fn run(mut self) -> Result<Never, Stop> {
        if self.ledger.accepted().is_some() {
            self.state = self.state.begin()?;
        }
        self.read_policy();
        let mut clock = self.clock.changes();
        clock.mark_changed();
        loop {
            if clock.has_changed().unwrap_or_default() {
                clock.mark_unchanged();
                self.note_clock();
            }
            self.publish();
            match self.state {
                State::Fetching | State::Applying => self.work().await?,
                _ => self.rest(&mut clock).await?,
            }
        }
    }

    /// Waits for something to do.
    async fn rest(&mut self, clock: &mut watch::Receiver<u64>) -> Result<(), Stop> {
        let expires = self
            .ledger
            .accepted()
            .map(|accepted| self.clock.until(accepted.expires));
        let look = expires
            .filter(|left| !left.is_zero())
            .unwrap_or(LOOK)
            .min(if self.unkept.is_some() || self.policy_problem.is_some() {
                RETRY.1
            } else {
                LOOK
            })
            .min(if self.has(code::READ_ONLY) {
                PROBE
            } else {
                LOOK
            });
        let retry_at = self.retry_at;
        tokio::select! {
            Some(offer) = self.offers.recv() => {
                if self.take(offer) {
                    self.state = self.state.begin()?;
                }
            }
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                self.retry_at = None;
                self.state = self.state.begin()?;
            }
            Some(problem) = self.refusals.recv() => self.note("Refused", &problem),
            news = self.machine.changed() => match news {
                Change::Units => self.look().await?,
                Change::Files => self.look_at_files().await?,
            },
            // the next turn of the loop handles it
            Ok(()) = clock.changed() => clock.mark_changed(),
            Ok(()) = self.acknowledgements.changed() => {
                let up_to = *self.acknowledgements.borrow_and_update();
                let done = self.ledger.acknowledge(up_to);
                self.durably(done);
            }
            () = sleep(look) => {
                self.durably(Ok(()));
                if self.policy_problem.is_some() {
                    self.read_policy();
                }
                if self.has(code::READ_ONLY) {
                    return self.probe().await;
                }
                if let Some(path) = &self.clock_file && let Err(error) = self.clock.save(path) {
                    tracing::warn!(%error, "clock not saved");
                }
            }
        }
        Ok(())
    }

    /// Reads what the device's owner allows now.
    fn read_policy(&mut self) -> Policy {
        let (policy, problem) = policy::read(&self.policy_file);
        if let Some(problem) = &problem {
            tracing::warn!(%problem, "the policy cannot be read: only the default folders are allowed");
        }
        self.policy_problem = problem;
        policy
    }

    /// Whether some workload has a problem with this code.
    fn has(&self, code: Code) -> bool {
        let problems = self.workloads.iter().filter_map(|w| w.problem.as_ref());
        problems.into_iter().any(|problem| problem.code == code.id)
    }

    /// Checks files that somebody may have changed. Drift is reported first and corrected after that.
    async fn look_at_files(&mut self) -> Result<(), NoEdge> {
        let Some(manifest) = self.manifest() else {
            return Ok(());
        };
        let Self {
            machine,
            ledger,
            clock,
            ..
        } = self;
        let noted = machine
            .look_at_files(&manifest, ledger, &|| clock.now())
            .await;
        self.durably(noted);
        self.look().await?;
        let of_files = [code::FILE_FAILED, code::READ_ONLY, code::UNIT_TAKEN];
        if of_files.into_iter().any(|code| self.has(code)) {
            self.retry_soon();
        }
        if self.state == State::Waiting && self.has(code::DRIFTED) {
            // not sooner, so that the server hears of it first
            self.retry_at = Some(Instant::now() + SOON);
        }
        Ok(())
    }

    /// Retries failed work soon, because its cause may be gone.
    fn retry_soon(&mut self) {
        if self.state == State::Waiting {
            let soon = Instant::now() + SOON;
            self.retry_at = Some(self.retry_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The wanted manifest, if it has been fetched.
    fn manifest(&self) -> Option<Manifest> {
        let digest = self.ledger.accepted()?.manifest;
        let bytes = self.ledger.blobs().read(&digest).ok()?;
        verify::verify_manifest(&bytes, digest).ok()
    }

    /// Handles a change of units: reports it, and repairs what is not running.
    async fn look(&mut self) -> Result<(), NoEdge> {
        let Some(manifest) = self.manifest() else {
            return Ok(());
        };
        let was_masked = self.has(code::UNIT_MASKED);
        self.workloads = self.machine.look(&manifest, &self.ledger).await;
        self.note_stops();
        let down =
            |w: &WorkloadReport| matches!(w.state, WorkloadState::Failed | WorkloadState::Stopped);
        let down = self.workloads.iter().any(down);
        if self.state == State::Idle && (down || self.has(code::DRIFTED)) {
            self.wait()?;
        }
        if was_masked && !self.has(code::UNIT_MASKED) {
            self.retry_soon();
        }
        Ok(())
    }

    /// Notes which containers were stopped because a check of them failed.
    fn note_stops(&mut self) {
        for problem in self.machine.stops() {
            self.note("Unhealthy", &problem);
        }
    }

    fn wait(&mut self) -> Result<(), NoEdge> {
        let now = Instant::now();
        if self
            .last_trouble
            .is_some_and(|last| now.duration_since(last) > CALM)
        {
            self.backoff.reset();
        }
        self.last_trouble = Some(now);
        self.retry();
        self.state = self.state.wait()?;
        Ok(())
    }

    /// Schedules a retry unless one is scheduled: one round of work is one step of the backoff.
    fn retry(&mut self) {
        if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        }
    }

    /// Verifies an offer and saves it. True when there is something to do.
    fn take(&mut self, offer: Offer) -> bool {
        let Some(memory) = self.ledger.memory() else {
            if let Some(problem) = self.trust_lost() {
                self.note("Refused", &problem);
            }
            return false;
        };
        let accepted = match verify::verify_offer(&offer, &self.device, memory) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                let problem = refusal.problem();
                tracing::warn!(%problem, "offer refused");
                self.note("Refused", &problem);
                self.refused = Some(problem);
                let ask_again = Some(Instant::now() + self.again.next_delay());
                self.known.send_modify(|known| known.ask_again = ask_again);
                return false;
            }
        };
        self.refused = None;
        self.again.reset();
        self.clock.learn(accepted.release.issued);
        if self.is_known(&offer, &accepted, memory) {
            return false;
        }
        match self.ledger.accept(&offer, &accepted) {
            Ok(()) => {
                let (release, manifest) = (accepted.release.sequence, accepted.manifest);
                tracing::info!(release, %manifest, "accepted");
                self.held = None;
                let root = accepted.memory.trust.version;
                self.known
                    .send_if_modified(|known| std::mem::replace(&mut known.root, root) != root);
                self.backoff.reset();
                true
            }
            Err(error) => {
                let problem = Problem::new(code::LEDGER, chain(&error));
                tracing::error!(%problem, "offer not kept");
                self.held = Some((offer, problem));
                self.retry();
                false
            }
        }
    }

    fn is_known(&self, offer: &Offer, accepted: &Accepted, memory: &Memory) -> bool {
        accepted.memory == *memory
            && self.ledger.accepted().is_some_and(|known| {
                known.release == accepted.release.sequence
                    && known.manifest == accepted.manifest
                    && known.leaf == offer.leaf
            })
    }

    fn note(&mut self, reason: &str, problem: &Problem) {
        let done = self
            .ledger
            .note(self.clock.now(), reason, problem.to_string(), true);
        self.durably(done);
    }

    /// Notes what has become known about the clock.
    fn note_clock(&mut self) {
        if let Some(floor) = self.clock.left_behind() {
            let what = format!(
                "the time was taken to be {floor:.0} or later; that is ahead of this clock, and is dropped"
            );
            self.note("ClockCorrected", &Problem::new(code::TIME_AHEAD, what));
        }
        if let Some(doubt) = self.clock.doubt() {
            self.note("ClockDoubted", &doubt);
        }
    }

    /// The problems of signed times. They are only reported, and stop nothing.
    fn of_time(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(accepted) = self.ledger.accepted() {
            let release = accepted.release;
            let is_believed = self.clock.is_believed();
            if is_believed && accepted.issued.duration_since(self.clock.now()) > SKEW {
                let what = format!(
                    "release {release} was issued at {:.0}, which is ahead of this clock",
                    accepted.issued
                );
                problems.push(Problem::new(code::TIME_AHEAD, what));
            }
            if accepted.expires <= self.clock.now() {
                let what = format!("release {release} expired at {:.0}", accepted.expires);
                problems.push(if is_believed {
                    Problem::new(code::TRUST_EXPIRED, what)
                } else {
                    Problem::new(
                        code::CLOCK_UNSURE,
                        what + ", if this clock is right: it is not synchronised",
                    )
                });
            }
        }
        problems.extend(self.clock.doubt());
        problems
    }

    /// Records the result of a write to the ledger. A failure is reported until everything is written; workloads keep running.
    fn durably(&mut self, done: Result<(), LedgerError>) {
        let done = done.and_then(|()| self.ledger.save_unsaved());
        self.unkept = done.err().map(|error| {
            let problem = Problem::new(code::LEDGER, chain(&error));
            tracing::error!(%problem, "ledger");
            problem
        });
    }

    /// The problem of a lost trust.
    fn trust_lost(&self) -> Option<Problem> {
        let lost = self.ledger.trust_lost()?;
        Some(Problem::new(code::TRUST_LOST, lost))
    }

    /// Publishes the state of the device.
    fn publish(&self) {
        let accepted = self.ledger.accepted();
        let live = Live {
            release: accepted.map(|accepted| accepted.release),
            wanted: accepted.map(|accepted| accepted.manifest),
            applied: self.ledger.applied().map(|applied| Applied {
                manifest: applied.manifest,
                release: applied.release,
            }),
            phase: self.state.phase(),
            problems: self
                .trust_lost()
                .iter()
                .chain(&self.refused)
                .chain(self.held.iter().map(|(_, problem)| problem))
                .chain(&self.problems)
                .chain(&self.policy_problem)
                .chain(
                    self.unkept
                        .iter()
                        .filter(|unkept| !self.problems.contains(unkept)),
                )
                .cloned()
                .chain(self.of_time())
                .collect(),
            workloads: self.workloads.clone(),
            events: self.ledger.unacknowledged().to_vec(),
            log: self.ledger.log_id().to_owned(),
            settings: self.settings.clone(),
            accepted: accepted.map(|accepted| accepted.envelope.clone()),
        };
        self.live.send_if_modified(|old| {
            let changed = *old != live;
            *old = live;
            changed
        });
    }
}
