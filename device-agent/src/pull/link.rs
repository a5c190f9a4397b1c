//! Keeps the connection to the server: polls, renews the certificate, and reconnects.

use std::convert::Infallible;
use std::time::Duration;

use flotta_bundle::wire::{Enrolment, Offer};
use flotta_bundle::{Problem, code};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::servers::Servers;
use super::{Client, Desired, LinkState, Proxies, PullError, Session};
use crate::backoff::{Backoff, about};
use crate::clock::{Clock, SKEW};
use crate::enrol;
use crate::hardware;
use crate::identity::{Certificate, Identity, IdentityError, Joined};
use crate::report::Live;

mod failover;
mod schedule;

use schedule::PollSchedule;

/// Longest wait between two tries to connect. It is never longer than a heartbeat, so that a server that is back hears from
/// its devices within one. A fleet of 100,000 devices that all wait up to a minute makes 3,300 tries a second.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Longest sleep until the certificate is checked again: a machine that was suspended wakes at another time.
const LOOK: Duration = Duration::from_secs(3600);
/// Shortest time between two reconnections because the server took the device back.
const AGAIN: Duration = Duration::from_secs(60);

/// The channels between the link and the rest of the agent.
#[derive(Debug, Clone)]
pub struct Channels {
    /// Offers that are not verified yet.
    pub offers: mpsc::Sender<Offer>,
    /// The current connection, if there is one.
    pub sessions: watch::Sender<Option<Session>>,
    /// The state of the connection.
    pub state: watch::Sender<LinkState>,
    /// Problems of rejected answers that are not offers.
    pub refusals: mpsc::Sender<Problem>,
    /// What the agent made of the offers.
    pub known: watch::Receiver<Known>,
    /// The state of the device, for its heartbeat.
    pub live: watch::Receiver<Live>,
}

/// What the agent made of the offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Version of the trust root in force.
    pub root: u32,
    /// The last offer was refused: when to ask for another one.
    pub ask_again: Option<Instant>,
}

/// Why the connection ended or could not be made.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Enrol(#[from] enrol::EnrolError),
    /// Not an error: the connection still has the old certificate.
    #[error("the certificate was renewed")]
    Renewed,
    /// Not an error either: a preferred address of the server answers.
    #[error("the server answers at a preferred address")]
    Moves,
    /// Nobody receives offers any more: the agent is shutting down.
    #[error("the agent is shutting down")]
    Stopping,
}

/// The connection of a joined device.
#[derive(Debug)]
pub struct Link {
    joined: Joined,
    identity: Identity,
    servers: Servers,
    proxies: Proxies,
    /// A client for the current address without a certificate.
    anonymous: Client,
    /// Whether this connection, or the last one, has worked.
    was_up: bool,
    /// When to try the preferred addresses.
    look_at: Instant,
    certificate: Certificate,
    /// A client with that certificate. It is kept across connections, so that the next one resumes the TLS session of the last:
    /// after a lost connection neither side has to sign anything again.
    client: Option<Client>,
    clock: Clock,
    channels: Channels,
    tag: Option<String>,
    /// The refused offer that was requested again.
    asked_again: Option<Instant>,
    renewal: Backoff,
    /// No new certificate is requested before this time.
    renew_after: Instant,
    /// When a server that had forgotten this device took it back.
    taken_back: Option<Instant>,
}

impl Link {
    /// Creates the link of a device with the identity that it joined with.
    pub fn new(
        joined: Joined,
        identity: Identity,
        clock: &Clock,
        proxies: &Proxies,
        channels: Channels,
    ) -> Result<Self, enrol::EnrolError> {
        let anonymous = Client::anonymous(&joined.server, &identity.ca()?, clock, proxies)?;
        // a lost certificate is requested again with the key
        let certificate = identity
            .certificate()
            .unwrap_or_else(|_| Certificate::lost());
        channels.state.send_modify(|state| {
            state.certificate_until = (!certificate.is_lost()).then_some(certificate.not_after);
        });
        channels
            .state
            .send_modify(|state| state.server.clone_from(&joined.server));
        Ok(Self {
            servers: Servers::new(joined.server.clone(), identity.last_server()),
            proxies: proxies.clone(),
            was_up: false,
            look_at: Instant::now(),
            joined,
            identity,
            anonymous,
            certificate,
            client: None,
            clock: clock.clone(),
            channels,
            tag: None,
            asked_again: None,
            renew_after: Instant::now(),
            taken_back: None,
            renewal: Backoff::new(Duration::from_secs(60), LOOK),
        })
    }

    /// Runs until the agent exits.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), MAX_WAIT);
        loop {
            let Err(error) = self.connected(&mut backoff).await;
            self.channels.sessions.send_replace(None);
            let problem = match &error {
                LinkError::Renewed | LinkError::Moves => continue,
                LinkError::Stopping => return,
                LinkError::Pull(error) => error.problem(),
                LinkError::Identity(error) => error.problem(),
                LinkError::Enrol(error) => error.problem(),
            };
            if matches!(&error, LinkError::Pull(error) if error.is_refusal()) {
                self.refused(&problem);
            }
            let retry_after = match &error {
                LinkError::Pull(error) => error.retry_after(),
                _ => None,
            };
            // request it at the address that refused: another one may not answer at all
            let refused =
                matches!(&error, LinkError::Pull(error) if error.is_certificate_refused());
            let renewed = refused && self.has_joined_again().await;
            if !renewed && self.another_turn(&error) {
                tracing::info!(%problem, next = self.servers.current(), "no connection");
                continue;
            }
            let heartbeat = self
                .channels
                .live
                .borrow()
                .settings
                .heartbeat_seconds
                .max(1);
            let heartbeat = Duration::from_secs(heartbeat.into());
            let delay = backoff.next_delay_within(heartbeat);
            let delay = delay.max(retry_after.unwrap_or_default());
            tracing::info!(%problem, ?delay, attempts = backoff.attempts(), "no connection");
            let now = self.clock.now();
            self.channels.state.send_modify(|state| {
                state.connected_since = None;
                state.attempts = backoff.attempts();
                state.fails(problem, now);
            });
            sleep(delay).await;
        }
    }

    /// Connects and polls for as long as that works.
    async fn connected(&mut self, backoff: &mut Backoff) -> Result<Infallible, LinkError> {
        self.turn()?;
        // if the clock may be wrong, the certificate is tried first: the server knows better
        if self.certificate.is_lost() || self.clock.is_past(self.certificate.not_after) {
            self.join_again().await?;
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self
                .anonymous
                .identified(self.certificate.chain.clone(), self.identity.private_key())?,
        };
        self.client = Some(client.clone());
        let mut clock = self.clock.changes();
        let mut believed = self.clock.is_believed();
        let session = client.connect().await?;
        let mut settings = self.channels.live.clone();
        let mut schedule = PollSchedule::new(self.channels.live.borrow().release);
        let mut known_changes = self.channels.known.clone();
        let mut said = false;
        loop {
            clock.mark_unchanged();
            if !std::mem::replace(&mut believed, self.clock.is_believed()) && believed {
                client.verify_again(&session)?;
            }
            let known = *known_changes.borrow_and_update();
            if known.ask_again.is_some() && known.ask_again != self.asked_again {
                // A server that gave a wrong answer may have the right one under the same tag.
                self.tag = None;
                schedule.ask_at = known.ask_again.unwrap_or(schedule.ask_at);
            }
            self.asked_again = known.ask_again;
            let renew_at = self.renew_at();
            let renewal = Instant::now() + self.clock.until(renew_at).min(LOOK);
            let renewal = renewal.max(self.renew_after);
            let tag = self.tag.clone();
            let preferred = self.follow_settings();
            let better = self.servers.better();
            let look_at = self.next_look();
            let look = failover::look(look_at, &better, &client, &self.proxies, known.root);
            let ask_at = schedule.ask_at;
            let poll = async {
                sleep_until(ask_at).await;
                let asked = Instant::now();
                // The first poll is answered at once. Until then it is not known whether the server accepts this certificate, so
                // downloads and reports wait for it.
                let answer = session.desired(known.root, tag.as_deref(), said).await;
                (answer, asked.elapsed())
            };
            let (answer, took) = tokio::select! {
                answer = poll => answer,
                why = session.ended() => {
                    return Err(PullError::Broken(client.authority().to_owned(), why.into()).into());
                }
                () = sleep_until(renewal) => {
                    if self.clock.now() >= renew_at {
                        self.try_to_renew(&session).await?;
                    }
                    continue;
                }
                Ok(()) = known_changes.changed() => continue,
                Ok(()) = clock.changed() => continue,
                true = failover::are_others(&mut settings, &preferred) => continue,
                found = look, if !better.is_empty() && said => {
                    self.found(found)?;
                    continue;
                }
                () = self.channels.offers.closed() => return Err(LinkError::Stopping),
            };
            // whatever the answer is, a verified server has answered this device
            let first = !said;
            if first && !matches!(&answer, Err(error) if error.is_lost() || error.is_of_identity())
            {
                said = true;
                self.channels.sessions.send_replace(Some(session.clone()));
            }
            if answer.is_ok() {
                backoff.reset();
                self.is_up(better.is_empty());
            }
            self.take(&session, answer, took, first, &mut schedule)
                .await?;
        }
    }

    /// Handles an answer to a poll. An error ends the connection.
    async fn take(
        &mut self,
        session: &Session,
        answer: Result<Option<Desired>, PullError>,
        took: Duration,
        first: bool,
        schedule: &mut PollSchedule,
    ) -> Result<(), LinkError> {
        match answer {
            Ok(desired) => {
                self.answered(None);
                schedule.answered(took, first, self.channels.live.borrow().release);
                if let Some(desired) = desired {
                    self.tag = desired.tag;
                    let sent = self.channels.offers.send(desired.offer).await;
                    sent.map_err(|_| LinkError::Stopping)?;
                    if self.tag.is_none() {
                        // do not poll a server without tags in a busy loop
                        schedule.ask_at += about(Duration::from_secs(30));
                    }
                }
                Ok(())
            }
            Err(error) if error.is_lost() => Err(error.into()),
            // A resumed session skips the handshake in which TLS would have refused it: the next handshake is a full one.
            Err(error) if error.is_of(code::BAD_CERTIFICATE) => {
                self.client = None;
                Err(error.into())
            }
            Err(error) => {
                let delay = schedule.refused(error.retry_after());
                let problem = self.refusal(session, &error).await?;
                tracing::info!(%problem, ?delay, "the server refuses");
                if error.is_refusal() {
                    self.refused(&problem);
                }
                self.answered(Some(problem));
                Ok(())
            }
        }
    }

    /// Returns the problem to show for a refusal. A server that does not know this device, because it was restored from a backup,
    /// is first asked to take it back, which a person decides.
    async fn refusal(
        &mut self,
        session: &Session,
        error: &PullError,
    ) -> Result<Problem, LinkError> {
        if !error.is_of(code::UNKNOWN_DEVICE) {
            return Ok(error.problem());
        }
        match self.ask_to_come_back(session).await {
            // do not ask in a busy loop a server that approves and still refuses
            Ok(()) if self.taken_back.is_some_and(|then| then.elapsed() < AGAIN) => {
                Ok(error.problem())
            }
            Ok(()) => {
                self.taken_back = Some(Instant::now());
                Err(LinkError::Renewed)
            }
            Err(LinkError::Enrol(enrol::EnrolError::Pending(device))) => Ok(Problem {
                help: format!("on the server: flotta approve {device}"),
                ..error.problem()
            }),
            Err(LinkError::Enrol(error)) => Ok(error.problem()),
            Err(LinkError::Pull(error)) if !error.is_lost() => Ok(error.problem()),
            Err(error) => Err(error),
        }
    }

    /// Passes a problem on to be noted, if there is room: one of each kind is enough.
    fn refused(&self, problem: &Problem) {
        let _ = self.channels.refusals.try_send(problem.clone());
    }

    fn answered(&self, problem: Option<Problem>) {
        let now = self.clock.now();
        self.channels.state.send_modify(|state| {
            state.connected_since.get_or_insert(now);
            state.last_answer = Some(now);
            match problem {
                Some(problem) => state.fails(problem, now),
                None => state.works(),
            }
            state.attempts = 0;
        });
    }

    /// Requests a new certificate, and ends the connection when there is one.
    async fn try_to_renew(&mut self, session: &Session) -> Result<(), LinkError> {
        self.renew_after = Instant::now() + self.renewal.next_delay();
        match self.renew(session).await {
            Ok(()) => Err(LinkError::Renewed),
            Err(error) => {
                tracing::warn!(error = super::chain(&error), "certificate not renewed");
                Ok(())
            }
        }
    }

    /// When to request the next certificate: at once if this one is not valid yet, because then the server's clock was ahead.
    fn renew_at(&self) -> Timestamp {
        let Certificate { not_before, .. } = self.certificate;
        let now = self.clock.now();
        if self.clock.is_believed() && not_before.duration_since(now) > SKEW {
            return now;
        }
        self.certificate.renew_at()
    }

    /// Renews the certificate with the current one.
    async fn renew(&mut self, session: &Session) -> Result<(), LinkError> {
        let csr = self.identity.csr(&self.joined.device)?;
        let pem = session.renew(csr).await?.certificate;
        self.keep(&pem)?;
        Ok(())
    }

    /// Requests a new certificate with only the key: the current one has expired, or the server does not accept it.
    async fn join_again(&mut self) -> Result<(), LinkError> {
        let session = self.anonymous.connect().await?;
        self.ask_to_come_back(&session).await
    }

    /// The same; returns whether that gave a new certificate.
    async fn has_joined_again(&mut self) -> bool {
        let joined = self.join_again().await;
        if let Err(error) = &joined {
            tracing::info!(error = super::chain(error), "no new certificate");
        }
        joined.is_ok()
    }

    /// Asks to join with the current keys. On a connection with the device's certificate this proves that it was in the fleet.
    async fn ask_to_come_back(&mut self, session: &Session) -> Result<(), LinkError> {
        let machine = hardware::read("/".as_ref());
        let request = enrol::request(&self.identity, &self.joined.device, None, machine)?;
        match session.enrol(&request).await? {
            Enrolment::Approved { certificate, .. } => self.keep(&certificate),
            Enrolment::Pending { device } => Err(enrol::EnrolError::Pending(device).into()),
            Enrolment::Unknown => {
                Err(enrol::EnrolError::Pending(self.joined.device.clone()).into())
            }
            Enrolment::Denied { reason } => Err(enrol::EnrolError::Denied(reason).into()),
        }
    }

    fn keep(&mut self, pem: &str) -> Result<(), LinkError> {
        let Joined { fleet, device, .. } = &self.joined;
        self.certificate = self.identity.keep_certificate(pem, fleet, device)?;
        self.client = None;
        // a certificate that is due for renewal at once must not be requested in a busy loop
        if self.renew_at() > self.clock.now() {
            self.renewal.reset();
        }
        let until = self.certificate.not_after;
        tracing::info!(%until, "new certificate");
        self.channels
            .state
            .send_modify(|state| state.certificate_until = Some(until));
        Ok(())
    }
}
