//! Who joins: a pure function of what is known.

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;

use super::EnrolError;
use crate::clock::SKEW;
use crate::store::tokens::TokenRecord;
use crate::store::{Device, JoinRequest, RequestState};

/// All that a decision depends on.
pub(super) struct Facts<'a> {
    /// The name asked for.
    pub(super) name: &'a DeviceName,
    /// The key that asks.
    pub(super) key: Digest,
    /// The device of this name, revoked or not.
    pub(super) device: Option<Device>,
    /// The name that the key has joined as, if its identity is in force.
    pub(super) key_of: Option<DeviceName>,
    /// An earlier request of the key.
    pub(super) request: Option<JoinRequest>,
    /// Whether the key lost its identity, or whoever had the name did.
    pub(super) revoked: bool,
    /// Whether it has a certificate by this fleet's authority for this name and key.
    pub(super) vouched: bool,
    /// Whether the store is from a backup.
    pub(super) restored: bool,
    /// The token, if one was sent: as it is remembered, or that it is not.
    pub(super) token: Option<Result<TokenRecord, EnrolError>>,
    pub(super) now: Timestamp,
}

/// What is to be done.
pub(super) enum Verdict {
    /// The device joins by this token.
    Join(TokenRecord),
    /// The device has joined with this key: it gets a fresh certificate, whatever token it sent.
    Again(Device),
    /// A person decides. `new`: the request is to be noted.
    Wait {
        /// Why it waits, when that is not plain.
        note: String,
        new: bool,
    },
    /// A person has decided.
    Denied(String),
}

pub(super) fn decide(facts: Facts<'_>) -> Result<Verdict, EnrolError> {
    let Facts {
        name,
        key,
        device,
        key_of,
        request,
        revoked,
        vouched,
        restored,
        token,
        now,
    } = facts;
    let device = device.filter(|device| device.revoked_at.is_none());
    if let Some(device) = &device
        && device.key == key
    {
        return Ok(Verdict::Again(device.clone()));
    }
    if let Some(other) = key_of {
        return Err(EnrolError::KeyTaken(other));
    }
    let request = request.filter(|request| request.device == *name);
    if let Some(RequestState::Denied { reason, .. }) = request.as_ref().map(|r| &r.state) {
        return Ok(Verdict::Denied(reason.clone()));
    }
    let token = token.map(|token| usable(token, name, now)).transpose()?;
    // A revoked key comes back only by a token that was made for it to come back: not by waiting to be overlooked.
    if token.is_none() && revoked {
        return Err(EnrolError::Revoked);
    }
    match (token, device) {
        (Some(token), None) => Ok(Verdict::Join(token)),
        (token, device) => {
            // never by itself, even with a certificate: it may be from before a revocation that is not known any more
            let note = match (device, token, vouched) {
                (Some(_), Some(_), _) => {
                    "a device of this name has joined with another key; the token it sent is good"
                }
                (Some(_), None, true) => {
                    "certificate of this fleet, not in the store; a device of this name has joined with another key"
                }
                (Some(_), None, false) => "a device of this name has joined with another key",
                (None, _, true) if restored => {
                    "certificate of this fleet, not in the store: joined after the backup?"
                }
                (None, _, true) => "certificate of this fleet, not in the store",
                _ => "",
            };
            Ok(Verdict::Wait {
                note: note.to_owned(),
                new: request.is_none_or(|r| r.state != RequestState::Pending || r.note != note),
            })
        }
    }
}

fn usable(
    token: Result<TokenRecord, EnrolError>,
    name: &DeviceName,
    now: Timestamp,
) -> Result<TokenRecord, EnrolError> {
    let token = token?;
    if let Some((at, ..)) = token.used {
        return Err(EnrolError::TokenUsed(at));
    }
    if let Some((at, _)) = token.revoked {
        return Err(EnrolError::TokenRevoked(at));
    }
    // one that is from the future was made by a clock that was ahead, and would live as much longer
    let is_ahead = token.created_at.duration_since(now) > SKEW;
    if now >= token.expires_at || is_ahead {
        return Err(EnrolError::TokenExpired(token.expires_at));
    }
    if token
        .token
        .device
        .as_ref()
        .is_some_and(|device| device != name)
    {
        return Err(EnrolError::TokenOther(name.clone()));
    }
    Ok(token)
}
