//! How the connection is.

use flotta_bundle::Problem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How the connection is, for the people in front of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Since when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// When the server said something last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<Timestamp>,
    /// Why there is none, or what the server refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Since when the server has not served this device: it was not reached, or refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Tries since there was one.
    #[serde(default)]
    pub attempts: u32,
    /// What the server knows of the device and the device cannot know, as it said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Problem>,
    /// When the device's certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<Timestamp>,
    /// The address that is in use, or is tried.
    #[serde(default)]
    pub server: String,
    /// Why one that is preferred to it is not in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<Problem>,
}

/// Since when the server has not served this device, and why: what an agent leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Then.
    pub since: Timestamp,
    /// Why, at first.
    pub problem: Problem,
}

impl LinkState {
    /// Before the first try, after what the agent before this one left.
    pub fn after(outage: Option<Outage>) -> Self {
        let mut state = Self::default();
        if let Some(Outage { since, problem }) = outage {
            state.fails(problem, since);
        }
        state
    }

    /// The server does not serve this device.
    pub(crate) fn fails(&mut self, problem: Problem, now: Timestamp) {
        self.failing_since.get_or_insert(now);
        self.problem = Some(problem);
    }

    /// It does.
    pub(crate) fn works(&mut self) {
        (self.failing_since, self.problem) = (None, None);
    }

    /// What to leave to the next agent.
    pub(crate) fn outage(&self) -> Option<Outage> {
        Some(Outage {
            since: self.failing_since?,
            problem: self.problem.clone()?,
        })
    }
}
