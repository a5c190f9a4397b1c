//! How much of everything. Rates are per device identity, never per address: whole fleets sit behind one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Connections of one device at a time: one in use, the others are dead ones that nobody has noticed yet.
pub(super) const CONNECTIONS_EACH: usize = 16;
/// Blobs on their way to one device at a time: one that does not read what it asked for cannot take all of
/// [`Limits::downloads`].
pub(super) const DOWNLOADS_EACH: usize = 8;
/// Requests of one device: a second, and at once. A first bundle may be a few hundred files.
pub(super) const REQUESTS_EACH: (u32, u32) = (20, 1000);
/// Bodies of one device's requests in memory at a time, each at most a megabyte: a device has one report to send, and
/// perhaps one that was lost on the way.
pub(super) const BODIES_EACH: usize = 4;
/// Refusals that a connection may go away from before they are said, beyond those that it waits for. Who cancels what it asks does not wait for its answer,
/// and would ask as fast as its line carries (CVE-2023-44487).
pub(super) const UNHEARD: u32 = 2 * STREAMS;
/// The same as [`REQUESTS_EACH`] for a connection without a device behind it. To join takes a handful.
const REQUESTS_ANONYMOUS: (u32, u32) = (2, 60);
/// Log lines about one device, and about all strangers together: a second, and at once.
const LINES_EACH: (u32, u32) = (1, 10);
const LINES_ANONYMOUS: (u32, u32) = (1, 60);

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

/// How often something may be done.
#[derive(Debug)]
pub(crate) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    /// So often a second, and five seconds' worth at once.
    pub(crate) fn per_second(count: u32) -> Self {
        Self::new(count, count.saturating_mul(5))
    }

    /// So often a second, and so many at once.
    pub(crate) fn new(count: u32, burst: u32) -> Self {
        let at_least_one = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(count)).allow_burst(at_least_one(burst));
        Self(RateLimiter::direct(quota))
    }

    /// Whether it may be done now.
    pub(crate) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Log lines about one: so many that it is plain what goes on, so few that they do not fill a disk.
#[derive(Debug)]
pub(crate) struct Lines {
    rate: Rate,
    skipped: AtomicU64,
}

impl Lines {
    fn new((count, burst): (u32, u32)) -> Self {
        Self {
            rate: Rate::new(count, burst),
            skipped: AtomicU64::new(0),
        }
    }

    /// Lines about all strangers together.
    pub(super) fn anonymous() -> Self {
        Self::new(LINES_ANONYMOUS)
    }

    /// Whether a line may be written now: then, how many were not since the last.
    pub(super) fn admit(&self) -> Option<u64> {
        if self.rate.admits() {
            return Some(self.skipped.swap(0, Ordering::Relaxed));
        }
        self.skipped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// What one device may use.
#[derive(Debug)]
pub(crate) struct Allowance {
    requests: Rate,
    connections: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    lines: Lines,
}

impl Default for Allowance {
    fn default() -> Self {
        let (count, burst) = REQUESTS_EACH;
        Self {
            requests: Rate::new(count, burst),
            bodies: Arc::new(Semaphore::new(BODIES_EACH)),
            lines: Lines::new(LINES_EACH),
            connections: Arc::new(Semaphore::new(CONNECTIONS_EACH)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_EACH)),
        }
    }
}

impl Allowance {
    pub(super) fn admits_request(&self) -> bool {
        self.requests.admits()
    }

    /// A connection of the device, until it is dropped.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// A blob on its way to the device, until it is dropped: waits for one of those before it.
    pub(super) async fn download(&self) -> Option<OwnedSemaphorePermit> {
        // never closed, so there always is one
        Arc::clone(&self.downloads).acquire_owned().await.ok()
    }

    /// A body of the device in memory, until it is dropped: waits for one of those before it.
    pub(super) async fn body(&self) -> Option<OwnedSemaphorePermit> {
        // never closed, so there always is one
        Arc::clone(&self.bodies).acquire_owned().await.ok()
    }

    /// Log lines about the device.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Connections, downloads and bodies that the device has.
    #[cfg(test)]
    pub(super) fn used(&self) -> [usize; 3] {
        [
            CONNECTIONS_EACH - self.connections.available_permits(),
            DOWNLOADS_EACH - self.downloads.available_permits(),
            BODIES_EACH - self.bodies.available_permits(),
        ]
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
