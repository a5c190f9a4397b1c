//! The decision about a request to join, as a pure function of the facts.

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;

use super::EnrolError;
use crate::clock::SKEW;
use crate::store::tokens::TokenRecord;
use crate::store::{Device, JoinRequest, RequestState};

/// The facts that a decision depends on.
pub(super) struct Facts<'a> {
    /// The requested name.
    pub(super) name: &'a DeviceName,
    /// The key of the request.
    pub(super) key: Digest,
    /// The device of this name, revoked or not.
    pub(super) device: Option<Device>,
    /// The name under which the key has joined, if its identity is in force.
    pub(super) key_of: Option<DeviceName>,
    /// An earlier request with this key.
    pub(super) request: Option<JoinRequest>,
    /// Whether the key was revoked, or the name is barred.
    pub(super) revoked: bool,
    /// Whether the client has a certificate by this fleet's CA for this name and key.
    pub(super) vouched: bool,
    /// Whether the store was restored from a backup.
    pub(super) restored: bool,
    /// The token's record, or why it has none; none when no token was sent.
    pub(super) token: Option<Result<TokenRecord, EnrolError>>,
    pub(super) now: Timestamp,
}

/// The decision.
pub(super) enum Verdict {
    /// The device joins with this token.
    Join(TokenRecord),
    /// The device has joined with this key before: it gets a new certificate, whatever token it sent.
    Again(Device),
    /// A person has to decide. `new`: the request must be stored.
    Wait {
        /// Why it waits, if there is a special reason.
        note: String,
        new: bool,
    },
    /// A person denied it, for this reason.
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
    // A revoked key joins again only with a token, so that nobody approves it by mistake.
    if token.is_none() && revoked {
        return Err(EnrolError::Revoked);
    }
    match (token, device) {
        (Some(token), None) => Ok(Verdict::Join(token)),
        (token, device) => {
            // never automatically, even with a certificate: a revocation may have been lost with the restore
            let note = match (device, token, vouched) {
                (Some(_), Some(_), _) => {
                    "a device of this name has joined with another key; the token it sent is valid"
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
    // a token from the future was made by a clock that was ahead, and would be valid for that much longer
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
