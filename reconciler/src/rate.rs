//! Rate limits, and the resources that one device may use.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one device: one is in use, the others are broken ones that were not noticed yet.
pub(crate) const CONNECTIONS_EACH: usize = 16;
/// Parallel downloads of one device, so that one that does not read its answers cannot take all of the server's download slots.
pub(crate) const DOWNLOADS_EACH: usize = 8;
/// Requests of one device a second, and the burst. A first bundle may have a few hundred files.
pub(crate) const REQUESTS_EACH: (u32, u32) = (20, 1000);
/// Request bodies of one device in memory, each at most a megabyte: a device sends one report, and perhaps repeats one that
/// was lost.
pub(crate) const BODIES_EACH: usize = 4;
/// Log lines about one device, and about all strangers together: a second, and the burst.
const LINES_EACH: (u32, u32) = (1, 10);
const LINES_ANONYMOUS: (u32, u32) = (1, 60);

/// A rate limit.
#[derive(Debug)]
pub(crate) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    /// This many a second, with a burst of five seconds' worth.
    pub(crate) fn per_second(count: u32) -> Self {
        Self::new(count, count.saturating_mul(5))
    }

    /// This many a second, with this burst.
    pub(crate) fn new(count: u32, burst: u32) -> Self {
        let at_least_one = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(count)).allow_burst(at_least_one(burst));
        Self(RateLimiter::direct(quota))
    }

    /// Whether one more is allowed now.
    pub(crate) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// A rate limit for log lines about one client: enough lines to see what happens, too few to fill a disk.
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

    /// Whether a line may be written now; if so, how many were skipped since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        if self.rate.admits() {
            return Some(self.skipped.swap(0, Ordering::Relaxed));
        }
        self.skipped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The resources that one device may use.
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

    /// Takes a connection slot of the device, until it is dropped.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Waits for a download slot of the device, held until it is dropped.
    pub(crate) async fn download(&self) -> Option<OwnedSemaphorePermit> {
        // the semaphore is never closed
        Arc::clone(&self.downloads).acquire_owned().await.ok()
    }

    /// Waits for a slot for a request body of the device, held until it is dropped.
    pub(crate) async fn body(&self) -> Option<OwnedSemaphorePermit> {
        // the semaphore is never closed
        Arc::clone(&self.bodies).acquire_owned().await.ok()
    }

    /// The rate limit for log lines about the device.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Number of connections, downloads and bodies in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> [usize; 3] {
        [
            CONNECTIONS_EACH - self.connections.available_permits(),
            DOWNLOADS_EACH - self.downloads.available_permits(),
            BODIES_EACH - self.bodies.available_permits(),
        ]
    }
}
