//! Plans the steps from the observed state to the wanted one, given what the fleet owns. Pure and total: it never fails, and
//! after its steps there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use flotta_bundle::manifest::{File, FileKind, Unit, Wanted};
use flotta_bundle::path::UNITS;
use flotta_bundle::{DevicePath, Digest, Manifest, Owner, Problem, code};

use crate::backend::{Found, UnitState, Verb};
use crate::ledger::{Due, Owned, OwnedUnit};
use crate::observe::Observed;

mod found;
mod holds;
mod install;

pub use found::find_owned;

/// The folder of Quadlet's source files.
const QUADLET: &str = "/etc/containers/systemd/";

/// One thing done to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record what the fleet will own, and which units will change, before anything else.
    Begin,
    /// Stop a unit that is removed.
    Stop(String),
    /// Stop what systemd has made of a template that is removed: a socket makes an instance for each connection.
    StopInstances(DevicePath),
    /// Write a file.
    Write(File),
    /// Remove a file.
    Remove(DevicePath),
    /// Enable a native systemd unit with an `[Install]` section.
    Enable(String),
    /// Disable a unit that is removed.
    Disable(String),
    /// Make systemd reload its unit files.
    Reload,
    /// Record that systemd knows the new files.
    Reloaded,
    /// Clear the failed state of a unit.
    ResetFailed(String),
    /// Start or restart a unit.
    Job(Verb, String),
    /// Remove the leftovers of a removed workload.
    Sweep(String),
    /// Record what has been done.
    Finish,
}

/// The steps from the observed state to the wanted one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The units that change, with the digest of their new inputs.
    pub due: BTreeMap<String, Digest>,
    /// The objects that are held back, and why.
    pub held: BTreeMap<Owner, Problem>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The workloads whose units are started or restarted, or change: those that others start may start at any time after that.
    pub fn starts<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = &'a str> {
        let starts = |unit: &&Unit| {
            let is_job = |step: &Step| matches!(step, Step::Job(_, name) if *name == unit.name);
            self.due.contains_key(&unit.name) || self.steps.iter().any(is_job)
        };
        manifest
            .units
            .iter()
            .filter(starts)
            .map(|unit| unit.workload.as_str())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (owner, problem) in &self.held {
            writeln!(f, "hold     {owner}: {problem}")?;
        }
        for step in &self.steps {
            match step {
                Step::Stop(unit) => writeln!(f, "stop     {unit}")?,
                Step::StopInstances(path) => {
                    writeln!(f, "stop     instances of {}", path.file_name())?;
                }
                Step::Write(file) => writeln!(f, "write    {}", file.path)?,
                Step::Remove(path) => writeln!(f, "remove   {path}")?,
                Step::Job(Verb::Restart, unit) => writeln!(f, "restart  {unit}")?,
                Step::Job(_, unit) => writeln!(f, "start    {unit}")?,
                Step::Sweep(workload) => writeln!(f, "sweep    leftovers of {workload}")?,
                // These only update the ledger.
                Step::Begin
                | Step::Enable(_)
                | Step::Disable(_)
                | Step::Reload
                | Step::Reloaded
                | Step::ResetFailed(_)
                | Step::Finish => {}
            }
        }
        Ok(())
    }
}

/// The problem of a unit that somebody masked.
pub(crate) fn masked(unit: &str) -> Problem {
    Problem::new(code::UNIT_MASKED, format!("{unit} is masked"))
        .about(unit)
        .with_help(format!(
            "the agent does not unmask it; to have it run again: systemctl unmask {unit}"
        ))
}

/// A unit's inputs: a digest over the files whose change must restart it.
pub fn inputs(unit: &Unit, files: &[File]) -> Digest {
    let mut text = String::new();
    for path in &unit.restart_on {
        if let Ok(at) = files.binary_search_by(|file| file.path.cmp(path)) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{path} {}", files[at].digest);
        }
    }
    Digest::of(text.as_bytes())
}

/// The name of the template that a file of systemd's own is: `echo@.service`.
pub(crate) fn template(path: &DevicePath) -> Option<&str> {
    let name = path.as_str().strip_prefix(UNITS)?;
    (name.contains("@.") && !name.contains('/')).then_some(name)
}

/// Makes a plan. Objects in `held` are not changed, because something that they need is missing.
pub fn plan(
    manifest: &Manifest,
    observed: &Observed,
    owned: &Owned,
    held: &BTreeMap<Owner, Problem>,
) -> Plan {
    let mut planner = Planner {
        manifest,
        observed,
        owned,
        held: held.clone(),
        changed: BTreeSet::new(),
        reload: false,
    };
    planner.hold_what_is_not_ours();
    let writes = planner.writes();
    let removes = planner.removes();
    let halts = planner.stops();
    let disables = planner.disables();
    let (jobs, due) = planner.jobs();
    let enables = planner.enables(&due);
    let gone: BTreeSet<_> = owned
        .units
        .values()
        .map(|unit| &unit.workload)
        .filter(|owner| owner.is_workload() && planner.has_left(owner))
        .collect();
    let news = planner.is_news(&due);
    let mut steps = Vec::new();
    if news {
        steps.push(Step::Begin);
    }
    let failed = |name: &&String| {
        observed
            .units
            .get(*name)
            .is_some_and(|unit| unit.active == "failed")
    };
    // A unit that had to be killed when it was stopped is in the failed state.
    let reset: Vec<_> = halts
        .iter()
        .chain(jobs.iter().map(|(_, name)| name).filter(failed))
        .cloned()
        .map(Step::ResetFailed)
        .collect();
    let templates = removes.iter().filter(|path| template(path).is_some());
    let templates: Vec<_> = templates.cloned().map(Step::StopInstances).collect();
    let (first, removes): (Vec<_>, Vec<_>) = removes
        .into_iter()
        .partition(|old| writes.iter().any(|file| in_the_way(old, &file.path)));
    steps.extend(halts.into_iter().map(Step::Stop));
    // after the sockets, which would make more of them
    steps.extend(templates);
    steps.extend(disables.into_iter().map(Step::Disable));
    steps.extend(first.into_iter().map(Step::Remove));
    steps.extend(writes.into_iter().map(Step::Write));
    steps.extend(removes.into_iter().map(Step::Remove));
    steps.extend(enables.into_iter().map(Step::Enable));
    if planner.reload {
        steps.push(Step::Reload);
    }
    if !due.is_empty() {
        steps.push(Step::Reloaded);
    }
    steps.extend(reset);
    steps.extend(jobs.into_iter().map(|(verb, name)| Step::Job(verb, name)));
    steps.extend(gone.into_iter().map(|owner| Step::Sweep(owner.to_string())));
    let unsettled = owned
        .units
        .values()
        .any(|unit| unit.due.is_some() && !planner.held.contains_key(&unit.workload));
    if !steps.is_empty() || unsettled || planner.leftover() {
        steps.push(Step::Finish);
    }
    Plan {
        steps,
        due,
        held: planner.held,
    }
}

struct Planner<'a> {
    manifest: &'a Manifest,
    observed: &'a Observed,
    owned: &'a Owned,
    held: BTreeMap<Owner, Problem>,
    /// The files whose content changes.
    changed: BTreeSet<&'a DevicePath>,
    reload: bool,
}

impl Planner<'_> {
    fn is_held(&self, owner: &Owner) -> bool {
        self.held.contains_key(owner)
    }

    /// Whether a workload is not wanted any more. One whose unit is to be another's that is held has not left yet: it runs.
    fn has_left(&self, owner: &Owner) -> bool {
        let stays = |unit: &Unit| {
            let known = self.owned.units.get(&unit.name);
            unit.workload == *owner
                || self.is_held(&unit.workload)
                    && known.is_some_and(|known| known.workload == *owner)
        };
        !self.is_held(owner) && !self.manifest.units.iter().any(stays)
    }

    fn writes(&mut self) -> Vec<File> {
        let manifest = self.manifest;
        let mut writes = Vec::new();
        for file in &manifest.files {
            if self.is_held(file.object()) {
                continue;
            }
            let same = matches!(self.observed.files.get(&file.path), Some(Found::File { digest, .. }) if *digest == file.digest);
            let fits = matches!(
                self.observed.files.get(&file.path),
                Some(Found::File { fits: true, .. })
            );
            if !same {
                self.changed.insert(&file.path);
                self.reload |= file.kind == FileKind::Quadlet;
            }
            if !same || !fits {
                writes.push(file.clone());
            }
        }
        writes
    }

    fn removes(&mut self) -> Vec<DevicePath> {
        let leaving = self.observed.leaving.iter().filter(|path| {
            let owner = self.owned.files.get(*path);
            !owner.is_some_and(|owner| self.is_held(owner))
        });
        let leaving: Vec<_> = leaving.cloned().collect();
        self.reload |= leaving.iter().any(|path| {
            [QUADLET, UNITS]
                .iter()
                .any(|folder| path.as_str().starts_with(folder))
        });
        leaving
    }

    /// The units to stop: they are removed and not inactive.
    fn stops(&self) -> Vec<String> {
        let wanted = |name: &String| self.manifest.units.iter().any(|unit| unit.name == *name);
        let leaving = self
            .owned
            .units
            .iter()
            .filter(|(name, unit)| !wanted(name) && !self.held.contains_key(&unit.workload));
        let at_rest = |state: &UnitState| state.active == "inactive" || state.active.is_empty();
        let up = leaving.filter(|(name, _)| {
            self.observed
                .units
                .get(*name)
                .is_none_or(|state| !at_rest(state))
        });
        up.map(|(name, _)| name.clone()).collect()
    }

    /// The units to start or restart, and the units that change.
    fn jobs(&mut self) -> (Vec<(Verb, String)>, BTreeMap<String, Digest>) {
        let (mut jobs, mut due) = (Vec::new(), BTreeMap::new());
        let manifest = self.manifest;
        let none = UnitState::default();
        for unit in manifest
            .units
            .iter()
            .filter(|unit| !self.held.contains_key(&unit.workload))
        {
            let state = self.observed.units.get(&unit.name).unwrap_or(&none);
            let inputs = inputs(unit, &manifest.files);
            self.reload |= !state.is_loaded();
            let touched = unit
                .restart_on
                .iter()
                .any(|path| self.changed.contains(path));
            let known = self.owned.units.get(&unit.name);
            // The files may be in place since the last try without systemd knowing them.
            self.reload |= known.is_some_and(|known| known.due == Some(Due::Files));
            let known = known.filter(|known| known.inputs == inputs && !touched);
            let has_changed = known
                .is_none_or(|known| !runs_with_its_files(known, unit.wanted, state))
                && (touched || !self.is_older_than(unit, state));
            if has_changed {
                due.insert(unit.name.clone(), inputs);
            }
            let up = state.is_up();
            let verb = match unit.wanted {
                _ if has_changed && up => Verb::Restart,
                Wanted::Active | Wanted::Once if has_changed => Verb::Start,
                // What is started by others is left to them; the other has run, or systemd runs it at boot.
                Wanted::Loaded | Wanted::Once => continue,
                // A container that is not to be started again after it failed.
                Wanted::Active if up || (state.active == "failed" && state.restart == "no") => {
                    continue;
                }
                Wanted::Active => Verb::Start,
            };
            jobs.push((verb, unit.name.clone()));
        }
        (jobs, due)
    }

    /// Whether a unit that the ledger does not know was started after all its files were written: then only the ledger was
    /// lost, and there is no reason to restart the unit.
    fn is_older_than(&self, unit: &Unit, state: &UnitState) -> bool {
        let before = |path: &DevicePath| {
            let written = self.observed.written.get(path);
            written.is_some_and(|at| state.since.is_some_and(|since| *at < since))
        };
        self.owned.is_unknown(unit)
            && state.is_active()
            && !unit.restart_on.is_empty()
            && unit.restart_on.iter().all(before)
    }

    /// Whether the plan adds or changes something that the ledger does not know yet.
    fn is_news(&self, due: &BTreeMap<String, Digest>) -> bool {
        let units = &self.manifest.units;
        let mut files = self
            .manifest
            .files
            .iter()
            .filter(|file| !self.is_held(file.object()));
        let begun = |(name, inputs): (&String, &Digest)| {
            self.owned
                .units
                .get(name)
                .is_some_and(|known| known.inputs == *inputs && known.due == Some(Due::Files))
        };
        let found = |unit: &Unit| {
            !self.is_held(&unit.workload)
                && !due.contains_key(&unit.name)
                && self.owned.is_unknown(unit)
        };
        files.any(|file| !self.owned.files.contains_key(&file.path))
            || !due.iter().all(begun)
            || units.iter().any(found)
    }

    /// Whether the ledger has something that is no longer wanted.
    fn leftover(&self) -> bool {
        let manifest = self.manifest;
        let gone = |unit: (&String, &OwnedUnit)| {
            manifest.units.iter().all(|wanted| wanted.name != *unit.0)
                && !self.held.contains_key(&unit.1.workload)
        };
        let gone_file = |(path, owner): (&DevicePath, &Owner)| {
            manifest
                .files
                .binary_search_by(|file| file.path.cmp(path))
                .is_err()
                && !self.is_held(owner)
        };
        self.owned.units.iter().any(gone) || self.owned.files.iter().any(gone_file)
    }
}

/// Whether a unit was started with its current files.
fn runs_with_its_files(known: &OwnedUnit, wanted: Wanted, state: &UnitState) -> bool {
    match &known.due {
        None => true,
        Some(Due::Files) => false,
        // A failed unit has run with them; an inactive one may not have run at all. A job that has another
        // invocation has run, and after a boot it has none until it is started.
        Some(Due::Since(invocation)) => {
            let has_run = wanted == Wanted::Once && !state.invocation.is_empty();
            state.invocation != *invocation && (state.is_up() || state.is_failed() || has_run)
        }
    }
}

/// Whether a file must be removed before another can be written, because one path is a folder in the other.
fn in_the_way(old: &DevicePath, new: &DevicePath) -> bool {
    let (old, new) = (old.as_str(), new.as_str());
    let above = |folder: &str, path: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    above(old, new) || above(new, old)
}

#[cfg(test)]
mod tests;
