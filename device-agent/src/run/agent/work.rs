//! One round of work: fetches and applies what the release needs, unless a newer one comes in between.

use flotta_bundle::Digest;
use flotta_bundle::code;
use flotta_bundle::verify;
use flotta_bundle::wire::WorkloadReport;

use super::{Agent, ManagedHost};
use crate::converge::Outcome;
use crate::fetch::{self, FetchError};
use crate::state_machine::NoEdge;

/// Most offers that are queued while work continues: those that are refused, or newer releases of the same manifest.
const MAX_LATER: usize = 4;

/// How a round of work ended.
enum Ended {
    /// It was completed.
    Whole(Outcome, Vec<Digest>),
    /// Blobs could not be fetched.
    Unfetched(FetchError),
    /// An offer of another manifest came in between.
    Overtaken,
}

impl<H: ManagedHost> Agent<H> {
    /// Fetches and applies what the ledger says, unless a newer manifest comes in between.
    pub(super) async fn work(&mut self) -> Result<(), NoEdge> {
        self.retry_at = None;
        if let Some((offer, _)) = self.held.take() {
            self.take(offer);
            self.publish();
        }
        let wanted = self.ledger.accepted();
        let wanted = wanted.map(|accepted| (accepted.release, accepted.manifest));
        let (Some(wanted), Some(memory)) = (wanted, self.ledger.memory().cloned()) else {
            self.state = self.state.fetched()?.done()?;
            return Ok(());
        };
        let (release, digest) = wanted;
        let policy = self.read_policy();
        let mut later = Vec::new();
        let ended = {
            let Self {
                ledger,
                machine,
                sessions,
                state,
                live,
                clock,
                settings,
                offers,
                device,
                ..
            } = self;
            live.send_modify(|live| live.phase = state.phase());
            let work = async {
                let applied = ledger.applied().map(|applied| applied.manifest);
                let fetched =
                    fetch::fetch(ledger.blobs(), sessions, digest, applied, &policy).await;
                let manifest = match fetched {
                    Ok(manifest) => manifest,
                    Err(error) => return Ok(Ended::Unfetched(error)),
                };
                *state = state.fetched()?;
                settings.clone_from(&manifest.settings);
                let mut progress = |phase, workloads: &[WorkloadReport]| {
                    live.send_modify(|live| {
                        live.phase = phase;
                        live.workloads = workloads.to_vec();
                    });
                };
                let now = || clock.now();
                let outcome = machine
                    .converge(&manifest, release, ledger, &now, &mut progress)
                    .await;
                let needed = fetch::needed(digest, &manifest).into_iter().collect();
                Ok(Ended::Whole(outcome, needed))
            };
            tokio::pin!(work);
            loop {
                tokio::select! {
                    ended = &mut work => break ended?,
                    Some(offer) = offers.recv(), if later.len() < MAX_LATER => {
                        let verified = verify::verify_offer(&offer, device, &memory);
                        // accepted, or noted as refused, once the ledger is free again
                        later.push(offer);
                        if verified.is_ok_and(|accepted| accepted.manifest != digest) {
                            break Ended::Overtaken;
                        }
                    }
                }
            }
        };
        let overtaken = matches!(ended, Ended::Overtaken);
        self.end(ended)?;
        let mut more = overtaken;
        for offer in later {
            more |= self.take(offer);
        }
        if more {
            self.state = self.state.begin()?;
        }
        Ok(())
    }

    fn end(&mut self, ended: Ended) -> Result<(), NoEdge> {
        match ended {
            Ended::Overtaken => {}
            Ended::Unfetched(error) => {
                let problem = error.problem();
                self.problems = vec![problem.clone()];
                match &error {
                    FetchError::Ledger(_) => {
                        let now = self.clock.now();
                        let noted = self.ledger.note(now, "Failed", problem.to_string(), true);
                        self.durably(noted);
                    }
                    _ if error.is_refusal() => self.note("Refused", &problem),
                    _ => self.durably(Ok(())),
                }
                self.wait()?;
            }
            Ended::Whole(outcome, needed) => {
                self.workloads = outcome.workloads;
                self.problems = outcome.problems;
                self.note_stops();
                if !self.has(code::READ_ONLY) {
                    self.can_write();
                }
                let mut done = Ok(());
                if outcome.complete {
                    let needed = needed.into_iter().collect();
                    done = self.ledger.keep_servers(&self.settings.servers);
                    done = done.and_then(|()| self.ledger.blobs().collect(&needed));
                }
                self.durably(done);
                if outcome.retry || self.held.is_some() {
                    self.wait()?;
                } else {
                    self.state = self.state.done()?;
                }
            }
        }
        Ok(())
    }
}
