//! `[Install]` of native systemd units. For the units that it generates, Quadlet applies `[Install]` itself.

use std::collections::BTreeMap;

use flotta_bundle::Digest;
use flotta_bundle::manifest::{Unit, Wanted};
use flotta_bundle::path::UNITS;

use super::Planner;

impl Planner<'_> {
    /// The units to enable: those whose files change, because their `[Install]` may have changed, and those that somebody disabled.
    pub(super) fn enables(&mut self, due: &BTreeMap<String, Digest>) -> Vec<String> {
        let manifest = self.manifest;
        let enables = manifest.units.iter().filter(|unit| {
            let state = self.observed.units.get(&unit.name);
            let is_disabled = state.is_some_and(|state| state.file_state == "disabled");
            installs(unit)
                && !self.is_held(&unit.workload)
                && (is_disabled || due.contains_key(&unit.name))
        });
        let enables: Vec<_> = enables.map(|unit| unit.name.clone()).collect();
        // after the reload systemd knows the links
        self.reload |= !enables.is_empty();
        enables
    }

    /// The units to disable: they are removed, or a native unit becomes a Quadlet file, or an instance is no longer wanted.
    /// systemd's cached state of a unit whose file is removed is not used, because a crash between two steps may have made it
    /// stale.
    pub(super) fn disables(&self) -> Vec<String> {
        let disables = self.owned.units.iter().filter(|(name, unit)| {
            let mut wanted = self.manifest.units.iter();
            let wanted = wanted.find(|wanted| wanted.name == **name);
            if self.is_held(&unit.workload) || wanted.is_some_and(installs) {
                return false;
            }
            let state = self.observed.units.get(*name);
            match state.map_or("", |state| state.file_state.as_str()) {
                "enabled" => true,
                "disabled" => self.own_file_leaves(name),
                _ => false,
            }
        });
        disables.map(|(name, _)| name.clone()).collect()
    }

    /// Whether a unit's own file is on the device but not in the manifest.
    fn own_file_leaves(&self, name: &str) -> bool {
        let own = format!("{UNITS}{name}");
        let is_own = |path: &str| path == own;
        let mut files = self.owned.files.keys();
        files.any(|path| is_own(path.as_str()))
            && !self
                .manifest
                .files
                .iter()
                .any(|file| is_own(file.path.as_str()))
    }
}

/// Whether a unit's `[Install]` must be applied: it has a file of its own, or is a wanted instance of a template.
pub(super) fn installs(unit: &Unit) -> bool {
    let mut units = unit
        .restart_on
        .iter()
        .filter_map(|path| path.as_str().strip_prefix(UNITS))
        .filter(|name| !name.contains('/'));
    units.any(|name| name == unit.name || unit.wanted != Wanted::Loaded && is_template(name, unit))
}

fn is_template(file: &str, unit: &Unit) -> bool {
    let base = |name: &str| name.split_once('@').map(|(base, _)| base.to_owned());
    let kind = |name: &str| name.rsplit_once('.').map(|(_, kind)| kind.to_owned());
    base(file).is_some() && base(file) == base(&unit.name) && kind(file) == kind(&unit.name)
}
