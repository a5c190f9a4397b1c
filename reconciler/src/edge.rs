//! The edge API: the API for devices, and the only part that the internet can reach.
//!
//! | route | certificate | answers |
//! |---|---|---|
//! | `POST /v1/enrolments` | no | joined, pending, or denied |
//! | `GET /v1/enrolments/KEY` | no | the same for an earlier request |
//! | `POST /v1/certificates` | yes | a new certificate for the same key |
//! | `GET /v1/desired?root=N` | yes | the device's desired state; held until that changes |
//! | `GET /v1/blobs/sha256:HEX` | yes | a manifest or file of the device's bundle |
//! | `PUT /v1/report` | yes | which events were stored |
//!
//! TLS 1.3 only. A device's identity comes only from its verified certificate, and ends with it: when the certificate expires,
//! or the identity is revoked, its connections close. Everything is bounded ([`limits`]).

mod answer;
mod blobs;
mod connection;
mod desired;
mod gate;
mod identity;
pub mod limits;
mod proof;
mod report;
mod routes;
mod slots;
mod tls;
mod verifier;

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::blobs::Blobs;
use crate::enrol::Enroller;
use crate::index::Index;
use crate::keys::Fleet;
use crate::rate::{Lines, Rate};
use crate::refusals::RefusalLog;
use crate::store::Store;
use limits::Limits;
use slots::Slots;

#[cfg(test)]
mod tests;

/// The edge API. Cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    fleet: Arc<Fleet>,
    store: Store,
    index: Arc<Index>,
    blobs: Arc<dyn Blobs>,
    enroller: Enroller,
    tls: Arc<ServerConfig>,
    limits: Limits,
    /// The rate of all requests to join together: each costs two signatures and a transaction.
    asks: Rate,
    invited: Rate,
    /// The rate of queries for the state of a request.
    looks: Rate,
    /// Parallel downloads of blobs: each may take 16 MiB of memory.
    downloads: Arc<Semaphore>,
    /// Slots for connections in the handshake, without a certificate, and of devices.
    handshakes: Slots,
    anonymous: Slots,
    devices: Arc<Semaphore>,
    /// The rate of log lines about strangers.
    lines: Lines,
    /// Refusals of devices that are not served, for the log.
    refusals: RefusalLog,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge")
            .field("fleet", &self.0.fleet)
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// Creates the API. Fails if the fleet's own certificates cannot be used.
    pub fn new(
        fleet: Arc<Fleet>,
        store: Store,
        index: Arc<Index>,
        blobs: Arc<dyn Blobs>,
        limits: Limits,
    ) -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(Inner {
            tls: tls::config(&fleet)?,
            enroller: Enroller::new(Arc::clone(&fleet), store.clone()),
            fleet,
            store,
            index,
            blobs,
            asks: Rate::per_second(limits.asks),
            invited: Rate::per_second(limits.invited),
            looks: Rate::per_second(limits.looks),
            downloads: Arc::new(Semaphore::new(limits.downloads)),
            handshakes: Slots::new(limits.handshakes, limits.patience),
            anonymous: Slots::new(limits.anonymous, limits.patience),
            devices: Arc::new(Semaphore::new(limits.connections)),
            lines: Lines::anonymous(),
            refusals: RefusalLog::default(),
            limits,
            stopping: watch::Sender::new(false),
        })))
    }

    /// Serves until `stop` is done, and until requests under way are answered; held polls are answered at once.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        connection::accept(self, listener, stop).await;
    }
}
