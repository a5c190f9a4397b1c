//! The state of the connection.

use flotta_bundle::Problem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state of the connection, for the people at the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Since when there is a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// When the server last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<Timestamp>,
    /// Why there is no connection, or what the server refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Since when the server has not served this device: it cannot be reached, or it refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Tries since the last connection.
    #[serde(default)]
    pub attempts: u32,
    /// Problems that only the server knows about this device, as it last reported them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Problem>,
    /// When the device's certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<Timestamp>,
    /// The address that is in use, or is being tried.
    #[serde(default)]
    pub server: String,
    /// Why a preferred address is not in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<Problem>,
}

/// Since when the server has not served this device, and why. It survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began.
    pub since: Timestamp,
    /// The first reason.
    pub problem: Problem,
}

impl LinkState {
    /// The state before the first try, with an outage that an earlier agent recorded.
    pub fn after(outage: Option<Outage>) -> Self {
        let mut state = Self::default();
        if let Some(Outage { since, problem }) = outage {
            state.fails(problem, since);
        }
        state
    }

    /// Records that the server does not serve this device.
    pub(crate) fn fails(&mut self, problem: Problem, now: Timestamp) {
        self.failing_since.get_or_insert(now);
        self.problem = Some(problem);
    }

    /// Records that the server serves this device.
    pub(crate) fn works(&mut self) {
        (self.failing_since, self.problem) = (None, None);
    }

    /// The outage to record for the next agent, if there is one.
    pub(crate) fn outage(&self) -> Option<Outage> {
        Some(Outage {
            since: self.failing_since?,
            problem: self.problem.clone()?,
        })
    }
}
