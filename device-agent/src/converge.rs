//! Converges the machine to the manifest, always in the same way: observe, pull images, observe again, plan, apply, look.
//! None of it depends on how the last try ended.

mod drift;
mod images;
mod repair;
mod states;

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::Digest;
use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest::Manifest;
use flotta_bundle::wire::{Phase, WorkloadReport, WorkloadState};
use jiff::Timestamp;

use crate::apply::{Failures, apply};
use crate::backend::files::Disk;
use crate::backend::podman::Socket;
use crate::backend::systemd::Bus;
use crate::backend::{BackendError, Files, Podman, Systemd, Verb};
use crate::config::Config;
use crate::health::Health;
use crate::ledger::{AppliedState, Ledger, LedgerError};
use crate::observe::observe;
use crate::plan::{Plan, Step, plan};
use crate::policy;
use crate::pull::chain;

pub use states::Reasons;

/// The machine to converge, and what is remembered of it between two tries.
#[derive(Debug)]
pub struct Host<S, P, F> {
    /// systemd on this machine.
    pub systemd: S,
    /// Podman on this machine.
    pub podman: P,
    /// The file system of this machine.
    pub files: F,
    /// Why units failed, for as long as they do.
    pub reasons: Reasons,
    /// What the last try could not do, by workload.
    pub failures: Failures,
    /// Drift: files of the fleet that somebody changed, by workload, until they are restored.
    pub drift: Failures,
    /// The health checks of running containers, if they are made.
    pub health: Option<Health>,
    /// The manifest of the last try: files can only have drifted from that one.
    tried: Option<Digest>,
}

impl<S, P, F> Host<S, P, F> {
    /// A machine of which nothing is known yet.
    pub fn new(systemd: S, podman: P, files: F) -> Self {
        Self {
            systemd,
            podman,
            files,
            reasons: Reasons::default(),
            failures: Failures::new(),
            drift: Failures::new(),
            health: None,
            tried: None,
        }
    }
}

impl<S, P, F> Host<S, P, F> {
    /// Adds to the reports which running workloads are not ready.
    fn judge(&self, reports: &mut [WorkloadReport]) {
        if let Some(health) = &self.health {
            health.judge(reports);
        }
    }
}

impl Host<Bus, Socket, Disk> {
    /// Opens the machine that this program runs on.
    pub async fn open(config: &Config) -> Result<Self, BackendError> {
        Ok(Self::new(
            Bus::open().await?,
            Socket::new(config.podman.clone()),
            Disk::new(config.root.clone()).with(&policy::read(&config.policy()).0),
        ))
    }
}

/// The outcome of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Every workload, sorted by name.
    pub workloads: Vec<WorkloadReport>,
    /// Problems that do not belong to one workload.
    pub problems: Vec<Problem>,
    /// Whether everything is as the manifest says.
    pub complete: bool,
    /// Whether something failed that a later try may fix.
    pub retry: bool,
}

/// Brings the machine to the state that the manifest describes. Its blobs must be in the ledger.
pub async fn converge<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    release: u64,
    ledger: &mut Ledger,
    host: &mut Host<S, P, F>,
    now: &dyn Fn() -> Timestamp,
    progress: &mut dyn FnMut(Phase, &[WorkloadReport]),
) -> Outcome {
    let digest = Digest::of(&manifest.clone().encode());
    let is_new = ledger
        .applied()
        .is_none_or(|applied| applied.manifest != digest);
    watch(manifest, ledger, host);
    let first = look_and_plan(manifest, ledger, host, &Failures::new()).await;
    if !is_new {
        let drift = drift::planned(&first, manifest, ledger.owned());
        let _ = drift::note(ledger, &host.drift, &drift, now);
        host.drift.extend(drift);
    }
    host.tried = Some(digest);
    let mut reports = states::states(manifest, ledger.owned(), host).await;
    host.judge(&mut reports);
    let repaired = repair::podman(&reports, ledger, host, now);
    let starts: BTreeSet<String> = first.starts(manifest).map(str::to_owned).collect();
    let down: BTreeSet<String> = states::failed(&reports).map(str::to_owned).collect();
    let missing = images::missing(manifest, &starts, &down, is_new, &host.podman).await;
    let missing = if missing.is_blind() && repair::socket(host).await {
        images::missing(manifest, &starts, &down, is_new, &host.podman).await
    } else {
        missing
    };
    let came: BTreeSet<String> = missing.workloads().map(str::to_owned).collect();
    if !missing.is_empty() {
        states::mark(&mut reports, missing.workloads(), WorkloadState::Pulling);
        progress(Phase::Fetching, &reports);
    }
    let held = missing.get(&host.podman).await;
    let came = came
        .into_iter()
        .filter(|name| !held.contains_key(name.as_str()));
    let hopeful = if repaired {
        down.clone()
    } else {
        came.collect()
    };
    let plan = if held.is_empty() {
        first
    } else {
        look_and_plan(manifest, ledger, host, &held).await
    };
    if plan.steps.iter().any(|step| matches!(step, Step::Job(..))) {
        let starting: BTreeSet<_> = plan.starts(manifest).collect();
        states::mark(&mut reports, starting.into_iter(), WorkloadState::Starting);
        progress(Phase::Applying, &reports);
    }
    let applied = apply(&plan, manifest, ledger, host).await;
    let is_applied = applied.is_ok();
    repair::restart_waiting(manifest, &plan, &hopeful, &down, host).await;
    let mut problems = Vec::new();
    let mut failures = plan.held.clone();
    match applied {
        Ok(found) => failures.extend(found),
        Err(error) => problems.push(ledger_problem(&error)),
    }
    let mut workloads = states::states(manifest, ledger.owned(), host).await;
    for (owner, problem) in &failures {
        if !states::blame(&mut workloads, owner.as_str(), problem) && !problems.contains(problem) {
            problems.push(problem.clone());
        }
    }
    host.failures.clone_from(&failures);
    // what could not be restored is still drifted
    host.drift.retain(|owner, _| failures.contains_key(owner));
    let runs = |report: &WorkloadReport| {
        report.state == WorkloadState::Running && report.problem.is_none()
    };
    // A unit may be running with its old files, because systemd refused its restart.
    let settled = ledger.owned().units.values().all(|unit| unit.due.is_none());
    let complete =
        settled && problems.is_empty() && failures.is_empty() && workloads.iter().all(runs);
    // when the ledger stopped the plan, nobody knows how much of it was done: only the failure is reported
    let done = is_applied
        .then(|| done(manifest, &plan, &failures))
        .flatten();
    let noted = note(ledger, release, done, &workloads, &problems, now);
    let kept = if complete && is_new {
        let state = AppliedState {
            manifest: digest,
            release,
            since: now(),
        };
        ledger.own(ledger.owned().clone(), Some(state))
    } else {
        Ok(())
    };
    problems.extend(
        [noted, kept]
            .into_iter()
            .filter_map(Result::err)
            .map(|error| ledger_problem(&error)),
    );
    let complete = complete && problems.is_empty();
    // Only now, because the result of a health check must not decide anything above.
    host.judge(&mut workloads);
    Outcome {
        workloads,
        problems,
        complete,
        retry: !complete,
    }
}

/// Returns the state of the workloads. Changes nothing.
pub async fn look<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    ledger: &Ledger,
    host: &mut Host<S, P, F>,
) -> Vec<WorkloadReport> {
    let mut workloads = states::states(manifest, ledger.owned(), host).await;
    for (owner, problem) in &host.failures {
        states::blame(&mut workloads, owner.as_str(), problem);
    }
    for (owner, problem) in &host.drift {
        let owner = owner.as_str();
        let well = |report: &&WorkloadReport| report.name == owner && report.problem.is_none();
        if workloads.iter().any(|report| well(&report)) {
            states::blame(&mut workloads, owner, problem);
        }
    }
    host.judge(&mut workloads);
    workloads
}

/// Checks whether somebody changed files of the fleet, and notes it. Changes nothing on the machine.
pub fn look_at_files<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    ledger: &mut Ledger,
    host: &mut Host<S, P, F>,
    now: &dyn Fn() -> Timestamp,
) -> Result<(), LedgerError> {
    // the files of a manifest that was never tried are not there yet
    if host.tried != Some(Digest::of(&manifest.clone().encode())) {
        return Ok(());
    }
    let drift = drift::seen(manifest, ledger.owned(), &host.failures, &mut host.files);
    let noted = drift::note(ledger, &host.drift, &drift, now);
    host.drift = drift;
    noted
}

/// Whether the agent cannot write only because its mount namespace, made when it was started, is out of date: the machine
/// itself can write where the agent cannot.
pub async fn is_shut_out<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    host: &mut Host<S, P, F>,
) -> Option<bool> {
    let shut = manifest
        .files
        .iter()
        .find(|file| !host.files.is_writable(&file.path));
    let shut = shut?;
    Some(host.systemd.is_writable(shut.path.as_str()).await == Some(true))
}

/// Watches the files that the fleet has or wants.
fn watch<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    ledger: &Ledger,
    host: &mut Host<S, P, F>,
) {
    let wanted = manifest.files.iter().map(|file| &file.path);
    let paths = wanted.chain(ledger.owned().files.keys()).cloned().collect();
    host.files.watch(paths);
}

/// Returns the plan without applying it.
pub async fn plan_only<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    ledger: &Ledger,
    host: &mut Host<S, P, F>,
) -> Plan {
    look_and_plan(manifest, ledger, host, &Failures::new()).await
}

async fn look_and_plan<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    ledger: &Ledger,
    host: &mut Host<S, P, F>,
    held: &Failures,
) -> Plan {
    let owned = ledger.owned();
    let observed = observe(manifest, owned, &mut host.systemd, &mut host.files).await;
    plan(manifest, &observed, owned, held)
}

fn ledger_problem(error: &LedgerError) -> Problem {
    Problem::new(code::LEDGER, chain(error))
}

/// What an apply did.
struct Done {
    /// In words: `restarted web; started db, radio`.
    words: String,
    workloads: BTreeSet<String>,
}

/// Summarises what was done; none when nothing was.
fn done(manifest: &Manifest, plan: &Plan, failures: &Failures) -> Option<Done> {
    let mut done: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in &plan.steps {
        let (verb, name) = match step {
            Step::Job(Verb::Restart, unit) => ("restarted", unit),
            Step::Job(_, unit) => ("started", unit),
            Step::Sweep(workload) => ("removed", workload),
            _ => continue,
        };
        let unit = manifest.units.iter().find(|unit| unit.name == *name);
        let name = unit.map_or(name.as_str(), |unit| unit.workload.as_str());
        if !failures.contains_key(name) {
            done.entry(verb).or_default().insert(name);
        }
    }
    let parts = done.iter().map(|(verb, names)| {
        let names: Vec<_> = names.iter().copied().collect();
        format!("{verb} {}", names.join(", "))
    });
    let parts: Vec<_> = parts.collect();
    let workloads = done.values().flatten().map(|name| (*name).to_owned());
    (!parts.is_empty()).then(|| Done {
        words: parts.join("; "),
        workloads: workloads.collect(),
    })
}

/// Notes events for the server: what was done and what failed.
fn note(
    ledger: &mut Ledger,
    release: u64,
    done: Option<Done>,
    workloads: &[WorkloadReport],
    problems: &[Problem],
    now: &dyn Fn() -> Timestamp,
) -> Result<(), LedgerError> {
    // an event that cannot be written is written with the next one, at the latest at the end
    if let Some(done) = done {
        let message = format!("release {release}: {}", done.words);
        let _ = ledger.note_applied(now(), message, done.workloads);
    }
    let of_workloads = workloads
        .iter()
        .filter_map(|report| Some((report.name.as_str(), report.problem.as_ref()?)));
    for (name, problem) in of_workloads {
        let _ = ledger.note_failure(now(), name, problem);
    }
    for problem in problems {
        let _ = ledger.note(now(), "Failed", problem.to_string(), true);
    }
    ledger.save_unsaved()
}

#[cfg(test)]
mod tests;
