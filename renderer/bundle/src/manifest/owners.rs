//! Whom the files of a manifest belong to. The units say it of most: a file is left without a word of its own where they do, so
//! that a fleet that needs nothing else keeps its digests.

use std::collections::BTreeMap;

use super::{File, Manifest, Unit};
use crate::owner::Owner;
use crate::path::DevicePath;

impl File {
    /// The object it belongs to, in a manifest that was parsed.
    pub fn object(&self) -> &Owner {
        self.belongs_to.as_ref().unwrap_or(Owner::device())
    }
}

/// The object of all units that restart on a file; none where they differ.
fn of_units(units: &[Unit]) -> BTreeMap<&DevicePath, Option<&Owner>> {
    let mut found = BTreeMap::new();
    for unit in units {
        for path in &unit.restart_on {
            let known = found.entry(path).or_insert(Some(&unit.workload));
            if *known != Some(&unit.workload) {
                *known = None;
            }
        }
    }
    found
}

impl Manifest {
    /// Has every file say whom it belongs to.
    pub(super) fn fill_in_owners(&mut self) {
        let of_units = of_units(&self.units);
        for file in &mut self.files {
            let owner = of_units.get(&file.path).copied().flatten();
            file.belongs_to = file.belongs_to.take().or_else(|| owner.cloned());
        }
    }

    /// Has only those files say it that must.
    pub(super) fn leave_out_owners(&mut self) {
        let of_units = of_units(&self.units);
        for file in &mut self.files {
            let owner = of_units.get(&file.path).copied().flatten();
            if file.object() == owner.unwrap_or(Owner::device()) {
                file.belongs_to = None;
            }
        }
        // Not for that alone does a device need a newer agent: then nobody knows that a file which no unit restarts on is a
        // workload's, and it is written and removed all the same.
        let of_others = |owner: &Owner| !owner.is_workload();
        let mut said = self
            .files
            .iter()
            .filter_map(|file| file.belongs_to.as_ref());
        if !self.needs_third() && !said.any(of_others) {
            self.files
                .iter_mut()
                .for_each(|file| file.belongs_to = None);
        }
    }

    /// There is one way to say it.
    pub(super) fn check_owners(&self) -> Result<(), String> {
        if self.files.iter().all(|file| file.belongs_to.is_none()) {
            return Ok(());
        }
        let mut least = self.clone();
        least.leave_out_owners();
        let mut both = self.files.iter().zip(&least.files);
        match both.find(|(said, least)| said != least) {
            Some((file, _)) => Err(format!(
                "file {} says needlessly whom it belongs to",
                file.path
            )),
            None => Ok(()),
        }
    }
}
