//! Checks the server's clock before anything is signed with it.
//!
//! A release or certificate with a wrong time outlives the mistake, so nothing is signed while the clock is clearly wrong: what
//! is in force is served until the clock is right, or a person says that it is. No single source is believed: the clock is
//! compared with the last signature, the time that has passed since it was last right, and devices with synchronised clocks.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use flotta_bundle::Problem;
use flotta_bundle::code::{self, Code};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::store::{FleetEvent, Store, StoreError};

mod judge;
mod source;
#[cfg(test)]
mod tests;

pub use flotta_bundle::clock::SKEW;
pub use judge::{Doubt, Evidence, judge};
use source::is_synchronised;

/// How often the clock is checked.
const LOOK: Duration = Duration::from_secs(5);
/// Number of checks after which the machine is asked again whether its clock is synchronised, and after which the time is
/// saved as right: within the hour that is tolerated.
const ASK_EVERY: u32 = 60;
const KEEP_EVERY: u32 = 360;
/// The store's key for the time at which the clock was right.
pub(crate) const KEPT: &str = "clock";

/// The clock is in doubt: nothing is signed by it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the server's clock is in doubt: {0}")]
pub struct InDoubt(pub String);

impl InDoubt {
    /// The stable code.
    pub fn code(&self) -> Code {
        code::SERVER_CLOCK
    }

    /// The problem to report.
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }
}

/// A time that advances independently of the clock.
#[derive(Debug, Clone, Copy)]
struct Running {
    time: Timestamp,
    since: Instant,
}

impl Running {
    fn at(time: Timestamp) -> Self {
        Self {
            time,
            since: Instant::now(),
        }
    }

    fn now(self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.time.saturating_add(passed).unwrap_or(self.time)
    }
}

/// The server's clock. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// What every request needs; set when the clock is checked, read without a lock.
    doubted: ArcSwapOption<Doubted>,
    /// Wakes the task that reports the end of a doubt.
    accepted: Notify,
}

#[derive(Debug, Default)]
struct State {
    synchronised: Option<bool>,
    signed: Option<Timestamp>,
    right: Option<Running>,
    accepted: Option<Running>,
}

/// The state while the clock is in doubt.
#[derive(Debug)]
struct Doubted {
    doubt: Doubt,
    why: InDoubt,
    /// Another time that it may be.
    right: Option<Running>,
    signed: Option<Timestamp>,
}

impl Doubted {
    fn others(&self) -> impl Iterator<Item = Timestamp> {
        self.right.map(Running::now).into_iter().chain(self.signed)
    }
}

/// A change that a check of the clock has found.
#[derive(Debug, Clone)]
pub enum Change {
    /// The clock is in doubt now.
    Doubted(InDoubt),
    /// The clock is right again.
    Right,
}

impl Clock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A person says that the clock is right. That ends the doubt, which is returned, and holds until the clock jumps or the
    /// server stops. Without a doubt there is nothing to accept: a clock that goes wrong later is doubted all the same.
    pub fn accept(&self, now: Timestamp) -> Option<InDoubt> {
        let mut state = self.state();
        let doubted = self.0.doubted.swap(None)?;
        state.accepted = Some(Running::at(now));
        state.right = Some(Running::at(now));
        self.0.accepted.notify_one();
        Some(doubted.why.clone())
    }

    /// Records when the last release was issued.
    pub fn signed(&self, issued: Timestamp) {
        self.state().signed = Some(issued);
    }

    /// An error while the clock is in doubt and nothing may be signed.
    pub fn check(&self) -> Result<(), InDoubt> {
        match &*self.0.doubted.load() {
            Some(doubted) => Err(doubted.why.clone()),
            None => Ok(()),
        }
    }

    /// Runs `verify` at each time that it may be: `now`, and others while that is in doubt. Succeeds if one passes, else returns
    /// the first error.
    pub fn try_candidates<E>(
        &self,
        now: Timestamp,
        mut verify: impl FnMut(Timestamp) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = verify(now);
        let doubted = self.0.doubted.load();
        match (&first, &*doubted) {
            (Err(_), Some(doubted)) if doubted.others().any(|time| verify(time).is_ok()) => Ok(()),
            _ => first,
        }
    }

    /// Whether `then` is past by all of the times that it may be.
    pub fn is_past(&self, then: Timestamp, now: Timestamp) -> bool {
        self.try_candidates(now, |now| if now < then { Ok(()) } else { Err(()) })
            .is_err()
    }

    /// Checks `now` against all evidence.
    pub fn look(
        &self,
        now: Timestamp,
        devices: &[SignedDuration],
        members: usize,
    ) -> Option<Change> {
        let mut state = self.state();
        let evidence = Evidence {
            now,
            synchronised: state.synchronised,
            accepted: state.accepted.map(Running::now),
            signed: state.signed,
            right: state.right.map(Running::now),
            devices,
            members,
        };
        let doubted = self.0.doubted.load();
        match judge(evidence) {
            None => {
                state.right = Some(Running::at(now));
                self.0.doubted.store(None);
                doubted.as_ref().map(|_| Change::Right)
            }
            Some(doubt) if doubted.as_ref().is_some_and(|known| known.doubt == doubt) => None,
            Some(doubt) => {
                let why = InDoubt(doubt.words(evidence));
                self.0.doubted.store(Some(Arc::new(Doubted {
                    doubt,
                    why: why.clone(),
                    right: state.right,
                    signed: state.signed,
                })));
                Some(Change::Doubted(why))
            }
        }
    }

    /// Whether a clock that was right until now has been set to another time, in which case it matters who set it.
    fn has_leapt(&self, now: Timestamp) -> bool {
        let right = self.state().right;
        let is_far = |right: Running| now.duration_since(right.now()).abs() > SKEW;
        right.is_some_and(is_far) && self.check().is_ok()
    }

    /// Loads what an earlier run left in the store, and checks the clock.
    pub async fn open(&self, store: &Store, now: Timestamp) -> Result<Option<Change>, StoreError> {
        let synchronised = is_synchronised(Path::new("/"), now).await;
        self.resume(store, now, synchronised).await
    }

    pub(crate) async fn resume(
        &self,
        store: &Store,
        now: Timestamp,
        synchronised: Option<bool>,
    ) -> Result<Option<Change>, StoreError> {
        let kept = store.meta(KEPT).await?;
        let right = kept.and_then(|text| text.parse().ok());
        let mut state = self.state();
        state.right = right.map(Running::at);
        state.synchronised = synchronised;
        drop(state);
        Ok(self.look(now, &store.told_times(now), store.count_members()))
    }

    /// Checks the clock for as long as it is polled, and reports changes.
    pub async fn follow(&self, store: &Store, say: impl Fn(&Change)) {
        // a doubt found at the start is on the start screen
        if let Err(doubt) = self.check() {
            note(store, &Change::Doubted(doubt), Timestamp::now()).await;
        }
        let mut every = tokio::time::interval(LOOK);
        let mut looks = 0_u32;
        loop {
            let accepted = tokio::select! {
                _ = every.tick() => None,
                () = self.0.accepted.notified() => Some(Change::Right),
            };
            let mut now = Timestamp::now();
            if looks.is_multiple_of(ASK_EVERY) || self.has_leapt(now) {
                let synchronised = is_synchronised(Path::new("/"), now).await;
                self.state().synchronised = synchronised;
                now = Timestamp::now();
            }
            let found = self.look(now, &store.told_times(now), store.count_members());
            let change = found.or(accepted);
            if let Some(change) = &change {
                say(change);
                note(store, change, now).await;
            }
            if self.check().is_ok() && (change.is_some() || looks.is_multiple_of(KEEP_EVERY)) {
                self.keep(store, now).await;
            }
            looks = looks.wrapping_add(1);
        }
    }

    async fn keep(&self, store: &Store, now: Timestamp) {
        if let Err(error) = store.set_meta(KEPT, format!("{now:.0}")).await {
            tracing::error!(%error, "the time at which the clock was right could not be saved");
        }
    }
}

/// Saves an event.
async fn note(store: &Store, change: &Change, now: Timestamp) {
    let (reason, message, warning) = match change {
        Change::Doubted(doubt) => ("ClockDoubted", doubt.problem().to_string(), true),
        Change::Right => (
            "ClockRight",
            "the server's clock is right again".to_owned(),
            false,
        ),
    };
    let event = FleetEvent {
        id: 0,
        time: now,
        device: None,
        reason: reason.to_owned(),
        message,
        warning,
    };
    if let Err(error) = store.add_event(event).await {
        tracing::error!(%error, "an event could not be saved");
    }
}
