//! The state of the server's source and its warnings, for status lines. Shared by the parts that set and show them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state of the source. It is saved in the store, so that a restart does not reset its times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceState {
    /// `main@4f2c91a`; empty before the first read.
    pub label: String,
    /// The commit that was read last.
    pub commit: String,
    /// What happened with it.
    pub verdict: Option<Verdict>,
    /// Set if the source cannot be read, or its commit cannot be published.
    pub failure: Option<Failure>,
    /// When the source was last polled with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// The polling interval, in seconds.
    pub interval_seconds: u64,
}

/// What happened with a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `InForce`, `Refused` or `Held`.
    pub state: String,
    /// Since when it has this state.
    pub since: Timestamp,
    /// The reason, if it is not in force.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A failure of the source or of publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Whether the source failed; otherwise its commit cannot be published.
    pub source: bool,
    /// Since when it has this state.
    pub since: Timestamp,
    /// Why.
    pub message: String,
}

/// A warning that is shown whenever people look at the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Since when it has this state.
    pub since: Timestamp,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The shared state.
#[derive(Debug, Clone, Default)]
pub struct ServerState(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    source: SourceState,
    warnings: BTreeMap<&'static str, Warning>,
}

impl ServerState {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // nothing panics while it holds the lock; even if it did, the content would be consistent
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the source.
    pub fn source(&self) -> SourceState {
        self.inner().source.clone()
    }

    /// Changes the state of the source. Returns whether it differs now, apart from the time of the last poll.
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

    /// Adds a warning until [`Self::settle`]. A lasting one keeps the time at which it began.
    pub fn warn(&self, what: &'static str, message: String, now: Timestamp) {
        let mut inner = self.inner();
        let since = inner.warnings.get(what).map_or(now, |known| known.since);
        inner.warnings.insert(what, Warning { since, message });
    }

    /// Removes a warning.
    pub fn settle(&self, what: &'static str) {
        self.inner().warnings.remove(what);
    }

    /// All warnings.
    pub fn warnings(&self) -> Vec<Warning> {
        self.inner().warnings.values().cloned().collect()
    }
}
