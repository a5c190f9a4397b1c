//! When to ask next, on one connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, about};

/// An answer sooner than this was not held. One is as it should be; a row of them is a server that does not hold.
const QUICK: Duration = Duration::from_secs(1);

/// When to ask next.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Then.
    pub(super) ask_at: Instant,
    refusals: Backoff,
    hasty: Backoff,
    /// The release that the device had at the last answer.
    followed: Option<u64>,
}

impl Rhythm {
    /// At once.
    pub(super) fn new(release: Option<u64>) -> Self {
        Self {
            ask_at: Instant::now(),
            refusals: Backoff::new(Duration::from_secs(2), Duration::from_secs(60)),
            hasty: Backoff::new(QUICK, Duration::from_secs(60)),
            followed: release,
        }
    }

    /// After an answer that took so long, while the device had this release.
    pub(super) fn answered(&mut self, took: Duration, first: bool, release: Option<u64>) {
        self.refusals.reset();
        self.ask_at = Instant::now();
        // releases that follow each other fast are signed news, and no reason to be late for the next
        if took >= QUICK || first || release != self.followed {
            self.hasty.reset();
        }
        self.followed = release;
        if took < QUICK && !first {
            self.ask_at += self.hasty.next_delay();
        }
    }

    /// After a refusal. Returns how long the device waits.
    pub(super) fn refused(&mut self, retry_after: Option<Duration>) -> Duration {
        let delay = about(retry_after.unwrap_or_else(|| self.refusals.next_delay()));
        self.ask_at = Instant::now() + delay;
        delay
    }
}
