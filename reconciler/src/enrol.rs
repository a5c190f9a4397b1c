//! Enrolment: tokens, requests to join, approval, certificate renewal and revocation.
//!
//! A name belongs to the key that joined with it until the device is revoked, or a person approves another key in its place:
//! neither a token nor a certificate request can take it over. Each decision is made by the pure function `rules::decide`, in
//! one durable transaction.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use flotta_bundle::wire::{Enrolment, EnrolmentRequest, Renewal};
use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};

use crate::keys::{Csr, Fleet};
use crate::rate::Rate;
use crate::refusals::RefusalLog;
use crate::store::{Device, FleetEvent, JoinRequest, Member, RequestState, Store, devices, tokens};

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

/// Most pending requests. Beyond that new ones are refused, and the pending ones stay.
pub const MAX_PENDING: u64 = 10_000;
/// Most pending requests from one address, so that one network cannot keep all others out.
pub const MAX_PENDING_EACH: u64 = 1_000;
/// Longest validity of a token, because a join file that lies around is a key to the fleet.
pub const MAX_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Identifies the request that a person means.
#[derive(Debug, Clone)]
pub struct Target {
    /// The requested name.
    pub device: DeviceName,
    /// The key as the device shows it (`SHA256:` and at least 16 hex digits); needed when several requests have the same name.
    pub key: Option<String>,
}

/// The content of a certificate by this fleet's CA, whether the store knows the device or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The device.
    pub device: DeviceName,
    /// Fingerprint of its identity key.
    pub key: Digest,
}

/// The result of approving all devices that had joined before a restore.
#[derive(Debug, Default)]
pub struct Restored {
    /// The approved devices, sorted by name.
    pub approved: Vec<Device>,
    /// The requests that still wait, and why.
    pub left: Vec<(JoinRequest, EnrolError)>,
}

/// The terms of an approval.
#[derive(Debug, Clone, Default)]
pub struct Approval {
    /// The set that the device becomes a member of.
    pub set: Option<String>,
    /// The labels that the device gets.
    pub labels: BTreeMap<String, String>,
    /// Whether it may replace a device that has joined under this name with another key.
    pub replace: bool,
}

/// Decides who joins. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Enroller {
    fleet: Arc<Fleet>,
    store: Store,
    /// The rate of events about refusals: a client that is refused a thousand times a second is noted once a second.
    notes: Arc<Rate>,
    /// Devices that were refused and keep asking, for the log.
    refusals: Arc<RefusalLog>,
}

impl Enroller {
    /// Creates the enroller of `fleet`.
    pub fn new(fleet: Arc<Fleet>, store: Store) -> Self {
        Self {
            fleet,
            store,
            notes: Arc::new(Rate::new(1, 60)),
            refusals: Arc::default(),
        }
    }

    /// Handles a request to join, or for a new certificate for the key that the device joined with. `certified` is the content
    /// of the connection's certificate, if it has one; with a restored store it may name a device that the store does not know.
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
            self.refusals.forget(&device);
        }
        match &done {
            Ok(Done::Joined(_, _, Some(maker))) => {
                let whose = match maker.as_str() {
                    // a token of an earlier version of this program
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

    /// The state of the request of a key; none when there is no such request.
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

    /// Renews the certificate of a device whose current one is still in force, for the same key.
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
                    // The device may have been revoked or replaced while this was under way.
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

    /// Notes a refusal for people, as an event and a log line; the device gets the answer.
    async fn note_refusal(
        &self,
        device: &DeviceName,
        from: IpAddr,
        error: &EnrolError,
        now: Timestamp,
    ) {
        let code = error.code();
        // only a revoked key is known to belong to the name; the name of any other request is just a claim
        let is_told = matches!(error, EnrolError::Revoked)
            && self
                .refusals
                .admit(device, code.id, Instant::now(), || Some(0))
                .is_none();
        if is_told || !self.notes.admits() {
            return;
        }
        // not `device`, which is for names from certificates
        tracing::warn!(claims = %device, %from, code = code.id, %error, "refused a device that asked to join");
        let message = format!("{device} from {from}: {}: {error}", code.id);
        // the name is a claim, which must not displace the device's own events
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
        // The decision holds even if its event cannot be saved.
        let kept = self.store.add_event(event).await;
        self.store.failures().note("keeping an event", &kept, now);
    }
}
