//! The objects that the files of a manifest belong to. The units imply it for most files, which then do not name their owner. A
//! fleet that needs nothing else keeps its digests.

use std::collections::BTreeMap;

use super::{File, Manifest, Unit};
use crate::owner::Owner;
use crate::path::DevicePath;

impl File {
    /// Returns the object that it belongs to, in a parsed manifest.
    pub fn object(&self) -> &Owner {
        self.belongs_to.as_ref().unwrap_or(Owner::device())
    }
}

/// Returns the object of all units that restart on a file; `None` if they differ.
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
    /// Adds the owner to every file.
    pub(super) fn fill_in_owners(&mut self) {
        let of_units = of_units(&self.units);
        for file in &mut self.files {
            let owner = of_units.get(&file.path).copied().flatten();
            file.belongs_to = file.belongs_to.take().or_else(|| owner.cloned());
        }
    }

    /// Removes the owner from files whose owner the units imply.
    pub(super) fn leave_out_owners(&mut self) {
        let of_units = of_units(&self.units);
        for file in &mut self.files {
            let owner = of_units.get(&file.path).copied().flatten();
            if file.object() == owner.unwrap_or(Owner::device()) {
                file.belongs_to = None;
            }
        }
        // A device needs no newer agent only to know that a file which restarts no unit belongs to a workload: the file is
        // written and removed all the same.
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

    /// Refuses owners that the units imply: there is one way to encode a manifest.
    pub(super) fn check_owners(&self) -> Result<(), String> {
        if self.files.iter().all(|file| file.belongs_to.is_none()) {
            return Ok(());
        }
        let mut least = self.clone();
        least.leave_out_owners();
        let mut both = self.files.iter().zip(&least.files);
        match both.find(|(said, least)| said != least) {
            Some((file, _)) => Err(format!(
                "file {} names its owner, which its units imply",
                file.path
            )),
            None => Ok(()),
        }
    }
}
