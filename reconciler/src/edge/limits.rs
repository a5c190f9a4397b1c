//! How much of everything. Rates are per device identity, never per address: whole fleets sit behind one.

use std::time::Duration;

use rand::Rng;

use crate::rate::Rate;

/// Requests of one connection at a time. A device has a held poll, a report and a few downloads.
pub(super) const STREAMS: u32 = 32;
/// Longest headers of a request together, in bytes.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// Bytes of bodies that may be on their way to the server before anyone has asked for them: of one request, and of one
/// connection. What the server holds unread.
pub(super) const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// How often a connection that says nothing is tried, and how long it may take to answer. Agents ask more often themselves.
pub(super) const KEEP_ALIVE: (Duration, Duration) =
    (Duration::from_secs(90), Duration::from_secs(30));
/// Longest time a poll is held.
pub(super) const HOLD: Duration = Duration::from_secs(30 * 60);
/// How long a poll is held for a device that no release names yet: one that has just joined is in the next within a second.
pub(super) const HOLD_FOR_FIRST: Duration = Duration::from_secs(5);

/// Refusals that a connection may go away from before they are said, beyond those that it waits for. Who cancels what it asks does not wait for its answer,
/// and would ask as fast as its line carries (CVE-2023-44487).
pub(super) const UNHEARD: u32 = 2 * STREAMS;
/// The same as [`REQUESTS_EACH`](crate::rate::REQUESTS_EACH) for a connection without a device behind it. To join takes a handful.
const REQUESTS_ANONYMOUS: (u32, u32) = (2, 60);
/// Most handshakes at a time: ten thousand that say nothing more leave places for those that do.
const MAX_HANDSHAKES: usize = 16_384;
/// Open files for all but connections: databases, blobs, git, the admin socket.
const OTHER_FILES: usize = 256;

/// What depends on the size of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of devices.
    pub connections: usize,
    /// Connections without a certificate.
    pub anonymous: usize,
    /// Handshakes at a time; further connections wait in the kernel's queue.
    pub handshakes: usize,
    /// How long one who has shown no certificate yet, or has none, keeps a place that another waits for. More than a
    /// satellite's round trips take, and than this many handshakes take a small machine: in a storm nobody would get through.
    pub patience: Duration,
    /// How long a TLS handshake may take, and HTTP/1 headers.
    pub handshake: Duration,
    /// How long a body may take to arrive, and a piece of a blob to be taken.
    pub body: Duration,
    /// How long who asks too often waits for that answer: what it sends meanwhile is bounded, an answer at once is not.
    pub penalty: Duration,
    /// How long a connection without a certificate may last.
    pub anonymous_life: Duration,
    /// Requests to join without an unused token, a second, of all devices together.
    pub asks: u32,
    /// The same with one: not all of them use it up.
    pub invited: u32,
    /// Looks at what became of one, a second, of all devices together.
    pub looks: u32,
    /// Blobs on their way out at a time.
    pub downloads: usize,
}

impl Limits {
    /// Limits under which connections take no more than so many open files, and leave some for all else.
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

/// How often a connection without a device behind it may ask.
pub(super) fn anonymous_requests() -> Rate {
    let (count, burst) = REQUESTS_ANONYMOUS;
    Rate::new(count, burst)
}

/// Seconds for `Retry-After`, with full jitter: those who were turned away together do not come back together.
pub(super) fn retry_after() -> u64 {
    rand::rng().random_range(1..=30)
}
