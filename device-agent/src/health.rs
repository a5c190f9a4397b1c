//! Health checks: runs those that the manifest leaves to the agent, for each running container.
//!
//! They run next to the loop that changes the machine, so that an hour-long image pull delays no check. Their results have
//! only two effects: a container whose startup or liveness check fails is stopped, and systemd takes it from there; and a
//! workload that is not ready is reported as such.

mod container;
mod net;
mod probe;
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
use container::Checks;
use probe::{Probe, Prober};

/// Most commands that run at the same time. Each is a process in a container; connections are not counted, so that checks which
/// wait for a host that does not answer delay no others.
const AT_ONCE: usize = 16;

/// A run of a container to check.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    unit: String,
    workload: String,
    /// The invocation id of the unit's run.
    invocation: String,
    started: Instant,
    checks: Vec<HealthCheck>,
}

impl Target {
    /// The unit's run, if the unit is running and the manifest has checks for it.
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

    /// Whether this is the same run with the same checks.
    fn is(&self, other: &Self) -> bool {
        (&self.unit, &self.invocation, &self.checks)
            == (&other.unit, &other.invocation, &other.checks)
    }
}

/// The result of a readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ready {
    Yes,
    No(Problem, Timestamp),
}

/// The results of readiness checks, by unit, with the run that each is about.
type Readiness = BTreeMap<String, (String, Ready)>;

/// A container that was stopped because a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    unit: String,
    invocation: String,
    why: Problem,
}

/// Health as seen by the loop that changes the machine.
#[derive(Debug)]
pub struct Health {
    targets: watch::Sender<Vec<Target>>,
    readiness: watch::Receiver<Readiness>,
    stops: mpsc::UnboundedReceiver<Stop>,
    /// Why units were stopped, until they run again and stay up.
    stopped: BTreeMap<String, Stop>,
    /// Stops that were not reported yet.
    untold: Vec<Problem>,
}

/// Runs the checks.
#[derive(Debug)]
pub struct Watcher<P> {
    podman: P,
    clock: Clock,
    targets: watch::Receiver<Vec<Target>>,
    readiness: watch::Sender<Readiness>,
    stops: mpsc::UnboundedSender<Stop>,
}

/// Creates both ends.
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
    /// Waits until there is something new to report about a workload.
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

    /// Takes the reasons for which containers were stopped since the last call.
    pub(crate) fn stops(&mut self) -> Vec<Problem> {
        while let Ok(stop) = self.stops.try_recv() {
            self.note(stop);
        }
        std::mem::take(&mut self.untold)
    }

    /// The run of a unit that is being checked: its checks apply until it ends, whatever the manifest says by now.
    pub(crate) fn target(&self, unit: &str, found: &UnitState) -> Option<Target> {
        let targets = self.targets.borrow();
        let mut of_run = targets.iter();
        let of_run = of_run.find(|of| of.unit == unit && of.invocation == found.invocation);
        of_run.filter(|_| found.is_active()).cloned()
    }

    /// Sets the containers to check.
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

    /// Ends the checks of a workload whose units are about to be stopped or restarted: one that closes its ports on the way is not
    /// unhealthy. What runs afterwards is set again.
    pub(crate) fn release(&self, workload: &str) {
        self.targets.send_if_modified(|known| {
            let before = known.len();
            known.retain(|target| target.workload != workload);
            known.len() != before
        });
    }

    /// Why a unit is not running, or was not until now, if a failed check is the reason.
    pub(crate) fn why_stopped(&mut self, unit: &str, found: &UnitState) -> Option<Problem> {
        while let Ok(stop) = self.stops.try_recv() {
            self.note(stop);
        }
        let stop = self.stopped.get(unit)?;
        if found.invocation == stop.invocation || found.is_active() {
            return Some(stop.why.clone());
        }
        // it has ended again since then, for another reason
        self.stopped.remove(unit);
        None
    }

    /// Records that a unit runs and stays up.
    pub(crate) fn runs(&mut self, unit: &str) {
        self.stopped.remove(unit);
    }

    /// Adds to the reports which running workloads are not ready.
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
    /// Runs the checks, for as long as it is polled.
    pub async fn run(self) -> Infallible {
        let Self {
            podman,
            clock,
            targets,
            readiness,
            stops,
        } = self;
        let ask = Prober::new(&podman);
        let checks = Checks {
            podman: &podman,
            ask: &ask,
            clock: &clock,
            turns: Semaphore::new(AT_ONCE),
            readiness,
            stops,
        };
        follow(&checks, targets).await
    }
}

/// Checks each target for as long as it is one.
async fn follow<P: Podman, A: Probe>(
    checks: &Checks<'_, P, A>,
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
                checks.forget(|unit| now.iter().all(|target| target.unit != unit));
                for target in now {
                    if watched.iter().all(|(known, _)| !known.is(&target)) {
                        let (watch, handle) = abortable(checks.watch(target.clone()));
                        watched.push((target, handle));
                        running.push(watch);
                    }
                }
            }
            Some(_) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// The problem of a running workload that is not ready.
fn not_ready(what: &str) -> Problem {
    Problem::new(code::NOT_READY, "not ready").with_detail(what)
}
