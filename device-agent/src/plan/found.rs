//! Finds what the fleet owns on a machine when the ledger was lost.

use flotta_bundle::path::UNITS;
use flotta_bundle::{DevicePath, Owner};

use super::QUADLET;
use crate::backend::{Files, Systemd};
use crate::ledger::{Owned, OwnedUnit};

/// Finds the fleet's files by their marks, and their units. A unit counts only if systemd has loaded it from that file, because
/// the machine may have a unit of the same name.
pub async fn find_owned(files: &mut impl Files, systemd: &mut impl Systemd) -> Owned {
    let (mut owned, mut units) = (Owned::default(), Vec::new());
    files.each_written(&mut |path, object, content| {
        let text = String::from_utf8_lossy(content);
        let object = object.or_else(|| labelled(&text));
        let object = object.unwrap_or_else(|| Owner::device().clone());
        if let Some(unit) = unit_of(&path, &text) {
            units.push((unit, path.clone(), object.clone()));
        }
        owned.files.insert(path, object);
    });
    for (unit, path, object) in units {
        let Ok(state) = systemd.unit(&unit).await else {
            continue;
        };
        let is_nobodys = state.source.is_empty() && state.fragment.is_empty();
        let is_from = [&state.source, &state.fragment].contains(&&path.to_string());
        if is_from || is_nobodys {
            owned.units.insert(unit, OwnedUnit::found(object));
        }
    }
    owned
}

/// The workload in a container's label. The first agents did not record the owner of a file.
fn labelled(text: &str) -> Option<Owner> {
    let (_, rest) = text.split_once("flotta.workload=")?;
    let name = rest.split(['"', '\n']).next()?;
    name.parse().ok().filter(Owner::is_workload)
}

/// The unit that Quadlet or systemd makes from a file; for a template, its default instance.
fn unit_of(path: &DevicePath, text: &str) -> Option<String> {
    let path = path.as_str();
    let name = path.strip_prefix(UNITS).or(path.strip_prefix(QUADLET))?;
    let (stem, kind) = name
        .rsplit_once('.')
        .filter(|(stem, _)| !stem.contains('/'))?;
    let instance = |service: &str| match service.strip_suffix('@') {
        Some(_) => {
            value(text, "[Install]", "DefaultInstance").map(|name| format!("{service}{name}"))
        }
        None => Some(service.to_owned()),
    };
    if path.starts_with(UNITS) {
        return Some(format!("{}.{kind}", instance(stem)?));
    }
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
    let service = value(text, section, "ServiceName").unwrap_or_else(|| format!("{stem}{suffix}"));
    Some(format!("{}.service", instance(&service)?))
}

/// The last value of a key in a section.
fn value(text: &str, section: &str, key: &str) -> Option<String> {
    let (mut found, mut is_here) = (None, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_here = line == section;
        } else if is_here
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            found = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    found
}
