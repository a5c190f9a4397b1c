//! Applies a plan, step by step. The only decision made here is what a failed step means for the steps after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotta_bundle::manifest::{File, Manifest, Unit, Wanted};
use flotta_bundle::path::UNITS;
use flotta_bundle::{DevicePath, Owner, Problem, code};

use crate::backend::{BackendError, Files, Podman, Systemd, Verb};
use crate::converge::Host;
use crate::fault;
use crate::ledger::{Due, Ledger, LedgerError, Owned, OwnedUnit};
use crate::plan::{Plan, Step, inputs, masked};

/// Longest wait for jobs. systemd carries on with them, and the next look finds them done.
const JOBS: Duration = Duration::from_secs(90);

/// What failed, by the object that it belongs to.
pub type Failures = BTreeMap<Owner, Problem>;

/// Applies a plan. A failure concerns only its workload, and the others continue; when the ledger fails, everything stops.
pub async fn apply<S: Systemd, P: Podman, F: Files>(
    plan: &Plan,
    manifest: &Manifest,
    ledger: &mut Ledger,
    host: &mut Host<S, P, F>,
) -> Result<Failures, LedgerError> {
    let mut walk = Walk {
        plan,
        manifest,
        failures: Failures::new(),
        unsuccessful: BTreeSet::new(),
    };
    let mut steps = plan.steps.iter().peekable();
    let mut number = 0;
    while let Some(step) = steps.next() {
        number += 1;
        fault::point(number);
        match step {
            Step::Begin => {
                let owned = walk.begun(ledger.owned());
                ledger.own(owned, None)?;
            }
            Step::Stop(name) => {
                // Stopped together, because systemd knows the order.
                let mut jobs = vec![(Verb::Stop, name.clone())];
                while let Some(Step::Stop(next)) = steps.peek() {
                    jobs.push((Verb::Stop, next.clone()));
                    steps.next();
                }
                release(host, ledger.owned(), &jobs);
                for (name, error) in host.systemd.jobs(&jobs, JOBS).await {
                    let owner = owner_of(ledger.owned(), &name);
                    walk.refused(owner, &name, "stopped", &error);
                }
            }
            Step::StopInstances(path) => {
                walk.stop_instances(path, ledger.owned(), &mut host.systemd)
                    .await;
            }
            Step::Write(file) => walk.write(file, ledger, &mut host.files),
            Step::Remove(path) => {
                let owner = ledger.owned().files.get(path);
                let owner = owner.unwrap_or(Owner::device());
                // Units that still run need their files.
                if walk.failures.contains_key(owner) {
                    continue;
                }
                if let Err(error) = host.files.remove(path) {
                    walk.fail(owner, error.of_file());
                }
            }
            Step::Enable(name) => walk.enable(name, &mut host.systemd).await,
            Step::Disable(name) => {
                walk.disable(name, ledger.owned(), &mut host.systemd).await;
            }
            Step::Reload => {
                if let Err(error) = host.systemd.reload().await {
                    let problem = Problem::new(code::BACKEND, "systemd cannot reload its units")
                        .with_detail(error.to_string());
                    walk.fail_all(ledger.owned(), &problem);
                }
            }
            Step::Reloaded => {
                let owned = walk.reloaded(ledger.owned(), &mut host.systemd).await;
                ledger.own(owned, None)?;
            }
            Step::ResetFailed(name) => {
                if let Err(error) = host.systemd.reset_failed(name).await {
                    tracing::debug!(unit = %name, %error, "not reset");
                }
            }
            Step::Job(verb, name) => {
                let mut jobs = vec![(*verb, name.clone())];
                while let Some(Step::Job(verb, name)) = steps.peek() {
                    jobs.push((*verb, name.clone()));
                    steps.next();
                }
                release(host, ledger.owned(), &jobs);
                walk.jobs(jobs, &mut host.systemd).await;
            }
            Step::Sweep(workload) => walk.sweep(workload, &host.podman).await,
            Step::Finish => {
                let mut owned = walk.finished(ledger.owned());
                walk.keep_open(&mut owned, ledger.owned(), &mut host.systemd)
                    .await;
                ledger.own(owned, None)?;
            }
        }
    }
    // an apply without steps has no fail point after the last one
    if number > 0 {
        fault::point(number + 1);
    }
    Ok(walk.failures)
}

/// Ends the health checks of what these jobs stop.
fn release<S, P, F>(host: &Host<S, P, F>, owned: &Owned, jobs: &[(Verb, String)]) {
    let Some(health) = &host.health else { return };
    for (verb, unit) in jobs {
        if matches!(verb, Verb::Stop | Verb::Restart) {
            health.release(&owner_of(owned, unit).to_string());
        }
    }
}

/// The object that a unit belongs to, as far as the ledger knows.
fn owner_of<'a>(owned: &'a Owned, unit: &str) -> &'a Owner {
    let unit = owned.units.get(unit);
    unit.map_or(Owner::device(), |unit| &unit.workload)
}

struct Walk<'a> {
    plan: &'a Plan,
    manifest: &'a Manifest,
    failures: Failures,
    /// Units whose job did not succeed.
    unsuccessful: BTreeSet<String>,
}

impl Walk<'_> {
    fn fail(&mut self, owner: &Owner, problem: Problem) {
        self.failures.entry(owner.clone()).or_insert(problem);
    }

    /// Records that systemd refused an operation on a unit.
    fn refused(&mut self, owner: &Owner, unit: &str, what: &str, error: &BackendError) {
        let problem = Problem::new(code::BACKEND, format!("{unit} cannot be {what}"))
            .about(unit)
            .with_detail(error.to_string());
        self.fail(owner, problem);
    }

    async fn jobs<S: Systemd>(&mut self, mut jobs: Vec<(Verb, String)>, systemd: &mut S) {
        jobs.retain(|(_, name)| !self.failures.contains_key(self.owner(name)));
        for (name, error) in systemd.jobs(&jobs, JOBS).await {
            // The unit's own state says why it is not running.
            tracing::info!(unit = %name, %error, "job did not succeed");
            self.unsuccessful.insert(name);
        }
    }

    fn write<F: Files>(&mut self, file: &File, ledger: &Ledger, files: &mut F) {
        let owner = file.object();
        if self.failures.contains_key(owner) {
            return;
        }
        let read = ledger.blobs().read(&file.digest).map_err(|error| {
            Problem::new(code::FILE_FAILED, crate::pull::chain(&error)).about(file.path.as_str())
        });
        let written = read.and_then(|content| {
            let written = files.write(file, &content);
            written.map_err(|error| error.of_file())
        });
        if let Err(problem) = written {
            self.fail(owner, problem);
        }
    }

    /// Stops the instances of a template that leaves. An instance may be a unit of the machine's owner, with a file of its
    /// own, or still be wanted.
    async fn stop_instances<S: Systemd>(
        &mut self,
        path: &DevicePath,
        owned: &Owned,
        systemd: &mut S,
    ) {
        let object = owned.files.get(path).unwrap_or(Owner::device());
        let name = path.file_name();
        let found = match systemd.instances(name).await {
            Ok(found) => found,
            Err(error) => return self.refused(object, name, "stopped", &error),
        };
        let mut jobs = Vec::new();
        for name in found {
            if self.unit(&name).is_some() {
                continue;
            }
            // a unit that has lost its file has none
            let is_of_it = match systemd.unit(&name).await {
                Ok(state) => state.fragment.is_empty() || state.fragment == path.as_str(),
                Err(error) => {
                    self.refused(object, &name, "stopped", &error);
                    false
                }
            };
            if is_of_it {
                jobs.push((Verb::Stop, name));
            }
        }
        if jobs.is_empty() {
            return;
        }
        for (name, error) in systemd.jobs(&jobs, JOBS).await {
            self.refused(object, &name, "stopped", &error);
        }
        for (_, name) in jobs {
            if let Err(error) = systemd.reset_failed(&name).await {
                tracing::debug!(unit = %name, %error, "not reset");
            }
        }
    }

    async fn enable<S: Systemd>(&mut self, unit: &str, systemd: &mut S) {
        let owner = self.owner(unit).clone();
        if !self.failures.contains_key(&owner)
            && let Err(error) = systemd.enable(unit).await
        {
            self.refused(&owner, unit, "enabled", &error);
        }
    }

    async fn disable<S: Systemd>(&mut self, unit: &str, owned: &Owned, systemd: &mut S) {
        if let Err(error) = systemd.disable(unit).await {
            self.refused(owner_of(owned, unit), unit, "disabled", &error);
        }
    }

    async fn sweep<P: Podman>(&mut self, workload: &str, podman: &P) {
        if self.failures.contains_key(workload) {
            return;
        }
        if let Err(error) = podman.sweep(workload).await {
            let message = format!("what {workload} left behind cannot be removed");
            let problem = Problem::new(code::BACKEND, message)
                .about(workload)
                .with_detail(error.to_string());
            self.fail(&Owner::workload(workload), problem);
        }
    }

    fn fail_all(&mut self, owned: &Owned, problem: &Problem) {
        let wanted = self.manifest.units.iter().map(|unit| &unit.workload);
        let ours = owned.units.values().map(|unit| &unit.workload);
        for owner in wanted.chain(ours) {
            self.failures
                .entry(owner.clone())
                .or_insert_with(|| problem.clone());
        }
    }

    /// The unit of this name in the manifest.
    fn unit(&self, name: &str) -> Option<&Unit> {
        let units = &self.manifest.units;
        let at = units.binary_search_by(|unit| unit.name.as_str().cmp(name));
        at.ok().map(|at| &units[at])
    }

    fn owner(&self, unit: &str) -> &Owner {
        self.unit(unit)
            .map_or(Owner::device(), |unit| &unit.workload)
    }

    /// Whether systemd reads the unit file directly, without Quadlet.
    fn is_of_systemd(&self, unit: &str) -> bool {
        let own = format!("{UNITS}{unit}");
        self.manifest
            .files
            .iter()
            .any(|file| file.path.as_str() == own)
    }

    /// What the fleet will own, with the units that change marked as due.
    fn begun(&self, owned: &Owned) -> Owned {
        let mut owned = owned.clone();
        for file in &self.manifest.files {
            let object = file.object();
            if !self.plan.held.contains_key(object) {
                owned.files.insert(file.path.clone(), object.clone());
            }
        }
        for (name, inputs) in &self.plan.due {
            let workload = self.owner(name).clone();
            owned.units.insert(
                name.clone(),
                OwnedUnit {
                    workload,
                    inputs: *inputs,
                    due: Some(Due::Files),
                },
            );
        }
        owned
    }

    /// Checks after a reload what systemd knows of the units that change.
    async fn reloaded<S: Systemd>(&mut self, owned: &Owned, systemd: &mut S) -> Owned {
        let mut since = BTreeMap::new();
        for name in self.plan.due.keys() {
            let object = self.owner(name).clone();
            match systemd.unit(name).await {
                Ok(state) if state.is_loaded() => {
                    since.insert(name, state.invocation);
                }
                Ok(state) if state.is_masked() => self.fail(&object, masked(name)),
                Ok(state) => {
                    let who = if self.is_of_systemd(name) {
                        "systemd does not load"
                    } else {
                        "Quadlet generated no unit"
                    };
                    let problem = Problem::new(code::GENERATOR, format!("{who} {name}"))
                        .about(name)
                        .with_detail(format!("systemd says {}", state.load));
                    self.fail(&object, problem);
                }
                Err(error) => {
                    self.fail(&object, error.of_unit(name));
                }
            }
        }
        let mut owned = owned.clone();
        for (name, invocation) in since {
            let failed = self.failures.contains_key(self.owner(name));
            if let Some(unit) = owned.units.get_mut(name).filter(|_| !failed) {
                unit.due = Some(Due::Since(invocation));
            }
        }
        owned
    }

    /// Keeps a unit marked that still has the run from before its files changed, because its job takes longer than the wait. So does
    /// one that is to run once and was not started, because what it requires was not.
    async fn keep_open<S: Systemd>(&self, owned: &mut Owned, before: &Owned, systemd: &mut S) {
        for name in self.plan.due.keys() {
            let Some(Due::Since(invocation)) =
                before.units.get(name).and_then(|unit| unit.due.as_ref())
            else {
                continue;
            };
            let same = match systemd.unit(name).await {
                Ok(state) => {
                    let was_not_started = || {
                        let unit = self.unit(name);
                        unit.is_some_and(|unit| unit.wanted == Wanted::Once)
                            && self.unsuccessful.contains(name)
                            && !state.is_failed()
                    };
                    state.invocation == *invocation && (state.is_up() || was_not_started())
                }
                Err(_) => true,
            };
            if let Some(unit) = owned.units.get_mut(name).filter(|_| same) {
                unit.due = Some(Due::Since(invocation.clone()));
            }
        }
    }

    /// What the fleet owns after the apply: finished units are no longer due, removed ones are gone, failed ones stay marked for
    /// the next try.
    fn finished(&self, owned: &Owned) -> Owned {
        let mut owned = owned.clone();
        let open =
            |owner: &Owner| self.failures.contains_key(owner) || self.plan.held.contains_key(owner);
        let files = &self.manifest.files;
        owned.files.retain(|path, object| {
            open(object) || files.binary_search_by(|file| file.path.cmp(path)).is_ok()
        });
        // a file may have come from another object
        for file in files {
            let object = file.object();
            if let Some(owner) = owned.files.get_mut(&file.path).filter(|_| !open(object)) {
                owner.clone_from(object);
            }
        }
        owned
            .units
            .retain(|name, unit| open(&unit.workload) || self.unit(name).is_some());
        for unit in &self.manifest.units {
            if open(&unit.workload) {
                continue;
            }
            let inputs = inputs(unit, files);
            owned.units.insert(
                unit.name.clone(),
                OwnedUnit {
                    workload: unit.workload.clone(),
                    inputs,
                    due: None,
                },
            );
        }
        owned
    }
}
