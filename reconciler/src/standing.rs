//! How the server itself stands, for status lines: what it follows, and what is wrong with that. Shared by those who know
//! and those who show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the server follows. Kept by the store, so that a restart does not make anything young.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceState {
    /// `main@4f2c91a`; empty before anything was read.
    pub label: String,
    /// The commit that was read last.
    pub commit: String,
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// That the source cannot be read, or what it holds cannot be published.
    pub failure: Option<Failure>,
    /// When the source was last looked at with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// How often it is looked at, in seconds.
    pub interval_seconds: u64,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `InForce`, `Refused` or `Held`.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, when it is not in force.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Whether it is the source; otherwise the commit is there and cannot be published.
    pub source: bool,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub message: String,
}

/// Something else that people should know whenever they look at the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Since when.
    pub since: Timestamp,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How the server stands.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    source: SourceState,
    warnings: BTreeMap<&'static str, Warning>,
}

impl Standing {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // nothing panics while it holds the lock; if it did, what is in it is still whole
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server follows.
    pub fn source(&self) -> SourceState {
        self.inner().source.clone()
    }

    /// Changes what is known of the source. Says whether it is another state now, when it was looked at apart.
    pub fn change(&self, change: impl FnOnce(&mut SourceState)) -> bool {
        let mut inner = self.inner();
        let before = inner.source.clone();
        change(&mut inner.source);
        let now = SourceState {
            looked: before.looked,
            ..inner.source.clone()
        };
        now != before
    }

    /// Warns of something until [`Self::settle`]. What goes on keeps the time at which it began.
    pub fn warn(&self, what: &'static str, message: String, now: Timestamp) {
        let mut inner = self.inner();
        let since = inner.warnings.get(what).map_or(now, |known| known.since);
        inner.warnings.insert(what, Warning { since, message });
    }

    /// What was warned of is over.
    pub fn settle(&self, what: &'static str) {
        self.inner().warnings.remove(what);
    }

    /// What is warned of.
    pub fn warnings(&self) -> Vec<Warning> {
        self.inner().warnings.values().cloned().collect()
    }
}
