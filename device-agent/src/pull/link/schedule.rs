//! The poll schedule of one connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, about};

/// An answer sooner than this was not held. One such answer is normal; several in a row mean a server that does not hold.
const QUICK: Duration = Duration::from_secs(1);

/// The schedule.
#[derive(Debug)]
pub(super) struct PollSchedule {
    /// When to poll next.
    pub(super) ask_at: Instant,
    refusals: Backoff,
    hasty: Backoff,
    /// The release that the device had at the last answer.
    followed: Option<u64>,
}

impl PollSchedule {
    /// A schedule whose first poll is due at once.
    pub(super) fn new(release: Option<u64>) -> Self {
        Self {
            ask_at: Instant::now(),
            refusals: Backoff::new(Duration::from_secs(2), Duration::from_secs(60)),
            hasty: Backoff::new(QUICK, Duration::from_secs(60)),
            followed: release,
        }
    }

    /// Sets the next poll after an answer that took this long, while the device had this release.
    pub(super) fn answered(&mut self, took: Duration, first: bool, release: Option<u64>) {
        self.refusals.reset();
        self.ask_at = Instant::now();
        // releases in quick succession are signed, and no reason to poll more slowly
        if took >= QUICK || first || release != self.followed {
            self.hasty.reset();
        }
        self.followed = release;
        if took < QUICK && !first {
            self.ask_at += self.hasty.next_delay();
        }
    }

    /// Sets the next poll after a refusal, and returns how long the device waits.
    pub(super) fn refused(&mut self, retry_after: Option<Duration>) -> Duration {
        let delay = about(retry_after.unwrap_or_else(|| self.refusals.next_delay()));
        self.ask_at = Instant::now() + delay;
        delay
    }
}
