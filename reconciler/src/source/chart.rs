//! Helm charts in a repository, which are skipped: templates are not YAML, and values are not objects.

use std::collections::BTreeSet;

use flotta_bundle::code;
use flotta_renderer::{Finding, Place};

use super::tree::SourceFile;

/// The file that identifies a folder as a chart.
const CHART: &str = "Chart.yaml";

/// The folders of charts, with a `/` at the end.
pub(super) struct Charts<'a>(BTreeSet<&'a str>);

impl<'a> Charts<'a> {
    pub(super) fn of(files: &'a [SourceFile]) -> Self {
        let folder = |file: &'a SourceFile| {
            let folder = file.path.strip_suffix(CHART)?;
            let whole = folder.is_empty() || folder.ends_with('/');
            // a file of that name may hold an object of a fleet
            let text = String::from_utf8_lossy(&file.content);
            (whole && !text.contains(flotta_renderer::GROUP)).then_some(folder)
        };
        Self(files.iter().filter_map(folder).collect())
    }

    /// Whether a file is part of a chart. Other files next to a chart are read.
    pub(super) fn has(&self, path: &str) -> bool {
        let mut folders = self.0.iter();
        folders.any(|folder| path.strip_prefix(folder).is_some_and(is_part))
    }

    /// A finding for each chart that is not within another one.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let inner = |folder: &str| {
            self.0
                .iter()
                .any(|outer| *outer != folder && folder.starts_with(outer))
        };
        let outer = self.0.iter().filter(move |folder| !inner(folder));
        outer.map(|folder| {
            let place = Place::file(format!("{folder}{CHART}"));
            let message =
                "a Helm chart is not part of the fleet: its values and templates are not read";
            let help = "to have its objects in the fleet, commit what `helm template` writes";
            Finding::warning(code::IGNORED_FILE, place, message).with_help(help)
        })
    }
}

/// Whether a path below a chart's folder belongs to the chart.
fn is_part(below: &str) -> bool {
    let folders = ["templates/", "charts/", "crds/"];
    let values = below.starts_with("values") && !below.contains('/');
    below == CHART || values || folders.iter().any(|folder| below.starts_with(folder))
}
