//! Observes the machine, as far as a manifest and the fleet's files and units concern it.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::{DevicePath, Manifest};
use jiff::Timestamp;

use crate::backend::{BackendError, Files, Found, Systemd, UnitState};
use crate::ledger::Owned;
use crate::plan::template;

/// An instance that nobody has: systemd says of it which file a template is read from, and it knows no template by itself.
const PROBE: &str = "@flotta-probe.";

/// The actual state of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// What is at the paths of wanted files.
    pub files: BTreeMap<DevicePath, Found>,
    /// Wanted files that carry an agent's mark while the ledger does not know them or their units: when they were written.
    pub written: BTreeMap<DevicePath, Timestamp>,
    /// Files of the fleet that are no longer wanted. Those that are gone already are among them: an earlier try may have ended
    /// between removing the file and its leftovers (its folder, its unit).
    pub leaving: Vec<DevicePath>,
    /// Units that are wanted, or that belong to the fleet.
    pub units: BTreeMap<String, UnitState>,
    /// What systemd makes of the names of wanted templates that are not the fleet's yet: an instance of each, by the file.
    pub templates: BTreeMap<DevicePath, UnitState>,
    /// Paths and units that could not be observed, and why.
    pub blind: BTreeMap<String, BackendError>,
}

/// Observes the machine. Changes nothing.
pub async fn observe<S: Systemd, F: Files>(
    manifest: &Manifest,
    owned: &Owned,
    systemd: &mut S,
    files: &mut F,
) -> Observed {
    let mut observed = Observed::default();
    for file in &manifest.files {
        match files.look(file) {
            Ok(found) => {
                observed.files.insert(file.path.clone(), found);
            }
            Err(error) => {
                observed.blind.insert(file.path.to_string(), error);
            }
        }
    }
    for file in &manifest.files {
        let template = template(&file.path).filter(|_| !owned.files.contains_key(&file.path));
        if let Some(template) = template {
            let probe = template.replacen("@.", PROBE, 1);
            match systemd.unit(&probe).await {
                Ok(state) => {
                    observed.templates.insert(file.path.clone(), state);
                }
                Err(error) => {
                    observed.blind.insert(template.to_owned(), error);
                }
            }
        }
    }
    for path in unknown(manifest, owned) {
        if let Some(at) = files.written(path) {
            observed.written.insert(path.clone(), at);
        }
    }
    let wanted = |path: &DevicePath| {
        let at = manifest.files.binary_search_by(|file| file.path.cmp(path));
        at.is_ok()
    };
    let leaving = owned.files.keys().filter(|path| !wanted(path));
    observed.leaving = leaving.cloned().collect();
    let wanted = manifest.units.iter().map(|unit| &unit.name);
    for name in wanted.chain(owned.units.keys()) {
        if observed.units.contains_key(name) {
            continue;
        }
        match systemd.unit(name).await {
            Ok(state) => {
                observed.units.insert(name.clone(), state);
            }
            Err(error) => {
                observed.blind.insert(name.clone(), error);
            }
        }
    }
    observed
}

/// Wanted files that the ledger does not know, and those of units that it does not know.
fn unknown<'a>(manifest: &'a Manifest, owned: &Owned) -> BTreeSet<&'a DevicePath> {
    let files = manifest.files.iter().map(|file| &file.path);
    let files = files.filter(|path| !owned.files.contains_key(*path));
    let units = manifest.units.iter().filter(|unit| owned.is_unknown(unit));
    files
        .chain(units.flat_map(|unit| &unit.restart_on))
        .collect()
}
