//! The machine as it is, as far as a manifest and what the fleet owns concern it.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::{DevicePath, Manifest};
use jiff::Timestamp;

use crate::backend::{BackendError, Files, Found, Systemd, UnitState};
use crate::ledger::Owned;

/// The machine as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// What is at the paths of files that are wanted.
    pub files: BTreeMap<DevicePath, Found>,
    /// Files that are wanted and that the ledger knows nothing of, or whose units it knows nothing of, and that bear the mark of
    /// an agent: when they were written.
    pub written: BTreeMap<DevicePath, Timestamp>,
    /// Files that are the fleet's and no longer wanted. Those that are gone are among them: a try before this one may have
    /// ended between a file and what is left of it (its folder, its unit).
    pub leaving: Vec<DevicePath>,
    /// Units that are wanted or the fleet's.
    pub units: BTreeMap<String, UnitState>,
    /// What could not be looked at: a path or unit, and why.
    pub blind: BTreeMap<String, BackendError>,
}

/// Looks at the machine. Changes nothing.
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

/// Wanted files that the ledger says nothing of, and those of units that it says nothing of.
fn unknown<'a>(manifest: &'a Manifest, owned: &Owned) -> BTreeSet<&'a DevicePath> {
    let files = manifest.files.iter().map(|file| &file.path);
    let files = files.filter(|path| !owned.files.contains_key(*path));
    let units = manifest.units.iter().filter(|unit| owned.is_unknown(unit));
    files
        .chain(units.flat_map(|unit| &unit.restart_on))
        .collect()
}
