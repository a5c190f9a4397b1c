//! Reports to the server: on change and as a heartbeat. A failing report holds nothing up.

use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::Settings;
use flotta_bundle::wire::{
    Applied, Event, Hardware, MAX_REPORT_BYTES, Phase, Report, WorkloadReport,
};
use flotta_bundle::{Digest, Owner};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::{Backoff, about};
use crate::clock::Clock;
use crate::pull::{LinkState, Session};

/// How long changes are gathered before a report: the start of five containers is one report, not twenty.
const GATHER: Duration = Duration::from_millis(500);
/// Most of the problems sent by the server that are shown.
const MAX_TOLD: usize = 8;
/// Most problems in one report that do not belong to a workload.
const MAX_PROBLEMS: usize = 1000;

/// The current state of the device. [`crate::run`] writes it; reports and the state file are made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Highest release accepted.
    #[serde(default)]
    pub release: Option<u64>,
    /// The wanted manifest.
    #[serde(default)]
    pub wanted: Option<Digest>,
    /// The applied manifest.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// What the agent is doing.
    pub phase: Phase,
    /// The device's problems, worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Every workload, sorted by name.
    #[serde(default)]
    pub workloads: Vec<WorkloadReport>,
    /// The events that the server has not acknowledged.
    #[serde(default)]
    pub events: Vec<Event>,
    /// The id of the log that the events are numbered in.
    #[serde(default)]
    pub log: String,
    /// The settings of the agent in the manifest in force.
    #[serde(default)]
    pub settings: Settings,
    /// The release that was accepted last, as signed.
    #[serde(skip)]
    pub accepted: Option<Envelope>,
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
            log: String::new(),
            settings: Settings::default(),
            accepted: None,
        }
    }
}

impl Live {
    /// Whether this must be reported after `told` was: acknowledged events are no news.
    fn is_news(&self, told: &Self) -> bool {
        let last = |live: &Self| live.events.last().map_or(0, |event| event.id);
        let without = |live: &Self| Self {
            events: Vec::new(),
            ..live.clone()
        };
        last(self) > last(told) || without(self) != without(told)
    }

    /// Builds the report, with the accepted release. Its length is limited: events that do not fit wait for the next report, and
    /// too many messages are shortened.
    pub fn report(&self, boot: &str, hardware: &Hardware, clock: &Clock) -> Report {
        let mut report = Report {
            clock_synchronised: clock.synchronised(),
            release: self.release,
            wanted: self.wanted,
            applied: self.applied,
            phase: self.phase,
            problems: self.problems.clone(),
            workloads: self.workloads.clone(),
            log: self.log.clone(),
            accepted: self.accepted.clone(),
            hardware: hardware.clone(),
            ..Report::new(env!("CARGO_PKG_VERSION"), boot, clock.now())
        };
        // the server knows only workloads; problems of other objects are reported as the device's
        let (workloads, others) = report.workloads.into_iter().partition(is_workload);
        let others: Vec<WorkloadReport> = others;
        report.workloads = workloads;
        let others = others.into_iter().filter_map(|other| other.problem);
        report.problems.extend(others);
        report.problems.truncate(MAX_PROBLEMS);
        for words in [256, 64, 0] {
            // half of the size is for events
            if size(&report) <= MAX_REPORT_BYTES / 2 {
                break;
            }
            let of_workloads = report.workloads.iter_mut();
            let of_workloads = of_workloads.filter_map(|workload| workload.problem.as_mut());
            for problem in report.problems.iter_mut().chain(of_workloads) {
                for text in [
                    &mut problem.message,
                    &mut problem.detail,
                    &mut problem.subject,
                ] {
                    code::cut(text, words);
                }
                // the help can be looked up by the code
                problem.help.clear();
            }
        }
        report.events.clone_from(&self.events);
        while report.events.len() > 1 && size(&report) > MAX_REPORT_BYTES {
            report.events.truncate(report.events.len() / 2);
        }
        report
    }
}

fn is_workload(report: &WorkloadReport) -> bool {
    let owner = report.name.parse::<Owner>();
    owner.is_ok_and(|owner| owner.is_workload())
}

/// The problems sent by the server, limited to what is shown: a few lines of plain text.
fn told(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.truncate(MAX_TOLD);
    for problem in &mut problems {
        for text in [
            &mut problem.code,
            &mut problem.subject,
            &mut problem.message,
            &mut problem.detail,
            &mut problem.help,
        ] {
            text.retain(|c| !c.is_control());
            code::cut(text, code::MAX_MESSAGE);
        }
    }
    problems
}

/// The size of a report in bytes.
fn size(report: &Report) -> usize {
    // a report that cannot be serialised fails when it is sent
    serde_json::to_vec(report).map_or(0, |bytes| bytes.len())
}

/// Sends reports.
#[derive(Debug)]
pub struct Reporter {
    /// The state of the device.
    pub live: watch::Receiver<Live>,
    /// The current connection, if there is one.
    pub sessions: watch::Receiver<Option<Session>>,
    /// The state of the connection, to note answers in.
    pub link: watch::Sender<LinkState>,
    /// The highest event id that the server has stored.
    pub acknowledged: watch::Sender<u64>,
    /// Facts about the machine.
    pub hardware: Hardware,
    /// The kernel's boot id.
    pub boot: String,
    /// The agent's clock.
    pub clock: Clock,
}

impl Reporter {
    /// Runs until the agent exits.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
        // whether the server has asked for the accepted release as proof
        let mut prove = false;
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
            let mut live = self.live.borrow_and_update().clone();
            let mut report = live.report(&self.boot, &self.hardware, &self.clock);
            if !prove {
                report.accepted = None;
            }
            report.server.clone_from(&self.link.borrow().server);
            let (told, due) = match session.report(&report).await {
                Ok(answer) => {
                    backoff.reset();
                    let now = self.clock.now();
                    let problems = told(answer.problems);
                    self.link.send_modify(|link| {
                        link.last_answer = Some(now);
                        link.told = problems;
                    });
                    // a server cannot have stored an event that was not sent
                    let told = report.events.last().map_or(0, |event| event.id);
                    live.events = report.events;
                    let kept = answer.events.min(told);
                    self.acknowledged
                        .send_if_modified(|seen| std::mem::replace(seen, kept.max(*seen)) < kept);
                    // sent at once, and once: a proof that the server does not accept would not be accepted next time either
                    prove = answer.prove && !prove;
                    if prove {
                        continue;
                    }
                    let heartbeat =
                        Duration::from_secs(live.settings.heartbeat_seconds.max(1).into());
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

    /// Waits for news, a new connection or the heartbeat. False when the agent is shutting down.
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
                // ends only at the deadline or with the agent
                let _ = timeout_at(gathered, self.live.wait_for(|_| false)).await;
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flotta_bundle::wire::WorkloadState;
    use jiff::Timestamp;

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
    fn a_server_hears_of_objects_that_are_no_workloads_as_of_the_device() {
        let report = |name: &str, problem: Option<&Problem>| WorkloadReport {
            name: name.to_owned(),
            state: WorkloadState::Failed,
            problem: problem.cloned(),
            since: None,
            restarts: 0,
        };
        let problem = Problem::new(code::UNIT_FAILED, "net.service exited 1");
        let live = Live {
            workloads: vec![
                report("EdgeConfig/net", Some(&problem)),
                report("web", None),
            ],
            ..Live::default()
        };
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let told = live.report("boot", &Hardware::default(), &clock);
        assert_eq!(told.workloads, [report("web", None)]);
        assert_eq!(told.problems, [problem]);
    }

    #[test]
    fn the_longest_report_is_short_enough_and_loses_no_event() {
        let problem = Problem::new(code::UNIT_FAILED, "\u{10ffff}".repeat(2000));
        let workloads = (0..flotta_bundle::manifest::MAX_UNITS).map(|n| WorkloadReport {
            name: format!("{n:0>63}"),
            state: WorkloadState::Failed,
            problem: Some(problem.clone()),
            since: Some(Timestamp::MAX),
            restarts: u32::MAX,
        });
        let events = (1..=200).map(|id| Event {
            message: problem.message.clone(),
            ..event(id)
        });
        let mut live = Live {
            problems: vec![problem.clone(); 3000],
            workloads: workloads.collect(),
            events: events.collect(),
            ..Live::default()
        };
        let mut told = Vec::new();
        while !live.events.is_empty() {
            let report = live.report(
                "boot",
                &Hardware::default(),
                &Clock::new(Timestamp::UNIX_EPOCH),
            );
            let bytes = serde_json::to_vec(&report).expect("JSON");
            assert!(bytes.len() <= MAX_REPORT_BYTES, "{} bytes", bytes.len());
            assert_eq!(report.workloads.len(), live.workloads.len());
            let said = |workload: &WorkloadReport| {
                workload.problem.as_ref().expect("one").code == "FLT0502"
            };
            assert!(report.workloads.iter().all(said));
            told.extend(report.events.iter().map(|event| event.id));
            live.events.drain(..report.events.len());
        }
        assert!(told.into_iter().eq(1..=200), "the oldest first, each once");
    }

    #[test]
    fn what_a_server_tells_is_a_few_lines_of_plain_text() {
        let long = "\u{1b}[2J two\n".repeat(10_000);
        let problem = Problem::new(code::CLONED, &*long);
        let forged = Problem {
            help: long,
            ..problem
        };
        let shown = told(vec![forged; 100]);
        assert_eq!(shown.len(), MAX_TOLD);
        for text in [&shown[0].message, &shown[0].help] {
            assert!(!text.contains(char::is_control), "{text}");
            assert!(text.chars().count() <= code::MAX_MESSAGE + 1);
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
