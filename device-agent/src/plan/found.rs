//! What of a machine is the fleet's when the ledger does not say it.

use flotta_bundle::DevicePath;

use super::{QUADLET, workload_of};
use crate::backend::{Files, Systemd};
use crate::ledger::{Owned, OwnedUnit};

/// What of the machine is the fleet's, by the marks of its files: for when the ledger was lost. A unit is the fleet's only as
/// long as systemd has it from no other file: a release may name one as the machine does.
pub async fn find_owned(files: &mut impl Files, systemd: &mut impl Systemd) -> Owned {
    let (mut owned, mut units) = (Owned::default(), Vec::new());
    files.each_written(&mut |path, content| {
        let mut workload = workload_of(&path, &[]).to_owned();
        let text = String::from_utf8_lossy(content);
        if let Some((unit, stem)) = unit_of(&path, &text) {
            let label = text.split_once("flotta.workload=");
            let label = label.map(|(_, rest)| rest.split(['"', '\n']).next().unwrap_or(stem));
            label.unwrap_or(stem).clone_into(&mut workload);
            units.push((unit, path.clone(), workload.clone()));
        }
        owned.files.insert(path, workload);
    });
    for (unit, path, workload) in units {
        let Ok(state) = systemd.unit(&unit).await else {
            continue;
        };
        let is_nobodys = state.source.is_empty() && state.fragment.is_empty();
        if state.source == path.as_str() || is_nobodys {
            owned.units.insert(unit, OwnedUnit::found(workload));
        }
    }
    owned
}

/// The unit that Quadlet makes of a file, and the file's stem.
fn unit_of<'a>(path: &'a DevicePath, text: &str) -> Option<(String, &'a str)> {
    let name = path.as_str().strip_prefix(QUADLET)?;
    let (stem, kind) = name
        .rsplit_once('.')
        .filter(|(stem, _)| !stem.contains('/'))?;
    let (suffix, section) = match kind {
        "container" => ("", "[Container]"),
        "kube" => ("", "[Kube]"),
        "pod" => ("-pod", "[Pod]"),
        "volume" => ("-volume", "[Volume]"),
        "network" => ("-network", "[Network]"),
        "image" => ("-image", "[Image]"),
        "build" => ("-build", "[Build]"),
        _ => return None,
    };
    let service = service_name(text, section).unwrap_or_else(|| format!("{stem}{suffix}"));
    Some((format!("{service}.service"), stem))
}

/// The last `ServiceName=` of a section: Quadlet calls the unit so.
fn service_name(text: &str, section: &str) -> Option<String> {
    let (mut name, mut is_here) = (None, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_here = line == section;
        } else if is_here
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "ServiceName"
        {
            name = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    name
}
