//! The transactions of enrolment: each function runs in one durable transaction.

use std::net::IpAddr;

use flotta_bundle::Digest;
use jiff::Timestamp;
use rusqlite::Connection;

use super::proof::Proven;
use super::rules::{self, Facts, Verdict};
use super::{Approval, EnrolError, MAX_PENDING, MAX_PENDING_EACH, Target};
use crate::keys::{DeviceKey, Fleet, Issued};
use crate::store::{
    Device, JoinRequest, NewToken, RequestState, devices, is_restored, requests, revoked, tokens,
};

/// The result of the transaction of [`super::Enroller::enrol`].
pub(super) enum Done {
    /// The device has joined, with its certificate, and the person who made its token if it had not joined before.
    Joined(Box<Device>, Issued, Option<String>),
    Waits(bool),
    Denied(String),
}

pub(super) fn enrol(
    connection: &Connection,
    fleet: &Fleet,
    proven: Proven,
    token: Option<Digest>,
    from: IpAddr,
    now: Timestamp,
) -> Result<Done, EnrolError> {
    let key = proven.key.fingerprint();
    let token = match token {
        Some(hash) => Some(tokens::find(connection, &hash)?.ok_or(EnrolError::TokenUnknown)),
        None => None,
    };
    let facts = Facts {
        name: &proven.device,
        key,
        device: devices::find(connection, &proven.device)?,
        key_of: devices::name_of_key(connection, &key)?,
        request: requests::find(connection, &key)?,
        revoked: revoked::is_revoked(connection, &proven.device, &key)?,
        vouched: proven.vouched,
        restored: is_restored(connection)?,
        token,
        now,
    };
    match rules::decide(facts)? {
        Verdict::Join(record) => {
            tokens::use_up(connection, &record.hash, &key, &proven.device, now)?;
            requests::remove(connection, &key)?;
            let maker = record.token.created_by.clone();
            let (device, issued) = join(connection, fleet, proven, record.token, now)?;
            Ok(Done::Joined(Box::new(device), issued, Some(maker)))
        }
        Verdict::Again(mut device) => {
            let issued = fleet.sign_device_certificate(&proven.key, &device.device, now)?;
            device.sealing_key = proven.sealing_key;
            device.certificate_serial.clone_from(&issued.serial);
            device.certificate_not_after = issued.not_after;
            devices::put(connection, &device)?;
            Ok(Done::Joined(Box::new(device), issued, None))
        }
        Verdict::Wait { note, new } => {
            let address = from.to_string();
            let (all, each) = requests::count_pending(connection, &address)?;
            // devices that joined before are no more than the fleet has
            if new && !proven.vouched && (all >= MAX_PENDING || each >= MAX_PENDING_EACH) {
                return Err(EnrolError::TooManyRequests);
            }
            if new {
                requests::put(connection, &proven.into_request(address, note, now))?;
            }
            Ok(Done::Waits(new))
        }
        Verdict::Denied(reason) => Ok(Done::Denied(reason)),
    }
}

fn join(
    connection: &Connection,
    fleet: &Fleet,
    proven: Proven,
    terms: NewToken,
    now: Timestamp,
) -> Result<(Device, Issued), EnrolError> {
    let issued = fleet.sign_device_certificate(&proven.key, &proven.device, now)?;
    let device = Device {
        key: proven.key.fingerprint(),
        spki: proven.key.spki().to_vec(),
        device: proven.device,
        sealing_key: proven.sealing_key,
        hardware: proven.hardware,
        set: terms.set,
        labels: terms.labels,
        joined_at: now,
        certificate_serial: issued.serial.clone(),
        certificate_not_after: issued.not_after,
        revoked_at: None,
    };
    devices::put(connection, &device)?;
    revoked::forgive(connection, &device.key)?;
    Ok((device, issued))
}

/// The result of an approval.
pub(super) struct Approved {
    pub(super) device: Device,
    /// The address of the request.
    pub(super) from: String,
    /// What it changed.
    pub(super) news: News,
}

pub(super) enum News {
    /// The device has joined, in place of the one that had this key.
    Joined(Option<Digest>),
    /// The device had joined before, and its set or labels have changed.
    Terms,
    Nothing,
}

/// Approves a request.
pub(super) fn approve(
    connection: &Connection,
    fleet: &Fleet,
    target: &Target,
    approval: Approval,
    by: String,
    now: Timestamp,
) -> Result<Approved, EnrolError> {
    let mut request = find_request(connection, target)?;
    // the name may have been barred since it asked with its certificate
    if request.vouched && revoked::is_barred(connection, &request.device)? {
        return Err(EnrolError::Revoked);
    }
    let mut replaced = None;
    let there = devices::find(connection, &request.device)?.filter(|d| d.revoked_at.is_none());
    if let Some(there) = there {
        if there.key == request.key {
            return change(connection, there, approval, request.address);
        }
        if !approval.replace {
            return Err(EnrolError::NameTaken(there.device));
        }
        // the certificate of the earlier approval is no longer valid
        requests::remove(connection, &there.key)?;
        revoked::add(connection, &there.device, &there.key, now)?;
        replaced = Some(there.key);
    }
    if let Some(other) = devices::name_of_key(connection, &request.key)? {
        return Err(EnrolError::KeyTaken(other));
    }
    let key = DeviceKey::from_spki(&request.spki).ok_or(EnrolError::OtherKey)?;
    let proven = Proven {
        device: request.device.clone(),
        key,
        sealing_key: request.sealing_key.clone(),
        hardware: request.hardware.clone(),
        vouched: request.vouched,
    };
    let terms = NewToken {
        device: None,
        set: approval.set,
        labels: approval.labels,
        created_by: String::new(),
    };
    let (device, issued) = join(connection, fleet, proven, terms, now)?;
    request.state = RequestState::Approved {
        at: now,
        by,
        certificate: issued.pem,
    };
    requests::put(connection, &request)?;
    Ok(Approved {
        device,
        from: request.address,
        news: News::Joined(replaced),
    })
}

/// Changes the set and labels of a joined device to those given; what is not given stays.
fn change(
    connection: &Connection,
    mut device: Device,
    approval: Approval,
    from: String,
) -> Result<Approved, EnrolError> {
    let before = (device.set.clone(), device.labels.clone());
    if approval.set.is_some() {
        device.set = approval.set;
    }
    if !approval.labels.is_empty() {
        device.labels = approval.labels;
    }
    let news = if (&device.set, &device.labels) == (&before.0, &before.1) {
        News::Nothing
    } else {
        devices::put(connection, &device)?;
        News::Terms
    };
    Ok(Approved { device, from, news })
}

/// Finds the one request that a person means.
pub(super) fn find_request(
    connection: &Connection,
    target: &Target,
) -> Result<JoinRequest, EnrolError> {
    let mut fitting = requests::list(connection, Some(&target.device))?;
    match &target.key {
        Some(text) => {
            let prefix = text.strip_prefix("SHA256:").unwrap_or(text).to_lowercase();
            if prefix.len() < 16 {
                return Err(EnrolError::ShortKey);
            }
            fitting.retain(|request| request.key.hex().starts_with(&prefix));
        }
        // Without a key, pending requests take precedence over decided ones.
        None if fitting.iter().any(|r| r.state == RequestState::Pending) => {
            fitting.retain(|request| request.state == RequestState::Pending);
        }
        None => {}
    }
    match fitting.len() {
        0 => Err(EnrolError::NoRequest(target.device.clone())),
        1 => Ok(fitting.remove(0)),
        count => Err(EnrolError::Ambiguous(target.device.clone(), count)),
    }
}
