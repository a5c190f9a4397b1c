//! What the server is told: on change and as a heartbeat. A report that does not arrive holds nothing up.

use std::time::Duration;

use flotta_bundle::Digest;
use flotta_bundle::code::Problem;
use flotta_bundle::wire::{Applied, Event, Hardware, Phase, Report, WorkloadReport};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::{Backoff, about};
use crate::clock::Clock;
use crate::pull::{LinkState, Session};

/// How long changes are gathered before they are told: a start of five containers is one report, not twenty.
const GATHER: Duration = Duration::from_millis(500);

/// How the device is now. [`crate::run`] writes it; reports and the state file are made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Highest release accepted.
    #[serde(default)]
    pub release: Option<u64>,
    /// The manifest to have.
    #[serde(default)]
    pub wanted: Option<Digest>,
    /// The manifest the machine has.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// What the agent is doing.
    pub phase: Phase,
    /// What is wrong, worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Every workload, sorted by name.
    #[serde(default)]
    pub workloads: Vec<WorkloadReport>,
    /// What the server has not acknowledged.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Longest time between two reports, in seconds.
    pub heartbeat_seconds: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            release: None,
            wanted: None,
            applied: None,
            phase: Phase::Idle,
            problems: Vec::new(),
            workloads: Vec::new(),
            events: Vec::new(),
            heartbeat_seconds: flotta_bundle::manifest::Settings::default().heartbeat_seconds,
        }
    }
}

impl Live {
    /// Whether the server should hear of this, having heard `told`: events that it has acknowledged are no news.
    fn is_news(&self, told: &Self) -> bool {
        let last = |live: &Self| live.events.last().map_or(0, |event| event.id);
        let without = |live: &Self| Self {
            events: Vec::new(),
            ..live.clone()
        };
        last(self) > last(told) || without(self) != without(told)
    }

    /// The report that says this.
    pub fn report(&self, boot: &str, hardware: &Hardware, clock: &Clock) -> Report {
        Report {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            boot: boot.to_owned(),
            time: clock.now(),
            release: self.release,
            wanted: self.wanted,
            applied: self.applied,
            phase: self.phase,
            problems: self.problems.clone(),
            workloads: self.workloads.clone(),
            events: self.events.clone(),
            hardware: hardware.clone(),
        }
    }
}

/// Tells the server.
#[derive(Debug)]
pub struct Reporter {
    /// How the device is.
    pub live: watch::Receiver<Live>,
    /// The connection, while there is one.
    pub sessions: watch::Receiver<Option<Session>>,
    /// Where an answer is noted.
    pub link: watch::Sender<LinkState>,
    /// The highest event that the server has kept.
    pub acknowledged: watch::Sender<u64>,
    /// What the machine is.
    pub hardware: Hardware,
    /// This boot.
    pub boot: String,
    /// The clock.
    pub clock: Clock,
}

impl Reporter {
    /// Runs until the agent ends.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
        loop {
            let Ok(session) = self
                .sessions
                .wait_for(Option::is_some)
                .await
                .map(|s| s.clone())
            else {
                return;
            };
            let Some(session) = session else { continue };
            let live = self.live.borrow_and_update().clone();
            let report = live.report(&self.boot, &self.hardware, &self.clock);
            let (told, due) = match session.report(&report).await {
                Ok(answer) => {
                    backoff.reset();
                    let now = self.clock.now();
                    self.link.send_modify(|link| link.last_answer = Some(now));
                    // a server cannot have kept what it was not told
                    let told = report.events.last().map_or(0, |event| event.id);
                    let kept = answer.events.min(told);
                    self.acknowledged
                        .send_if_modified(|seen| std::mem::replace(seen, kept.max(*seen)) < kept);
                    let heartbeat = Duration::from_secs(live.heartbeat_seconds.max(1).into());
                    (live, Instant::now() + about(heartbeat))
                }
                Err(error) => {
                    let delay = error.retry_after().unwrap_or_else(|| backoff.next_delay());
                    tracing::debug!(%error, ?delay, "report not delivered");
                    sleep_until(Instant::now() + delay).await;
                    continue;
                }
            };
            if !self.wait_for_news(&told, due).await {
                return;
            }
        }
    }

    /// Waits for news, a new connection or the heartbeat. False when the agent ends.
    async fn wait_for_news(&mut self, told: &Live, due: Instant) -> bool {
        self.sessions.borrow_and_update();
        loop {
            let changed = tokio::select! {
                changed = self.live.changed() => changed,
                changed = self.sessions.changed() => return changed.is_ok(),
                () = sleep_until(due) => return true,
            };
            if changed.is_err() {
                return false;
            }
            if self.live.borrow_and_update().is_news(told) {
                let gathered = (Instant::now() + GATHER).min(due);
                // only the deadline ends this, or the agent
                let _ = timeout_at(gathered, self.live.wait_for(|_| false)).await;
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64) -> Event {
        Event {
            id,
            time: "2026-11-23T10:00:00Z".parse().expect("a time"),
            reason: "Applied".to_owned(),
            message: "release 1".to_owned(),
            warning: false,
        }
    }

    #[test]
    fn acknowledged_events_are_no_news_but_new_ones_and_changes_are() {
        let told = Live {
            events: vec![event(1), event(2)],
            ..Live::default()
        };
        assert!(!told.is_news(&told));
        assert!(!Live::default().is_news(&told));
        let more = Live {
            events: vec![event(3)],
            ..Live::default()
        };
        assert!(more.is_news(&told));
        let applying = Live {
            phase: Phase::Applying,
            ..told.clone()
        };
        assert!(applying.is_news(&told));
    }
}
