//! Drift: files of the fleet that somebody changed. It is reported first, and then corrected like any other difference from
//! the manifest.

use std::collections::BTreeMap;

use flotta_bundle::Owner;
use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest::{File, Manifest};
use jiff::Timestamp;

use crate::apply::Failures;
use crate::backend::{Files, Found};
use crate::ledger::{Ledger, LedgerError, Owned};
use crate::plan::{Plan, Step, inputs};

/// Most files that are named in one message.
const MAX_NAMED: usize = 3;

/// Finds drift by looking at the files. Workloads that the last try could not bring up are left out, because their files may
/// not all be there yet.
pub(super) fn seen(
    manifest: &Manifest,
    owned: &Owned,
    failures: &Failures,
    files: &mut impl Files,
) -> Failures {
    let settled =
        |file: &&File| is_settled(file, manifest, owned) && !failures.contains_key(file.object());
    let drifted = manifest.files.iter().filter(settled).filter(|file| {
        let found = files.look(file);
        !matches!(found, Ok(Found::File { digest, fits: true }) if digest == file.digest)
    });
    problems(drifted)
}

/// Finds drift from an applied manifest by the plan for it.
pub(super) fn planned(plan: &Plan, manifest: &Manifest, owned: &Owned) -> Failures {
    let written = plan.steps.iter().filter_map(|step| match step {
        Step::Write(file) => Some(file),
        _ => None,
    });
    problems(written.filter(|file| is_settled(file, manifest, owned)))
}

/// Whether a file had been written as this manifest has it, and is not being changed.
fn is_settled(file: &File, manifest: &Manifest, owned: &Owned) -> bool {
    let Some(object) = owned.files.get(&file.path) else {
        return false;
    };
    let mut units = manifest
        .units
        .iter()
        .filter(|unit| unit.workload == *object);
    units.all(|unit| {
        let known = owned.units.get(&unit.name);
        known.is_some_and(|known| {
            known.due.is_none() && known.inputs == inputs(unit, &manifest.files)
        })
    })
}

fn problems<'a>(drifted: impl Iterator<Item = &'a File>) -> Failures {
    let mut paths: BTreeMap<&Owner, Vec<&File>> = BTreeMap::new();
    for file in drifted {
        paths.entry(file.object()).or_default().push(file);
    }
    let problem = |files: &[&File]| {
        let named: Vec<_> = files
            .iter()
            .take(MAX_NAMED)
            .map(|file| file.path.as_str())
            .collect();
        let more = match files.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let was = if files.len() == 1 { "was" } else { "were" };
        let message = format!(
            "{}{more} {was} changed or removed on the device",
            named.join(", ")
        );
        Problem::new(code::DRIFTED, message)
    };
    let all = paths.iter();
    all.map(|(owner, files)| ((*owner).clone(), problem(files)))
        .collect()
}

/// Notes an event for the server about drift that was not known before.
pub(super) fn note(
    ledger: &mut Ledger,
    known: &Failures,
    drift: &Failures,
    now: &dyn Fn() -> Timestamp,
) -> Result<(), LedgerError> {
    for (owner, problem) in drift {
        if known.get(owner) != Some(problem) {
            // an event that cannot be written is written with the next one, at the latest at the end
            let _ = ledger.note(now(), "Drifted", format!("{owner}: {problem}"), true);
        }
    }
    ledger.save_unsaved()
}
