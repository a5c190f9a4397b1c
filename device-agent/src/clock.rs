//! What time it is, on machines whose clock begins at 1970 after a power cut.
//!
//! The floor is the newest time that there is reason to believe in: when this program was built, when the newest verified
//! release was issued. What a server says unsigned is not among them: one lie about the time would end every certificate.
//! A clock that is behind the floor is wrong.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use crate::durable;

/// When this program was built, in seconds since 1970, where the build says so (reproducible-builds.org).
const BUILT: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// The agent's one clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<Floor>>);

#[derive(Debug, Clone, Copy)]
struct Floor {
    time: Timestamp,
    learned: Instant,
}

impl Floor {
    /// Time goes on after it was learned, whatever the clock does.
    fn now(self) -> Timestamp {
        let passed = SignedDuration::try_from(self.learned.elapsed()).unwrap_or_default();
        self.time.checked_add(passed).unwrap_or(self.time)
    }
}

impl Clock {
    /// A clock that is never behind `floor`.
    pub fn new(floor: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Floor {
            time: floor,
            learned: Instant::now(),
        })))
    }

    /// The clock as it was last saved. A file that cannot be read is one that is not there: the clock is a help, and must not
    /// keep a device from starting.
    pub fn load(path: &Path) -> Self {
        let built = BUILT
            .and_then(|text| text.parse().ok())
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .unwrap_or_default();
        let saved = durable::read(path, 64)
            .ok()
            .flatten()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(built);
        Self::new(built.max(saved))
    }

    /// Saves the floor, not the machine's clock: one wrong clock must not outlive its repair.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        durable::write(path, format!("{:.0}\n", self.floor()).as_bytes(), 0o600)
    }

    /// A time from a source that was verified.
    pub fn learn(&self, time: Timestamp) {
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if time > floor.now() {
            *floor = Floor {
                time,
                learned: Instant::now(),
            };
        }
    }

    /// The time that it is at least.
    pub fn floor(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now()
    }

    /// The time: the machine's, unless that cannot be.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().max(self.floor())
    }

    /// How long it is until `then`; nothing when it is past.
    pub fn until(&self, then: Timestamp) -> Duration {
        Duration::try_from(then.duration_since(self.now())).unwrap_or_default()
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_never_behind_what_it_learned() {
        let ahead = Timestamp::now() + SignedDuration::from_hours(24);
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        assert!(clock.now() < ahead);
        clock.learn(ahead);
        clock.learn(Timestamp::UNIX_EPOCH);
        assert!(clock.now() >= ahead);
    }

    #[test]
    fn the_floor_is_kept_and_an_unreadable_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clock");
        let time: Timestamp = "2040-01-02T03:04:05Z".parse().expect("a time");
        Clock::new(time).save(&path).expect("written");
        assert!(Clock::load(&path).floor() >= time);
        std::fs::write(&path, b"\xff").expect("written");
        assert!(Clock::load(&path).floor() < time);
    }
}
