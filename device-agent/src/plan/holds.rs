//! Objects that are held back, because what they need on the machine is not the fleet's.

use flotta_bundle::manifest::Unit;
use flotta_bundle::{Code, DevicePath, Owner, Problem, code};

use super::{Planner, in_the_way, masked, template};
use crate::backend::{BackendError, Found, UnitState};

impl Planner<'_> {
    fn hold(&mut self, owner: &Owner, code: Code, message: String) {
        self.hold_by(owner, Problem::new(code, message));
    }

    fn hold_by(&mut self, owner: &Owner, problem: Problem) {
        self.held.entry(owner.clone()).or_insert(problem);
    }

    /// Holds objects whose paths or units belong to somebody else, or cannot be observed.
    pub(super) fn hold_what_is_not_ours(&mut self) {
        let manifest = self.manifest;
        for file in &manifest.files {
            let owner = file.object();
            // a marked file is as an agent wrote it, even if its ledger was lost
            let ours = self.owned.files.contains_key(&file.path)
                || self.observed.written.contains_key(&file.path);
            let goes = |old: &DevicePath| in_the_way(old, &file.path);
            match self.observed.files.get(&file.path) {
                // A file becomes a folder or the other way round: the old one is removed first.
                None | Some(Found::Other) if self.observed.leaving.iter().any(goes) => {}
                Some(Found::Other) => self.hold(
                    owner,
                    code::FILE_FAILED,
                    format!("{} is not a regular file", file.path),
                ),
                Some(Found::File { digest, .. }) if !ours && *digest != file.digest => {
                    self.hold(
                        owner,
                        code::UNIT_TAKEN,
                        format!(
                            "{} exists already and does not belong to this fleet",
                            file.path
                        ),
                    );
                }
                Some(_) => {}
                None => {
                    let error = self.observed.blind.get(file.path.as_str());
                    let unknown = || Problem::new(code::FILE_FAILED, file.path.as_str());
                    self.hold_by(owner, error.map_or_else(unknown, BackendError::of_file));
                }
            }
        }
        self.hold_templates();
        for unit in &manifest.units {
            match self.observed.units.get(&unit.name) {
                Some(state) if state.is_loaded() && !self.is_ours(unit, state) => {
                    self.hold_taken(&unit.workload, &unit.name, state);
                }
                // whoever masked it can undo that, and what runs keeps running
                Some(state) if state.is_masked() => {
                    self.hold_by(&unit.workload, masked(&unit.name));
                }
                Some(_) => {}
                None => {
                    let error = self.observed.blind.get(&unit.name);
                    let unknown = || Problem::new(code::BACKEND, &*unit.name);
                    let problem = error.map_or_else(unknown, |e| e.of_unit(&unit.name));
                    self.hold_by(&unit.workload, problem);
                }
            }
        }
    }

    /// Holds objects with a template of a name that the machine has already: its file would take the place of that one, for
    /// every instance there is.
    fn hold_templates(&mut self) {
        let manifest = self.manifest;
        for file in &manifest.files {
            let Some(name) = template(&file.path) else {
                continue;
            };
            let (state, blind) = (
                self.observed.templates.get(&file.path),
                self.observed.blind.get(name),
            );
            if let Some(error) = blind {
                self.hold_by(file.object(), error.of_unit(name));
            } else if let Some(state) = state.filter(|state| state.is_loaded())
                && state.fragment != file.path.as_str()
            {
                self.hold_taken(file.object(), name, state);
            }
        }
    }

    fn hold_taken(&mut self, owner: &Owner, unit: &str, state: &UnitState) {
        let source = if state.source.is_empty() {
            &state.fragment
        } else {
            &state.source
        };
        let message = format!("unit {unit} exists already, from {source}");
        self.hold(owner, code::UNIT_TAKEN, message);
    }

    /// Whether a unit comes from a file of the fleet.
    fn is_ours(&self, unit: &Unit, state: &UnitState) -> bool {
        let from =
            |path: &DevicePath| path.as_str() == state.source || path.as_str() == state.fragment;
        self.owned.units.contains_key(&unit.name) || unit.restart_on.iter().any(from)
    }
}
