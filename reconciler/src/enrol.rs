//! How devices join and leave: tokens, requests, approval, renewal, revocation.
//!
//! A name belongs to the key that joined with it until the device is revoked, or a person approves another key in its place:
//! neither a token nor a certificate request can take it over. Each decision is one durable transaction, made by the pure
//! function, `rules::decide`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::BASE64URL_NOPAD;
use flotta_bundle::wire::{Enrolment, EnrolmentRequest, JoinFile, Renewal, Token};
use flotta_bundle::{DeviceName, Digest};
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use crate::keys::{Csr, Fleet, KeysError};
use crate::rate::Rate;
use crate::store::tokens::TokenRecord;
use crate::store::{
    Device, FleetEvent, JoinRequest, Member, NewToken, RequestState, Store, devices, is_restored,
    requests, revoked, tokens,
};
use crate::text::plain;
use crate::told::Told;

mod error;
mod proof;
mod rules;
mod transaction;

pub use error::EnrolError;
use proof::Proven;
use transaction::{Approved, Done, News, approve, enrol, find_request};

#[cfg(test)]
mod tests;

/// Most requests that wait for a person. Beyond it newer ones are turned away, and those that wait stay.
pub const MAX_PENDING: u64 = 10_000;
/// Most of them from one address: one network cannot keep all others out.
pub const MAX_PENDING_EACH: u64 = 1_000;
/// Longest life of a token. A join file in a drawer is a key to the fleet.
pub const MAX_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Approvals on their way to the disk at a time: what comes together is one commit.
const AT_ONCE: usize = 64;
/// Longest reason of a denial, in characters; it is shown on the device.
const MAX_REASON: usize = 256;

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

    /// Makes a token that lives for `ttl`, at most [`MAX_TTL`]. Returns it, which is the only copy, and when it ends.
    pub async fn create_token(
        &self,
        token: NewToken,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<(Token, Timestamp), EnrolError> {
        self.fleet.clock().check().map_err(KeysError::from)?;
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| KeysError::Random)?;
        let secret = Token::new(format!("flotta_{}", BASE64URL_NOPAD.encode(&bytes)));
        let expires_at = now + ttl.clamp(SignedDuration::ZERO, MAX_TTL);
        let record = TokenRecord {
            hash: tokens::hash(&secret),
            token,
            created_at: now,
            expires_at,
            used: None,
            revoked: None,
        };
        let (id, by) = (record.id(), record.token.created_by.clone());
        let whose = record.token.device.as_ref().map(ToString::to_string);
        self.store
            .write(
                move |connection| Ok::<_, EnrolError>(tokens::insert(connection, &record)?),
                |()| {},
            )
            .await?;
        let whose = whose.unwrap_or_else(|| "any device".to_owned());
        let message = format!("token {id} for {whose}, until {expires_at:.0}, made by {by}");
        self.note(None, false, "TokenCreated", message, now).await;
        Ok((secret, expires_at))
    }

    /// A person takes a token back. One that was used has done its work: what joined with it is revoked by its name.
    pub async fn revoke_token(
        &self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<TokenRecord, EnrolError> {
        let (asked, who) = (id.to_owned(), by.to_owned());
        let mut token = self
            .store
            .write(
                move |connection| {
                    let token = tokens::find_by_id(connection, &asked)?;
                    let token = token.ok_or(EnrolError::NoToken(asked))?;
                    if let Some((at, ..)) = token.used {
                        return Err(EnrolError::TokenUsed(at));
                    }
                    if token.revoked.is_none() {
                        tokens::revoke(connection, &token.hash, &who, now)?;
                    }
                    Ok(token)
                },
                |_| {},
            )
            .await?;
        if token.revoked.is_none() {
            token.revoked = Some((now, by.to_owned()));
            let message = format!("token {} was taken back by {by}", token.id());
            self.note(None, false, "TokenRevoked", message, now).await;
        }
        Ok(token)
    }

    /// The join file for a device: where the server is, what to trust, and the token.
    pub fn join_file(
        &self,
        server: String,
        device: Option<DeviceName>,
        token: Option<Token>,
    ) -> JoinFile {
        JoinFile {
            schema: 1,
            fleet: self.fleet.name().clone(),
            server,
            ca: self.fleet.server_ca_certificate_pem(),
            trust_root: self.fleet.trust_root_envelope().clone(),
            device,
            token,
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

    /// A person lets a device in. A denied request may be approved after all.
    pub async fn approve(
        &self,
        target: Target,
        approval: Approval,
        by: &str,
        now: Timestamp,
    ) -> Result<Device, EnrolError> {
        let (fleet, store, who) = (self.fleet.clone(), self.store.clone(), by.to_owned());
        let Approved { device, from, news } = self
            .store
            .write(
                move |connection| approve(connection, &fleet, &target, approval, who, now),
                move |Approved { device, news, .. }| match news {
                    News::Joined(replaced) => {
                        // before its connections end: it must not be taken for one that the store forgot
                        if let Some(key) = replaced {
                            store.was_replaced(*key);
                        }
                        store.has_joined(&device.device, device.key);
                    }
                    News::Terms => store.inventory_changed(),
                    News::Nothing => {}
                },
            )
            .await?;
        let (reason, message) = match news {
            News::Joined(_) => ("Joined", format!("asked from {from}, approved by {by}")),
            News::Terms => ("Approved", format!("set and labels were given by {by}")),
            News::Nothing => return Ok(device),
        };
        self.note(Some(&device.device), false, reason, message, now)
            .await;
        Ok(device)
    }

    /// A person takes back every device that has a certificate of this fleet and that the store does not know: after a
    /// restore. One whose name another key has meanwhile is left for a person to look at, and so is one that is not
    /// `in_git`: without the set that it had, its next manifest would be an empty one.
    pub async fn approve_restored(
        &self,
        in_git: &BTreeSet<DeviceName>,
        by: &str,
        now: Timestamp,
    ) -> Result<Restored, EnrolError> {
        let mut waiting = self.store.requests().await?;
        waiting.retain(|request| request.vouched && request.state == RequestState::Pending);
        let (known, unknown): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|request| in_git.contains(&request.device));
        let decisions: Vec<_> = known
            .into_iter()
            .map(|request| async move {
                let target = Target {
                    device: request.device.clone(),
                    key: Some(request.key.hex()),
                };
                let approved = self.approve(target, Approval::default(), by, now).await;
                approved.map_err(|error| (request, error))
            })
            .collect();
        let decided: Vec<_> = stream::iter(decisions)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let unknown = unknown.into_iter().map(|request| {
            let error = EnrolError::NotInGit(request.device.clone());
            (request, error)
        });
        let mut restored = Restored {
            approved: Vec::new(),
            left: unknown.collect(),
        };
        for decision in decided {
            match decision {
                Ok(device) => restored.approved.push(device),
                Err((_, error)) if !error.is_refusal() => return Err(error),
                Err(left) => restored.left.push(left),
            }
        }
        restored.approved.sort_by(|a, b| a.device.cmp(&b.device));
        restored.left.sort_by(|a, b| a.0.device.cmp(&b.0.device));
        Ok(restored)
    }

    /// A person turns a device away.
    pub async fn deny(
        &self,
        target: Target,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<JoinRequest, EnrolError> {
        let reason = plain(reason, MAX_REASON);
        let state = RequestState::Denied {
            at: now,
            by: by.to_owned(),
            reason: reason.clone(),
        };
        let request = self
            .store
            .write(
                move |connection| {
                    let mut request = find_request(connection, &target)?;
                    if matches!(request.state, RequestState::Approved { .. }) {
                        return Err(EnrolError::AlreadyApproved(request.device));
                    }
                    request.state = state;
                    requests::put(connection, &request)?;
                    Ok(request)
                },
                |_| {},
            )
            .await?;
        let message = format!("{} was denied by {by}: {reason}", request.device);
        self.note(None, false, "JoinDenied", message, now).await;
        Ok(request)
    }

    /// A person ends a device's identity: its certificate is worth nothing from now on, its connections close, its name is
    /// free. A device that was revoked before stays so. Says whether it was not, and its key. After a restore, a name that the
    /// store does not know may be a device's that joined after the backup: then it is the name that is turned away.
    pub async fn revoke(
        &self,
        device: &DeviceName,
        by: &str,
        now: Timestamp,
    ) -> Result<(Option<Digest>, bool), EnrolError> {
        let (name, leaves, store) = (device.clone(), device.clone(), self.store.clone());
        let (key, is_new) = self
            .store
            .write(
                move |connection| {
                    let Some(mut device) = devices::find(connection, &name)? else {
                        if !is_restored(connection)? {
                            return Err(EnrolError::NoDevice(name));
                        }
                        return Ok((None, revoked::bar(connection, &name, now)?));
                    };
                    let is_new = device.revoked_at.is_none();
                    device.revoked_at.get_or_insert(now);
                    devices::put(connection, &device)?;
                    revoked::add(connection, &name, &device.key, now)?;
                    requests::remove(connection, &device.key)?;
                    Ok::<_, EnrolError>((Some(device.key), is_new))
                },
                move |(key, _)| match key {
                    Some(key) => store.has_left(&leaves, *key),
                    None => store.was_barred(leaves),
                },
            )
            .await?;
        if is_new {
            let message = format!("identity revoked by {by}");
            self.note(Some(device), true, "Revoked", message, now).await;
        }
        Ok((key, is_new))
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
