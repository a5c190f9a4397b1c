//! How long to wait before the next try: exponential, with full jitter, so that a fleet that lost its server together does not
//! come back together.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Delays between tries: each is between nothing and a bound that doubles up to a limit.
#[derive(Debug)]
pub struct Backoff {
    bounds: ExponentialBuilder,
    next: ExponentialBackoff,
    attempts: u32,
}

impl Backoff {
    /// Bounds from `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let bounds = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_factor(2.0)
            .without_max_times();
        Self {
            bounds,
            next: bounds.build(),
            attempts: 0,
        }
    }

    /// How long to wait now: at least a tenth of a second, so that jitter never makes a busy loop.
    pub fn next_delay(&mut self) -> Duration {
        self.next_delay_within(Duration::MAX)
    }

    /// The same, with a bound of `limit` at most.
    pub fn next_delay_within(&mut self, limit: Duration) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let bound = self.next.next().unwrap_or_default().min(limit);
        bound
            .mul_f64(rand::random::<f64>())
            .max(Duration::from_millis(100))
    }

    /// Tries since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Call after a success: the next wait is short again.
    pub fn reset(&mut self) {
        self.attempts = 0;
        self.next = self.bounds.build();
    }
}

/// `whole`, give or take a tenth: for what many devices do at the same interval.
pub fn about(whole: Duration) -> Duration {
    whole.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_bounds_that_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        for bound in [1, 2, 4, 8, 8, 8] {
            assert!(backoff.next_delay() <= Duration::from_secs(bound));
        }
        assert_eq!(backoff.attempts(), 6);
        let limit = Duration::from_secs(2);
        assert!((0..20).all(|_| backoff.next_delay_within(limit) <= limit));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
