//! Whether the server's clock is right, looked at before anything is signed by it.
//!
//! A release or certificate with a wrong time outlives the mistake, so a clock that is clearly wrong signs nothing: what is in
//! force is served until the clock is right, or a person says that it is. Nothing here is believed alone: the clock is held
//! against what was signed last, the time that passed since it was right last, and devices whose clocks the network sets.

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

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Looks after which the machine is asked again whether the network sets its clock, and after which it is written down that the
/// clock was right: an hour is as much as is tolerated.
const ASK_EVERY: u32 = 60;
const KEEP_EVERY: u32 = 360;
/// Where the store has when the clock was right.
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

    /// With its code and what to do.
    pub fn problem(&self) -> Problem {
        Problem::new(self.code(), self.to_string())
    }
}

/// A time that goes on by itself, whatever becomes of the clock.
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
    /// What every request asks for: made when the clock is looked at, read without a lock.
    doubted: ArcSwapOption<Doubted>,
    /// Wakes the one who says that a doubt is over.
    accepted: Notify,
}

#[derive(Debug, Default)]
struct State {
    synchronised: Option<bool>,
    signed: Option<Timestamp>,
    right: Option<Running>,
    accepted: Option<Running>,
}

/// What holds while the clock is in doubt.
#[derive(Debug)]
struct Doubted {
    doubt: Doubt,
    why: InDoubt,
    /// What else the time may be.
    right: Option<Running>,
    signed: Option<Timestamp>,
}

impl Doubted {
    fn others(&self) -> impl Iterator<Item = Timestamp> {
        self.right.map(Running::now).into_iter().chain(self.signed)
    }
}

/// What a look at the clock has changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is in doubt now.
    Doubted(InDoubt),
    /// It is right again.
    Right,
}

impl Clock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A person says that the clock is right. That ends the doubt, which is given back, and holds until the clock leaps or the
    /// server stops. Without a doubt there is nothing to accept: a clock that goes wrong later is doubted all the same.
    pub fn accept(&self, now: Timestamp) -> Option<InDoubt> {
        let mut state = self.state();
        let doubted = self.0.doubted.swap(None)?;
        state.accepted = Some(Running::at(now));
        state.right = Some(Running::at(now));
        self.0.accepted.notify_one();
        Some(doubted.why.clone())
    }

    /// What was signed last says that it was issued then.
    pub fn signed(&self, issued: Timestamp) {
        self.state().signed = Some(issued);
    }

    /// Why nothing is to be signed; an error while the clock is in doubt.
    pub fn check(&self) -> Result<(), InDoubt> {
        match &*self.0.doubted.load() {
            Some(doubted) => Err(doubted.why.clone()),
            None => Ok(()),
        }
    }

    /// The first error of `verify` at the times that it may be, unless one of them passes: `now`, and others while that is in
    /// doubt.
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

    /// Whether `then` is past, whichever of the times that it may be is right.
    pub fn is_past(&self, then: Timestamp, now: Timestamp) -> bool {
        self.try_candidates(now, |now| if now < then { Ok(()) } else { Err(()) })
            .is_err()
    }

    /// Holds `now` against all that is known.
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

    /// Whether a clock that was right until now has been set to another time: then it counts who did that.
    fn has_leapt(&self, now: Timestamp) -> bool {
        let right = self.state().right;
        let is_far = |right: Running| now.duration_since(right.now()).abs() > SKEW;
        right.is_some_and(is_far) && self.check().is_ok()
    }

    /// Takes up what an earlier start has left in the store, and looks.
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

    /// Looks for as long as it is polled, and says what changes.
    pub async fn follow(&self, store: &Store, say: impl Fn(&Change)) {
        // what the start has found, its screen has said
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
            tracing::error!(%error, "that the clock is right was not kept");
        }
    }
}

/// An event for who looks later.
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
        tracing::error!(%error, "an event was not kept");
    }
}
