//! The agent's clock, for machines whose clock starts at 1970 after a power cut, and for fleets whose server's clock was once
//! wrong.
//!
//! A clock that the network sets is believed, whatever was signed. Any other clock is corrected by the floor: the time when
//! the last accepted release was issued, or this program was built, plus the time that has passed since. A clock behind the
//! floor is wrong; a floor ahead of a believed clock is wrong, and is dropped. What a server says unsigned does not count.
//!
//! No time found here cuts a device off from its server or keeps a release from it: content is protected by signature and
//! sequence, and the server is identified by its CA and name (`docs/decisions.md`).

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotta_bundle::Problem;
use jiff::{SignedDuration, Timestamp};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::sync::{Notify, watch};

use crate::durable;

mod source;
#[cfg(test)]
mod tests;

pub use flotta_bundle::clock::SKEW;
pub use source::follow;

/// When this program was built, in seconds since 1970, where the build says so (reproducible-builds.org).
const BUILT: Option<&str> = option_env!("SOURCE_DATE_EPOCH");
/// A clock that gains or loses more than this between two reads was set, or the machine was suspended.
const LEAP: SignedDuration = SignedDuration::from_secs(5);

type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The agent's one clock. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: TimeSource,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    leap: Notify,
}

struct State {
    /// The machine's clock, as last read.
    looked: Floor,
    floor: Floor,
    /// When the last accepted release was issued.
    issued: Option<Timestamp>,
    /// Whether the network sets the machine's clock; none when nothing says so.
    synchronised: Option<bool>,
    /// A floor that was ahead of a believed clock, until it has been reported.
    left: Option<Timestamp>,
    /// The problem of a server certificate whose validity does not fit the clock.
    doubt: Option<Problem>,
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    time: Timestamp,
    learned: Instant,
}

impl Floor {
    fn at(time: Timestamp) -> Self {
        Self {
            time,
            learned: Instant::now(),
        }
    }

    /// The floor plus the time that has passed since it was learned, whatever the clock does.
    fn now(self) -> Timestamp {
        let passed = SignedDuration::try_from(self.learned.elapsed()).unwrap_or_default();
        self.time.checked_add(passed).unwrap_or(self.time)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("now", &self.now())
            .field("synchronised", &self.synchronised())
            .finish()
    }
}

impl Clock {
    /// The machine's clock, never behind `floor` unless the network sets it.
    pub fn new(floor: Timestamp) -> Self {
        Self::of(Timestamp::now, floor)
    }

    /// The same with another time source than the machine's clock.
    pub fn of(source: impl Fn() -> Timestamp + Send + Sync + 'static, floor: Timestamp) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                looked: Floor::at(source()),
                floor: Floor::at(floor),
                issued: None,
                synchronised: None,
                left: None,
                doubt: None,
            }),
            source: Arc::new(source),
            changes: watch::Sender::new(0),
            leap: Notify::new(),
        }))
    }

    /// Loads the saved clock. An unreadable file counts as missing: the saved time is only a help, and must not keep a device
    /// from starting.
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

    /// Saves the floor. The machine's clock is part of it only where the network sets it, so that a wrong clock does not survive
    /// its correction.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        durable::write(path, format!("{:.0}\n", self.floor()).as_bytes(), 0o600)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unaided(&self) -> Timestamp {
        let now = (self.0.source)();
        let looked = std::mem::replace(&mut self.state().looked, Floor::at(now));
        if now.duration_since(looked.now()).abs() > LEAP {
            self.0.leap.notify_one();
        }
        now
    }

    /// Returns when the machine's clock was found to have been set.
    async fn leaps(&self) {
        self.0.leap.notified().await;
    }

    /// Changes when there is something new to report: [`Self::left_behind`], [`Self::doubt`], [`Self::synchronised`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn tell(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Learns when the newest accepted release was issued. If that is before the release that it follows, the earlier one was
    /// signed by a clock that was ahead.
    pub fn learn(&self, issued: Timestamp) {
        let mut state = self.state();
        let was_ahead = state.issued.is_some_and(|before| issued < before);
        let is_believed = state.synchronised == Some(true);
        if !is_believed && (issued > state.floor.now() || was_ahead) {
            state.floor = Floor::at(issued);
        }
        state.issued = Some(issued);
    }

    /// Sets whether the network sets the machine's clock; none when that is unknown.
    pub fn set_synchronised(&self, synchronised: Option<bool>) {
        let now = self.unaided();
        let mut state = self.state();
        let mut told = std::mem::replace(&mut state.synchronised, synchronised) != synchronised;
        if synchronised == Some(true) {
            let floor = state.floor.now();
            if floor > now.saturating_add(SKEW).unwrap_or(now) {
                state.left = Some(floor);
                told = true;
            }
            state.floor = Floor::at(now);
        }
        drop(state);
        if told {
            self.tell();
        }
    }

    /// Whether the network sets the machine's clock; none when nothing says so.
    pub fn synchronised(&self) -> Option<bool> {
        self.state().synchronised
    }

    /// Whether the machine's clock is believed.
    pub fn is_believed(&self) -> bool {
        self.synchronised() == Some(true)
    }

    /// Takes a floor that turned out to be ahead of a believed clock; it is returned once.
    pub fn left_behind(&self) -> Option<Timestamp> {
        self.state().left.take()
    }

    /// The problem of a server certificate whose validity does not fit the clock.
    pub fn doubt(&self) -> Option<Problem> {
        self.state().doubt.clone()
    }

    pub(crate) fn set_doubt(&self, doubt: Option<Problem>) {
        let mut state = self.state();
        if state.doubt != doubt {
            state.doubt = doubt;
            drop(state);
            self.tell();
        }
    }

    /// The earliest time that it can be; the exact time where the machine's clock is believed.
    pub fn floor(&self) -> Timestamp {
        if self.is_believed() {
            return self.unaided();
        }
        self.state().floor.now()
    }

    /// The time: the machine's clock, unless that is impossible.
    pub fn now(&self) -> Timestamp {
        self.unaided().max(self.floor())
    }

    /// The times that it may be, the likeliest first; only one where the clock is believed.
    pub fn candidates(&self) -> Vec<Timestamp> {
        let (unaided, floor) = (self.unaided(), self.floor());
        let mut all = vec![unaided.max(floor), unaided.min(floor)];
        all.truncate(if self.is_believed() { 1 } else { 2 });
        all
    }

    /// Whether `then` is past by all of the candidates.
    pub fn is_past(&self, then: Timestamp) -> bool {
        self.candidates().into_iter().all(|now| now >= then)
    }

    /// How long it is until `then`; nothing when it is past.
    pub fn until(&self, then: Timestamp) -> Duration {
        Duration::try_from(then.duration_since(self.now())).unwrap_or_default()
    }
}

/// A time as TLS represents it, which has none before 1970.
pub(crate) fn unix(time: Timestamp) -> UnixTime {
    let seconds = u64::try_from(time.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.now()))
    }
}
