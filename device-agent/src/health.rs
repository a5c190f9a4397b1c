//! Watches health: makes the checks that the manifest has for the agent, of each container that runs.
//!
//! It runs next to the loop that changes the machine, so that a pull of an hour keeps no check from being made. What it finds has
//! two effects and no others: a container whose startup or liveness check fails is stopped, and systemd goes on from there; and a
//! workload that is not ready is reported so.

mod ask;
mod container;
mod net;
mod redirect;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::convert::Infallible;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::health::{HealthCheck, Purpose};
use flotta_bundle::manifest::{Manifest, Unit};
use flotta_bundle::wire::{WorkloadReport, WorkloadState};
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::backend::{Podman, UnitState};
use crate::clock::Clock;
use ask::{Ask, Asker};
use container::Desk;

/// Most checks that are made at the same time. A check takes a connection, or a process in a container.
const AT_ONCE: usize = 16;

/// A run of a container that is to be checked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    unit: String,
    workload: String,
    /// Which run of the unit it is.
    invocation: String,
    started: Instant,
    checks: Vec<HealthCheck>,
}

impl Target {
    /// The unit's run, when it has one that can be checked, and the manifest has checks for it.
    pub(crate) fn of(manifest: &Manifest, unit: &Unit, found: &UnitState) -> Option<Self> {
        let checks = manifest.health.iter();
        let checks: Vec<_> = checks
            .filter(|check| check.unit == unit.name)
            .cloned()
            .collect();
        let up = found.active_for.filter(|_| found.is_active())?;
        let now = Instant::now();
        (!checks.is_empty()).then(|| Self {
            unit: unit.name.clone(),
            workload: unit.workload.to_string(),
            invocation: found.invocation.clone(),
            started: now.checked_sub(up).unwrap_or(now),
            checks,
        })
    }

    /// Whether it is the same run with the same checks.
    fn is(&self, other: &Self) -> bool {
        (&self.unit, &self.invocation, &self.checks)
            == (&other.unit, &other.invocation, &other.checks)
    }
}

/// What a readiness check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ready {
    Yes,
    No(Problem, Timestamp),
}

/// What readiness checks have found, by unit, and of which of its runs.
type Readiness = BTreeMap<String, (String, Ready)>;

/// A container that was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    unit: String,
    invocation: String,
    why: Problem,
}

/// Health, as the loop sees it that changes the machine.
#[derive(Debug)]
pub struct Health {
    targets: watch::Sender<Vec<Target>>,
    readiness: watch::Receiver<Readiness>,
    stops: mpsc::UnboundedReceiver<Stop>,
    /// Why units were stopped, until they run again and go on doing so.
    stopped: BTreeMap<String, Stop>,
    /// Stops that nobody has been told of.
    untold: Vec<Problem>,
}

/// The one who makes the checks.
#[derive(Debug)]
pub struct Watcher<P> {
    podman: P,
    clock: Clock,
    targets: watch::Receiver<Vec<Target>>,
    readiness: watch::Sender<Readiness>,
    stops: mpsc::UnboundedSender<Stop>,
}

/// Both ends.
pub fn watch<P: Podman>(podman: P, clock: Clock) -> (Health, Watcher<P>) {
    let (to_check, targets) = watch::channel(Vec::new());
    let (found, readiness) = watch::channel(Readiness::new());
    let (stopping, stops) = mpsc::unbounded_channel();
    let health = Health {
        targets: to_check,
        readiness,
        stops,
        stopped: BTreeMap::new(),
        untold: Vec::new(),
    };
    let watcher = Watcher {
        podman,
        clock,
        targets,
        readiness: found,
        stops: stopping,
    };
    (health, watcher)
}

impl Health {
    /// Waits until there is something new to say of a workload.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            Some(stop) = self.stops.recv() => self.note(stop),
            Ok(()) = self.readiness.changed() => {}
            else => std::future::pending().await,
        }
    }

    fn note(&mut self, stop: Stop) {
        self.untold.push(stop.why.clone());
        self.stopped.insert(stop.unit.clone(), stop);
    }

    /// Why containers were stopped since this was asked last.
    pub(crate) fn stops(&mut self) -> Vec<Problem> {
        while let Ok(stop) = self.stops.try_recv() {
            self.note(stop);
        }
        std::mem::take(&mut self.untold)
    }

    /// The run of a unit that is being checked: what is known of it holds until it ends, whatever is wanted by now.
    pub(crate) fn target(&self, unit: &str, found: &UnitState) -> Option<Target> {
        let targets = self.targets.borrow();
        let mut of_run = targets.iter();
        let of_run = of_run.find(|of| of.unit == unit && of.invocation == found.invocation);
        of_run.filter(|_| found.is_active()).cloned()
    }

    /// Has these checked, and no others.
    pub(crate) fn set(&self, targets: Vec<Target>) {
        self.targets.send_if_modified(|known| {
            let same =
                known.len() == targets.len() && known.iter().zip(&targets).all(|(a, b)| a.is(b));
            if !same {
                *known = targets;
            }
            !same
        });
    }

    /// Why a unit does not run, or did not until now, when that is because of a check.
    pub(crate) fn why_stopped(&mut self, unit: &str, found: &UnitState) -> Option<Problem> {
        while let Ok(stop) = self.stops.try_recv() {
            self.note(stop);
        }
        let stop = self.stopped.get(unit)?;
        if found.invocation == stop.invocation || found.is_active() {
            return Some(stop.why.clone());
        }
        // it ended another time since, and not because of a check
        self.stopped.remove(unit);
        None
    }

    /// A unit runs and goes on doing so.
    pub(crate) fn runs(&mut self, unit: &str) {
        self.stopped.remove(unit);
    }

    /// Says of workloads that run whether they are ready.
    pub(crate) fn judge(&self, reports: &mut [WorkloadReport]) {
        let readiness = self.readiness.borrow();
        for target in self.targets.borrow().iter() {
            let mut checks = target.checks.iter();
            if checks.all(|check| check.purpose != Purpose::Readiness) {
                continue;
            }
            let mut reports = reports.iter_mut();
            let Some(report) = reports.find(|report| report.name == target.workload) else {
                continue;
            };
            if report.state != WorkloadState::Running || report.problem.is_some() {
                continue;
            }
            let found = readiness.get(&target.unit);
            match found.filter(|(invocation, _)| *invocation == target.invocation) {
                None => report.state = WorkloadState::Starting,
                Some((_, Ready::Yes)) => {}
                Some((_, Ready::No(problem, since))) => {
                    report.problem = Some(problem.clone());
                    report.since = Some(*since);
                }
            }
        }
    }
}

impl<P: Podman> Watcher<P> {
    /// Makes the checks, for as long as it is polled.
    pub async fn run(self) -> Infallible {
        let Self {
            podman,
            clock,
            targets,
            readiness,
            stops,
        } = self;
        let ask = Asker::new(&podman);
        let desk = Desk {
            podman: &podman,
            ask: &ask,
            clock: &clock,
            turns: Semaphore::new(AT_ONCE),
            readiness,
            stops,
        };
        follow(&desk, targets).await
    }
}

/// Watches each of the targets for as long as it is one.
async fn follow<P: Podman, A: Ask>(
    desk: &Desk<'_, P, A>,
    mut targets: watch::Receiver<Vec<Target>>,
) -> Infallible {
    let mut watched: Vec<(Target, AbortHandle)> = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            changed = targets.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = targets.borrow_and_update().clone();
                watched.retain(|(target, handle)| {
                    let stays = now.iter().any(|other| other.is(target));
                    if !stays {
                        handle.abort();
                    }
                    stays
                });
                desk.forget(|unit| now.iter().all(|target| target.unit != unit));
                for target in now {
                    if watched.iter().all(|(known, _)| !known.is(&target)) {
                        let (watch, handle) = abortable(desk.watch(target.clone()));
                        watched.push((target, handle));
                        running.push(watch);
                    }
                }
            }
            Some(_) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// That a workload runs and is not ready.
fn not_ready(what: &str) -> Problem {
    Problem::new(code::NOT_READY, "not ready").with_detail(what)
}
