//! Limits. Rates are per device identity, never per address, because whole fleets are behind one.

use std::time::Duration;

use rand::Rng;

use crate::rate::Rate;

/// Parallel requests of one connection. A device has a held poll, a report and a few downloads.
pub(super) const STREAMS: u32 = 32;
/// Largest size of all headers of a request, in bytes.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// HTTP/2 flow control windows of a request and of a connection: bytes of bodies that the server may have to buffer unread.
pub(super) const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// How often an idle connection is pinged, and how long it may take to answer. Agents send requests more often than that.
pub(super) const KEEP_ALIVE: (Duration, Duration) =
    (Duration::from_secs(90), Duration::from_secs(30));
/// Longest time a poll is held.
pub(super) const HOLD: Duration = Duration::from_secs(30 * 60);
/// How long a poll is held for a device that no release names yet: one that has just joined is in the next release within a
/// second.
pub(super) const HOLD_FOR_FIRST: Duration = Duration::from_secs(5);

/// Refusals that a connection may cancel before they are sent, beyond those that it waits for. A client that cancels its
/// requests would otherwise send them as fast as its network allows (CVE-2023-44487).
pub(super) const IGNORED_REFUSALS: u32 = 2 * STREAMS;
/// The same as [`REQUESTS_EACH`](crate::rate::REQUESTS_EACH) for a connection without a device. Joining takes a handful.
const REQUESTS_ANONYMOUS: (u32, u32) = (2, 60);
/// Most parallel handshakes: ten thousand stalled ones leave slots for the others.
const MAX_HANDSHAKES: usize = 16_384;
/// Open files for everything but connections: databases, blobs, git, the admin socket.
const OTHER_FILES: usize = 256;

/// Limits that depend on the size of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of devices.
    pub connections: usize,
    /// Connections without a certificate.
    pub anonymous: usize,
    /// Parallel handshakes; further connections wait in the kernel's queue.
    pub handshakes: usize,
    /// How long a client without a certificate, or in the handshake, keeps a slot that another waits for. It must be longer
    /// than the round trips over a satellite, and than a small machine needs for this many handshakes, or nobody would get
    /// through a reconnect storm.
    pub patience: Duration,
    /// How long a TLS handshake may take, and HTTP/1 headers.
    pub handshake: Duration,
    /// How long a body may take to arrive, and a chunk of a blob to be taken.
    pub body: Duration,
    /// How long a refusal for too many requests is delayed: the requests meanwhile are bounded, but after an immediate answer
    /// they would not be.
    pub penalty: Duration,
    /// How long a connection without a certificate may last.
    pub anonymous_life: Duration,
    /// Requests to join without an unused token, a second, for all devices together.
    pub asks: u32,
    /// The same for requests with an unused token; those without one do not use up this limit.
    pub invited: u32,
    /// Queries for the state of a request, a second, for all devices together.
    pub looks: u32,
    /// Parallel downloads of blobs.
    pub downloads: usize,
}

impl Limits {
    /// Limits for a process with so many open files, with some left for everything but connections.
    pub fn for_files(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let anonymous = (files / 8).clamp(1, 1024);
        let handshakes = (files / 4).clamp(1, MAX_HANDSHAKES);
        let others = anonymous + handshakes + OTHER_FILES;
        Self {
            connections: files.saturating_sub(others).max(1),
            anonymous,
            handshakes,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            anonymous: 1024,
            handshakes: 1024,
            patience: Duration::from_secs(3),
            handshake: Duration::from_secs(10),
            body: Duration::from_secs(60),
            penalty: Duration::from_secs(1),
            anonymous_life: Duration::from_secs(60),
            asks: 20,
            invited: 1000,
            looks: 100,
            downloads: 64,
        }
    }
}

/// The request rate of a connection without a device.
pub(super) fn anonymous_requests() -> Rate {
    let (count, burst) = REQUESTS_ANONYMOUS;
    Rate::new(count, burst)
}

/// Seconds for `Retry-After`, with full jitter: clients that were refused together do not come back together.
pub(super) fn retry_after() -> u64 {
    rand::rng().random_range(1..=30)
}
