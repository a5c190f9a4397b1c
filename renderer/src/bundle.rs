//! Combines the workloads of one device to a manifest, and returns the leaves of the next release.

use std::collections::BTreeMap;

use flotta_bundle::leaf::Leaf;
use flotta_bundle::manifest::{File, Image, Manifest, Mode, SCHEMA, Settings};
use flotta_bundle::{Code, DeviceName, Digest, Owner, code};

use crate::compile::{Compiled, Volume};
use crate::place::Place;
use crate::render::Rendered;

/// A compiled workload, with its name and place.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The workload's name.
    pub name: &'a str,
    /// The place of the name.
    pub place: &'a Place,
    /// The compiled workload.
    pub compiled: &'a Compiled,
}

/// Why workloads cannot be on one device together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clash {
    /// What conflicts.
    pub message: String,
    /// The place of the later of the two.
    pub place: Place,
    /// [`code::CONFLICT`], [`code::LIMIT`] or [`code::MISSING_REFERENCE`].
    pub code: &'static str,
}

impl Clash {
    /// Returns the code.
    pub fn code(&self) -> Code {
        [code::LIMIT, code::MISSING_REFERENCE]
            .into_iter()
            .find(|code| code.id == self.code)
            .unwrap_or(code::CONFLICT)
    }
}

/// Combines workloads to a manifest and returns its digest. The contents of files go to `blobs`.
pub fn assemble(
    parts: &[Part<'_>],
    settings: Settings,
    blobs: &mut BTreeMap<Digest, Vec<u8>>,
) -> Result<Digest, Vec<Clash>> {
    let conflicts = conflicts(parts);
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut manifest = Manifest {
        schema: SCHEMA,
        files: Vec::new(),
        units: Vec::new(),
        images: Vec::new(),
        health: Vec::new(),
        settings,
    };
    let mut images: BTreeMap<&str, Image> = BTreeMap::new();
    for part in parts {
        for (path, content) in &part.compiled.files {
            let digest = Digest::of(&content.bytes);
            manifest.files.push(File {
                path: path.clone(),
                mode: Mode::new(content.mode),
                owner: "root".to_owned(),
                group: "root".to_owned(),
                digest,
                size: content.bytes.len() as u64,
                kind: content.kind,
                belongs_to: Some(Owner::workload(part.name)),
            });
            blobs.entry(digest).or_insert_with(|| content.bytes.clone());
        }
        manifest.units.extend(part.compiled.units.iter().cloned());
        manifest.health.extend(part.compiled.checks.iter().cloned());
        for image in &part.compiled.images {
            images
                .entry(&image.reference)
                .and_modify(|known| {
                    known.pull = known.pull.min(image.pull);
                    known.workloads.extend(image.workloads.iter().cloned());
                })
                .or_insert_with(|| image.clone());
        }
    }
    manifest.images.extend(images.into_values());
    let bytes = manifest.encode();
    // The device checks the same rules, but here somebody can still fix an error.
    if let Err(error) = Manifest::parse(&bytes) {
        let place = parts
            .first()
            .map(|part| part.place.clone())
            .unwrap_or_default();
        return Err(vec![Clash {
            message: error.to_string(),
            place,
            code: code::LIMIT.id,
        }]);
    }
    let digest = Digest::of(&bytes);
    blobs.entry(digest).or_insert(bytes);
    Ok(digest)
}

/// Returns why these workloads cannot be on one device together. Broken workloads have findings of their own.
pub fn conflicts(parts: &[Part<'_>]) -> Vec<Clash> {
    let (broken, whole): (Vec<_>, Vec<_>) = parts
        .iter()
        .copied()
        .partition(|part| part.compiled.is_broken());
    let mut found = clashes(&whole);
    found.extend(shared_volumes(&whole));
    found.extend(missing(&whole, &broken));
    found
}

/// Returns the conflicts between workloads. Names are compared without case, because some file systems ignore it.
fn clashes(parts: &[Part<'_>]) -> Vec<Clash> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let paths = part
            .compiled
            .files
            .keys()
            .map(|path| (path.as_str(), format!("file {path}")));
        let units = part
            .compiled
            .units
            .iter()
            .map(|unit| (unit.name.as_str(), format!("unit {}", unit.name)));
        for (key, what) in paths.chain(units) {
            let owner = owners.entry(key.to_ascii_lowercase()).or_insert(part.name);
            if *owner != part.name {
                let message = format!("workloads `{owner}` and `{}` both want {what}", part.name);
                found.push(Clash {
                    message,
                    place: part.place.clone(),
                    code: code::CONFLICT.id,
                });
            }
        }
        for (at, port) in part.compiled.ports.iter().enumerate() {
            let own = part.compiled.ports[..at]
                .iter()
                .map(|other| (part.name, other));
            let before = parts[..index]
                .iter()
                .flat_map(|p| p.compiled.ports.iter().map(|port| (p.name, port)));
            let mut clashing = before
                .chain(own)
                .filter_map(|(owner, other)| Some((owner, port.clash(other)?)));
            if let Some((owner, number)) = clashing.next() {
                let both = if owner == part.name {
                    format!("workload `{owner}` wants")
                } else {
                    format!("workloads `{owner}` and `{}` both want", part.name)
                };
                let message = format!(
                    "{both} port {number}/{}{}",
                    port.protocol,
                    if owner == part.name { " twice" } else { "" }
                );
                found.push(Clash {
                    message,
                    place: port.place.clone(),
                    code: code::CONFLICT.id,
                });
            }
        }
    }
    found
}

/// Returns conflicts between volumes with the same name in Podman. A workload's own volume belongs to it alone; a volume that is
/// named in full is shared by all that name it.
fn shared_volumes(parts: &[Part<'_>]) -> Vec<Clash> {
    let mut known: BTreeMap<&str, (&str, &Volume)> = BTreeMap::new();
    let mut found = Vec::new();
    let volumes = parts.iter().flat_map(|part| {
        let volumes = part.compiled.volumes.iter();
        volumes.map(|volume| (part.name, volume))
    });
    for (workload, volume) in volumes {
        let &mut (owner, first) = known.entry(&volume.name).or_insert((workload, volume));
        let is_same = owner == workload && first.what == volume.what;
        if !is_same && (first.is_own || volume.is_own) {
            let message = format!(
                "{} of workload `{owner}` and {} of workload `{workload}` are both the volume `{}` to Podman, and would share their content: rename one of them",
                first.what, volume.what, volume.name
            );
            found.push(Clash {
                message,
                place: volume.place.clone(),
                code: code::CONFLICT.id,
            });
        }
    }
    found
}

/// Returns the files that a workload needs and no workload of the device has, not even a broken one.
fn missing<'a>(parts: &'a [Part<'_>], broken: &'a [Part<'_>]) -> impl Iterator<Item = Clash> + 'a {
    let has = move |path: &str| {
        let is_there = |file: &str| {
            file.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let all = parts.iter().chain(broken);
        let mut files = all.flat_map(|part| part.compiled.files.keys());
        files.any(|file| is_there(file.as_str()))
    };
    let needs = parts.iter().flat_map(|part| &part.compiled.needs);
    needs
        .filter(move |need| !has(&need.path))
        .map(|need| Clash {
            message: need.message.clone(),
            place: need.place.clone(),
            code: code::MISSING_REFERENCE.id,
        })
}

/// Returns the leaves of the next release; `previous` are those of the last one. Held devices keep their leaves, and devices that
/// no longer exist get none.
pub fn leaves(
    rendered: &Rendered,
    previous: &BTreeMap<DeviceName, Leaf>,
) -> BTreeMap<DeviceName, Leaf> {
    let held = rendered
        .held
        .iter()
        .filter_map(|device| previous.get(device))
        .cloned();
    let new = rendered.devices.iter().map(|(device, found)| {
        Leaf::following(device.clone(), found.manifest, previous.get(device))
    });
    held.chain(new)
        .map(|leaf| (leaf.device.clone(), leaf))
        .collect()
}
