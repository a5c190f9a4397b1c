//! The identity of the client, only from its verified certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::FromRequestParts;
use flotta_bundle::{DeviceName, Digest, code};
use http::StatusCode;
use http::request::Parts;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tracing::field::display;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Edge;
use super::answer::Refused;
use super::limits;
use crate::enrol::Certified;
use crate::keys::DeviceKey;
use crate::rate::{Lines, Rate};
use crate::store::Member;

/// The client of a connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    pub(super) who: ClientIdentity,
    /// The request rate of a connection without a device; a device has an allowance that all its connections share.
    pub(super) requests: Rate,
    ignored: IgnoredRefusals,
}

/// Counts refusals that the client did not wait for, less those that it did: a client that cancels one request because
/// another was refused is not ignoring them.
#[derive(Debug, Default)]
struct IgnoredRefusals {
    count: AtomicU32,
    more: Notify,
}

/// A delayed refusal. It counts as not waited for until it is sent.
pub(super) struct PendingRefusal<'a>(&'a IgnoredRefusals);

impl PendingRefusal<'_> {
    pub(super) fn said(self) {
        let less = |count: u32| Some(count.saturating_sub(1));
        let _ = self
            .0
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        std::mem::forget(self);
    }
}

impl Drop for PendingRefusal<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.more.notify_one();
    }
}

#[derive(Debug)]
pub(super) enum ClientIdentity {
    /// A client without a certificate.
    Nobody,
    /// A client whose certificate is from the device CA, but does not identify a device.
    Stranger(&'static str),
    /// A client with the certificate of a device whose identity is no longer in force.
    Left(DeviceName),
    /// A device of this fleet that the store does not know, because it joined after the backup that the store was restored
    /// from.
    Unknown(Certified),
    /// A device that is served.
    Device(Peer),
}

/// The device of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) device: DeviceName,
    pub(super) member: Arc<Member>,
    pub(super) expires: Timestamp,
}

/// The content of a certificate.
struct Claims {
    device: DeviceName,
    key: Digest,
    expires: Timestamp,
}

impl Caller {
    /// Identifies the client of an accepted handshake. `chain` is what the client sent. Only its first certificate is read,
    /// which rustls has verified; the others may have served to verify it.
    pub(super) fn new(
        edge: &Edge,
        chain: Option<&[CertificateDer<'_>]>,
        address: IpAddr,
        now: Timestamp,
    ) -> Self {
        let who = match chain.and_then(<[_]>::first) {
            None => ClientIdentity::Nobody,
            Some(leaf) => match read(leaf, edge) {
                Err(why) => ClientIdentity::Stranger(why),
                // A resumed session was verified only when it began.
                Ok(said) if edge.0.fleet.clock().is_past(said.expires, now) => {
                    ClientIdentity::Stranger("it has expired")
                }
                Ok(said) => match edge.0.store.member(&said.device) {
                    Some(member) if member.key() == said.key && member.in_force() => {
                        edge.0.refusals.forget(&said.device);
                        ClientIdentity::Device(Peer {
                            device: said.device,
                            member,
                            expires: said.expires,
                        })
                    }
                    _ if edge.0.store.is_revoked(&said.device, &said.key) => {
                        ClientIdentity::Left(said.device)
                    }
                    _ => ClientIdentity::Unknown(Certified {
                        device: said.device,
                        key: said.key,
                    }),
                },
            },
        };
        Self {
            address,
            who,
            requests: limits::anonymous_requests(),
            ignored: IgnoredRefusals::default(),
        }
    }

    pub(super) fn hold(&self) -> PendingRefusal<'_> {
        PendingRefusal(&self.ignored)
    }

    /// Returns once the client has ignored as many refusals as allowed.
    pub(super) async fn ignores_refusals(&self) {
        while self.ignored.count.load(Ordering::Relaxed) < limits::IGNORED_REFUSALS {
            self.ignored.more.notified().await;
        }
    }

    /// Its name in the log: only a validated name from a certificate.
    pub(super) fn name(&self) -> Option<tracing::field::DisplayValue<&DeviceName>> {
        match &self.who {
            ClientIdentity::Nobody | ClientIdentity::Stranger(_) => None,
            ClientIdentity::Left(device)
            | ClientIdentity::Unknown(Certified { device, .. })
            | ClientIdentity::Device(Peer { device, .. }) => Some(display(device)),
        }
    }

    /// The device that its certificate names, if that is not served.
    pub(super) fn turned_away(&self) -> Option<&DeviceName> {
        match &self.who {
            ClientIdentity::Left(device) | ClientIdentity::Unknown(Certified { device, .. }) => {
                Some(device)
            }
            ClientIdentity::Nobody | ClientIdentity::Stranger(_) | ClientIdentity::Device(_) => {
                None
            }
        }
    }

    /// The rate of log lines about this client.
    pub(super) fn lines<'a>(&'a self, edge: &'a Edge) -> &'a Lines {
        match &self.who {
            ClientIdentity::Device(peer) => peer.member.allowance().lines(),
            _ => &edge.0.lines,
        }
    }
}

fn read(leaf: &CertificateDer<'_>, edge: &Edge) -> Result<Claims, &'static str> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| "it cannot be read")?;
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or("it names nobody")?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err("it does not name one device");
    };
    let (fleet, device) =
        DeviceName::from_identity(uri).map_err(|_| "it does not name a device")?;
    if fleet != *edge.0.fleet.name() {
        return Err("it belongs to another fleet");
    }
    let key = DeviceKey::from_spki(certificate.public_key().raw)
        .ok_or("its key is not a device key")?
        .fingerprint();
    let expires = Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|_| "its expiry cannot be read")?;
    Ok(Claims {
        device,
        key,
        expires,
    })
}

impl Peer {
    /// Checks that the device is still served. Its connections are closed when it no longer is; this is for requests that were
    /// already under way.
    pub(super) fn check(&self, edge: &Edge, now: Timestamp) -> Result<(), Refused> {
        if !self.member.in_force() {
            return Err(revoked(&self.device));
        }
        if edge.0.fleet.clock().is_past(self.expires, now) {
            return Err(bad_certificate("it has expired"));
        }
        Ok(())
    }
}

fn revoked(device: &DeviceName) -> Refused {
    let message = format!("the identity of {device} with this key is not in force");
    Refused::new(StatusCode::FORBIDDEN, code::REVOKED, message)
}

fn unknown(device: &DeviceName) -> Refused {
    let message =
        format!("this server does not know {device}, which has a certificate of its fleet");
    Refused::new(StatusCode::FORBIDDEN, code::UNKNOWN_DEVICE, message)
}

fn bad_certificate(why: &str) -> Refused {
    let message = format!("the certificate identifies no device: {why}");
    Refused::new(StatusCode::FORBIDDEN, code::BAD_CERTIFICATE, message)
}

impl FromRequestParts<Edge> for Peer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refused> {
        let caller = caller(parts)?;
        match &caller.who {
            ClientIdentity::Nobody => Err(Refused::new(
                StatusCode::UNAUTHORIZED,
                code::NO_CERTIFICATE,
                "this needs a device's certificate",
            )),
            ClientIdentity::Stranger(why) => Err(bad_certificate(why)),
            ClientIdentity::Left(device) => Err(revoked(device)),
            ClientIdentity::Unknown(certified) => Err(unknown(&certified.device)),
            ClientIdentity::Device(peer) => {
                let now = Timestamp::now();
                peer.check(edge, now)?;
                peer.member.saw(now);
                Ok(peer.clone())
            }
        }
    }
}

impl Caller {
    /// The content of its certificate, if the store does not know the device.
    pub(super) fn certified(&self) -> Option<&Certified> {
        match &self.who {
            ClientIdentity::Unknown(certified) => Some(certified),
            _ => None,
        }
    }
}

/// The client that a request came from.
pub(super) struct From(pub(super) Arc<Caller>);

impl FromRequestParts<Edge> for From {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _edge: &Edge) -> Result<Self, Refused> {
        caller(parts).map(|caller| Self(Arc::clone(caller)))
    }
}

fn caller(parts: &Parts) -> Result<&Arc<Caller>, Refused> {
    // every connection adds it
    parts.extensions.get().ok_or_else(Refused::not_found)
}
