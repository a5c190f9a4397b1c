//! How devices join and leave: tokens, requests, approval, renewal, revocation.
//!
//! A name belongs to the key that joined with it until the device is revoked, or a person approves another key in its place:
//! neither a token nor a certificate request can take it over. Each decision is one durable transaction, made by the pure
//! function, `rules::decide`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use flotta_bundle::wire::{Enrolment, EnrolmentRequest, Renewal};
use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};

use crate::keys::{Csr, Fleet};
use crate::rate::Rate;
use crate::store::{Device, FleetEvent, JoinRequest, Member, RequestState, Store, devices, tokens};
use crate::told::Told;

mod decide;
mod error;
mod proof;
mod rules;
mod token;
mod transaction;

pub use error::EnrolError;
use proof::Proven;
use transaction::{Done, enrol};

#[cfg(test)]
mod tests;

/// Most requests that wait for a person. Beyond it newer ones are turned away, and those that wait stay.
pub const MAX_PENDING: u64 = 10_000;
/// Most of them from one address: one network cannot keep all others out.
pub const MAX_PENDING_EACH: u64 = 1_000;
/// Longest life of a token. A join file in a drawer is a key to the fleet.
pub const MAX_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Which request a person means.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name asked for.
    pub device: DeviceName,
    /// The key as the device shows it (`SHA256:` and at least 16 hex digits); needed when several ask for one name.
    pub key: Option<String>,
}

/// What a certificate by this fleet's authority says, whether the store knows of it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The device.
    pub device: DeviceName,
    /// Fingerprint of its identity key.
    pub key: Digest,
}

/// What became of all requests of devices that had joined before.
#[derive(Debug, Default)]
pub struct Restored {
    /// Those that are back, sorted by name.
    pub approved: Vec<Device>,
    /// Those that wait on, and why.
    pub left: Vec<(JoinRequest, EnrolError)>,
}

/// How a device is let in.
#[derive(Debug, Clone, Default)]
pub struct Approval {
    /// The set it is put in.
    pub set: Option<String>,
    /// Labels it gets.
    pub labels: BTreeMap<String, String>,
    /// Whether it may take the place of a device that has joined by this name with another key.
    pub replace: bool,
}

/// Decides who joins. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Enroller {
    fleet: Arc<Fleet>,
    store: Store,
    /// Bounds what refusals write: one who is refused a thousand times a second is noted once a second.
    notes: Arc<Rate>,
    /// Who was refused, and goes on asking.
    told: Arc<Told>,
}

impl Enroller {
    /// An enroller for `fleet`.
    pub fn new(fleet: Arc<Fleet>, store: Store) -> Self {
        Self {
            fleet,
            store,
            notes: Arc::new(Rate::new(1, 60)),
            told: Arc::default(),
        }
    }

    /// A device asks to join, or for a new certificate for the key it joined with. `certified` is what its connection's
    /// certificate says, if it has one: with a store from a backup, that may be more than the store knows.
    pub async fn enrol(
        &self,
        request: EnrolmentRequest,
        certified: Option<&Certified>,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Enrolment, EnrolError> {
        let device = request.device.clone();
        let done = self.try_enrol(request, certified, from, now).await;
        if matches!(done, Ok(Done::Joined(..))) {
            self.told.forget(&device);
        }
        match &done {
            Ok(Done::Joined(_, _, Some(maker))) => {
                let whose = match maker.as_str() {
                    // one of an earlier version of this program
                    "" => String::new(),
                    maker => format!(" that {maker} made"),
                };
                let message = format!("from {from}, by a token{whose}");
                self.note(Some(&device), false, "Joined", message, now)
                    .await;
            }
            Ok(Done::Waits(true)) => {
                let message = format!("{device} asks to join, from {from}: flotta get requests");
                self.note(None, false, "JoinRequested", message, now).await;
            }
            Err(error) if error.is_refusal() => self.note_refusal(&device, from, error, now).await,
            _ => {}
        }
        Ok(match done? {
            Done::Joined(device, issued, _) => Enrolment::Approved {
                device: device.device,
                certificate: issued.pem,
            },
            Done::Waits(_) => Enrolment::Pending { device },
            Done::Denied(reason) => Enrolment::Denied { reason },
        })
    }

    async fn try_enrol(
        &self,
        request: EnrolmentRequest,
        certified: Option<&Certified>,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Done, EnrolError> {
        let token = request.token.as_ref().map(tokens::hash);
        let proven = Proven::verify(request, certified)?;
        let fleet = self.fleet.clone();
        let store = self.store.clone();
        self.store
            .write(
                move |connection| enrol(connection, &fleet, proven, token, from, now),
                move |done| {
                    if let Done::Joined(device, ..) = done {
                        store.has_joined(&device.device, device.key);
                    }
                },
            )
            .await
    }

    /// What became of the request of a key; none when there is none.
    pub async fn state(&self, key: Digest) -> Result<Option<Enrolment>, EnrolError> {
        let Some(request) = self.store.request(key).await? else {
            return Ok(None);
        };
        Ok(Some(match request.state {
            RequestState::Pending => Enrolment::Pending {
                device: request.device,
            },
            RequestState::Approved { certificate, .. } => Enrolment::Approved {
                device: request.device,
                certificate,
            },
            RequestState::Denied { reason, .. } => Enrolment::Denied { reason },
        }))
    }

    /// A new certificate for a device that still has one in force, for the same key.
    pub async fn renew(
        &self,
        device: &DeviceName,
        member: &Member,
        csr: &str,
        now: Timestamp,
    ) -> Result<Renewal, EnrolError> {
        let csr = Csr::parse(csr)?;
        if csr.key().fingerprint() != member.key() {
            return Err(EnrolError::OtherKey);
        }
        let issued = self.fleet.sign_device_certificate(csr.key(), device, now)?;
        let certificate = issued.pem.clone();
        let (device, key) = (device.clone(), member.key());
        self.store
            .write(
                move |connection| {
                    let current = devices::find(connection, &device)?;
                    // Revoked or replaced while this was on its way.
                    if current.is_none_or(|d| d.key != key || d.revoked_at.is_some()) {
                        return Err(EnrolError::Revoked);
                    }
                    devices::put_certificate(connection, &device, &issued)?;
                    Ok(())
                },
                |()| {},
            )
            .await?;
        Ok(Renewal { certificate })
    }

    /// On both sides: the device gets the answer, people get the event and the log line.
    async fn note_refusal(
        &self,
        device: &DeviceName,
        from: IpAddr,
        error: &EnrolError,
        now: Timestamp,
    ) {
        let code = error.code();
        // by its key it is one that was revoked, and it goes on asking; what others say of themselves may be another's name
        let is_told = matches!(error, EnrolError::Revoked)
            && self
                .told
                .tell(device, code.id, Instant::now(), || Some(0))
                .is_none();
        if is_told || !self.notes.admits() {
            return;
        }
        // not `device`: that is what a certificate says
        tracing::warn!(claims = %device, %from, code = code.id, %error, "refused a device that asked to join");
        let message = format!("{device} from {from}: {}: {error}", code.id);
        // the name is a claim: it must not push out what the device itself said
        self.note(None, true, "JoinRefused", message, now).await;
    }

    async fn note(
        &self,
        device: Option<&DeviceName>,
        warning: bool,
        reason: &str,
        message: String,
        now: Timestamp,
    ) {
        tracing::info!(device = device.map(tracing::field::display), %reason, %message, "enrolment");
        let event = FleetEvent {
            id: 0,
            time: now,
            device: device.cloned(),
            reason: reason.to_owned(),
            message,
            warning,
        };
        // What was decided stands, whether it can be noted or not.
        let kept = self.store.add_event(event).await;
        self.store.failures().note("keeping an event", &kept, now);
    }
}
