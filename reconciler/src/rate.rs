//! How often something may be done, and what one device may use of the server.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one device at a time: one in use, the others are dead ones that nobody has noticed yet.
pub(crate) const CONNECTIONS_EACH: usize = 16;
/// Blobs on their way to one device at a time: one that does not read what it asked for cannot take all of
/// those that the server sends at a time.
pub(crate) const DOWNLOADS_EACH: usize = 8;
/// Requests of one device: a second, and at once. A first bundle may be a few hundred files.
pub(crate) const REQUESTS_EACH: (u32, u32) = (20, 1000);
/// Bodies of one device's requests in memory at a time, each at most a megabyte: a device has one report to send, and
/// perhaps one that was lost on the way.
pub(crate) const BODIES_EACH: usize = 4;
/// Log lines about one device, and about all strangers together: a second, and at once.
const LINES_EACH: (u32, u32) = (1, 10);
const LINES_ANONYMOUS: (u32, u32) = (1, 60);

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
    pub(crate) fn anonymous() -> Self {
        Self::new(LINES_ANONYMOUS)
    }

    /// Whether a line may be written now: then, how many were not since the last.
    pub(crate) fn admit(&self) -> Option<u64> {
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
    pub(crate) fn admits_request(&self) -> bool {
        self.requests.admits()
    }

    /// A connection of the device, until it is dropped.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// A blob on its way to the device, until it is dropped: waits for one of those before it.
    pub(crate) async fn download(&self) -> Option<OwnedSemaphorePermit> {
        // never closed, so there always is one
        Arc::clone(&self.downloads).acquire_owned().await.ok()
    }

    /// A body of the device in memory, until it is dropped: waits for one of those before it.
    pub(crate) async fn body(&self) -> Option<OwnedSemaphorePermit> {
        // never closed, so there always is one
        Arc::clone(&self.bodies).acquire_owned().await.ok()
    }

    /// Log lines about the device.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Connections, downloads and bodies that the device has.
    #[cfg(test)]
    pub(crate) fn used(&self) -> [usize; 3] {
        [
            CONNECTIONS_EACH - self.connections.available_permits(),
            DOWNLOADS_EACH - self.downloads.available_permits(),
            BODIES_EACH - self.bodies.available_permits(),
        ]
    }
}
