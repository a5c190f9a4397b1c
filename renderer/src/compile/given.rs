//! Compiles the user's own Quadlet files. They run unchanged, after checks like those of Quadlet and systemd.

mod kube;

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::{FileKind, MAX_FILE_BYTES, Pull, Unit, Wanted};
use flotta_bundle::path::{UNIT_KINDS, UNITS};
use flotta_bundle::{Owner, code};

use super::QUADLET_FOLDER;
use super::compiled::{Need, Port, Volume};
use super::job::Job;
use super::pod::names_registry;
use super::unit::Protocol;
use crate::finding::{Finding, Scope};
use crate::place::Place;
use crate::pointer::step;
use crate::quadlet::file::Spot;
use crate::quadlet::install::{Service, services};
use crate::quadlet::keys::Kind;
use crate::quadlet::names::{Role, role};
use crate::quadlet::unit::{self, Value};
use crate::quadlet::{Set, ports};

/// The most ports or port ranges of one workload. Each is compared with all others of the device.
const MAX_PORTS: usize = 1_000;

pub(super) fn compile(job: &mut Job<'_>, files: &BTreeMap<String, String>) {
    if files.is_empty() {
        job.refuse(code::SCHEMA, "/spec/quadlet", "at least one file is needed");
    }
    let set = Set::read(files);
    check(job, &set);
    let mut paths = BTreeMap::new();
    for name in set.files.keys() {
        let pointer = pointer(name);
        let content = set.files[set.content(name)];
        if content.len() as u64 > MAX_FILE_BYTES {
            let message = format!("{name} is larger than {MAX_FILE_BYTES} bytes");
            job.refuse(code::LIMIT, &pointer, message);
            continue;
        }
        let (folder, kind) = match role(name) {
            Ok(Role::Quadlet(_) | Role::QuadletDropIn(_)) => (QUADLET_FOLDER, FileKind::Quadlet),
            Ok(Role::Systemd | Role::SystemdDropIn(_)) => {
                (UNITS.trim_end_matches('/'), FileKind::Quadlet)
            }
            Ok(Role::Plain) | Err(_) => (QUADLET_FOLDER, FileKind::Data),
        };
        let bytes = content.as_bytes().to_vec();
        if let Some(path) = job.put(folder, name, bytes, kind, 0o644, &pointer) {
            paths.insert(*name, path);
        }
    }
    let services = services(&set);
    for service in &services {
        let inputs = set.inputs(service.unit, &service.name);
        let restart_on = inputs.iter().filter_map(|name| paths.get(name).cloned());
        job.out.units.push(Unit {
            restart_on: restart_on.collect(),
            name: service.name.clone(),
            workload: Owner::workload(job.name),
            wanted: service.wanted,
        });
    }
    if services.is_empty() {
        refuse_without_unit(job, &set);
    }
    warn_not_started(job, &services);
    images(job, &set);
    volumes(job, &set);
    publish(job, &set, &services);
}

fn pointer(name: &str) -> String {
    format!("/spec/quadlet/{}", step(name))
}

/// Returns the place of something in a file, or the place of the file's name.
fn place(job: &Job<'_>, file: &str, spot: Option<Spot>) -> Place {
    let document = &job.workload.document;
    match spot {
        Some(spot) => document.place_in(&pointer(file), spot.line, spot.column, spot.len),
        None => document.key_place(&pointer(file)),
    }
}

fn check(job: &mut Job<'_>, set: &Set<'_>) {
    let (faults, needs) = set.check();
    for fault in faults {
        job.out.findings.push(Finding {
            severity: fault.severity,
            code: fault.code,
            message: fault.message,
            place: place(job, &fault.file, fault.spot),
            help: fault.help,
            scope: Scope::Object,
        });
    }
    for need in needs {
        job.out.needs.push(Need {
            path: format!("{QUADLET_FOLDER}/{}", need.name),
            place: place(job, &need.file, Some(need.spot)),
            message: need.message,
        });
    }
}

/// Reports a workload of plain files, from which nothing is ever made. Often the extension is misspelt.
fn refuse_without_unit(job: &mut Job<'_>, set: &Set<'_>) {
    let is_refused = job.out.findings.iter().any(Finding::is_error);
    if is_refused || !set.units.is_empty() {
        return;
    }
    let meant = set.files.keys().find_map(|name| {
        let (stem, extension) = name.rsplit_once('.')?;
        let extension = extension.to_ascii_lowercase();
        let all = Kind::ALL.map(Kind::extension);
        let mut all = all.into_iter().chain(UNIT_KINDS);
        let kind = all.find(|kind| strsim::jaro_winkler(kind, &extension) > 0.9)?;
        Some((*name, format!("did you mean `{stem}.{kind}`?")))
    });
    let message = "no unit is made from these files: none is a Quadlet file or a unit of systemd";
    let place = match meant {
        Some((name, _)) => place(job, name, None),
        None => job.workload.document.key_place("/spec/quadlet"),
    };
    let mut finding = Finding::error(code::UNIT_FILE, place, message);
    finding.help = meant.map(|(_, help)| help);
    job.out.findings.push(finding);
}

/// Warns about a workload that nothing starts, which is easily overlooked. Jobs are excepted: a timer of another workload may
/// start them.
fn warn_not_started(job: &mut Job<'_>, services: &[Service<'_, '_>]) {
    let starts = |service: &Service<'_, '_>| service.wanted != Wanted::Loaded;
    let runs = |service: &&Service<'_, '_>| {
        let kinds = [Kind::Container, Kind::Pod, Kind::Kube].map(Some);
        kinds.contains(&service.unit.kind()) && !service.ends
    };
    let Some(service) = services.iter().find(runs) else {
        return;
    };
    // The errors of a refused workload come first.
    let is_refused = job.out.findings.iter().any(Finding::is_error);
    if !is_refused && !services.iter().any(starts) {
        let message = format!(
            "{} is not started: no unit of the workload has WantedBy= in [Install], and none is started by a timer, path or socket that is",
            service.name
        );
        let place = place(job, service.unit.name, None);
        job.warn(code::UNIT_FILE, place, message);
    }
}

/// Adds the images that must be on the device before anything starts. Podman handles references that systemd expands and
/// images that are built on the device.
fn images(job: &mut Job<'_>, set: &Set<'_>) {
    let tags = set
        .units
        .values()
        .flat_map(|unit| unit.all("Build", "ImageTag"));
    let built: Vec<&str> = tags.map(|tag| tag.text).collect();
    for unit in set.units.values() {
        // A link to a template has the template's image.
        let Some(kind) = unit.kind().filter(|_| unit.files[0].0 == unit.name) else {
            continue;
        };
        let Some(image) = unit.said(kind.section(), "Image") else {
            continue;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
        let is_file = [".image", ".build"]
            .iter()
            .any(|end| image.text.ends_with(end));
        if is_file || built.contains(&image.text) || image.text.contains(['%', '$']) {
            continue;
        }
        let place = place(job, image.file, Some(image.spot()));
        if !image.text.chars().all(plain) || image.text.starts_with('-') {
            let message = format!("{:?} is not an image reference", image.text);
            job.out
                .findings
                .push(Finding::error(code::SCHEMA, place, message));
            continue;
        }
        let never = unit
            .said(kind.section(), "Pull")
            .is_some_and(|pull| pull.text == "never");
        let pull = if never { Pull::Never } else { Pull::Missing };
        if !names_registry(image.text) {
            let message = format!(
                "image `{}` names no registry: Podman uses the device's configuration to find one",
                image.text
            );
            job.warn(code::SHORT_IMAGE, place.clone(), message);
        }
        job.need_image(image.text, pull, place);
    }
}

/// Adds the Podman volumes that the units name.
fn volumes(job: &mut Job<'_>, set: &Set<'_>) {
    let named = |unit: &&unit::Unit<'_>| unit.kind().is_some();
    for unit in set.units.values().filter(named) {
        let makes = unit.said("Volume", "VolumeName").into_iter();
        let makes = makes.map(|name| (name, name.text));
        let mounts = ["Container", "Pod"].into_iter();
        let mounts = mounts.flat_map(|section| unit.all(section, "Volume"));
        let mounts = mounts.filter_map(|value| Some((value, value.text.split_once(':')?.0)));
        for (value, name) in makes.chain(mounts) {
            // A path, a name that systemd expands, or a Quadlet file.
            if name.starts_with(['/', '.', '%']) || name.ends_with(".volume") {
                continue;
            }
            job.out.volumes.push(Volume {
                name: name.to_owned(),
                what: format!("volume `{name}`"),
                is_own: false,
                place: place(job, value.file, Some(value.spot())),
            });
        }
    }
}

/// The ports of the device that the units claim. One unit may ask for a port twice, for IPv4 and IPv6; and units that exclude
/// each other may have the same.
fn publish(job: &mut Job<'_>, set: &Set<'_>, services: &[Service<'_, '_>]) {
    let mut claimed: Vec<(&Service<'_, '_>, Port)> = Vec::new();
    for service in services {
        let mut ports = kube::ports(job, set, service.unit);
        for (value, published) in claims(service.unit) {
            let place = place(job, value.file, Some(value.spot()));
            ports.extend(published.first.map(|first| Port {
                address: published.address,
                first,
                last: first.saturating_add(published.count - 1),
                protocol: Protocol::of(&published.protocol),
                place,
            }));
        }
        let own = excluded(service);
        let apart = |other: &Service<'_, '_>| {
            other.name == service.name
                || own.contains(&other.name)
                || excluded(other).contains(&service.name)
        };
        let before: Vec<Port> = claimed
            .iter()
            .filter(|(other, _)| apart(other))
            .map(|(_, port)| port.clone())
            .collect();
        for port in ports {
            let mut of_own = claimed
                .iter()
                .filter(|(other, _)| other.name == service.name);
            let is_known = before.iter().any(|known| known.clash(&port).is_some())
                || of_own.any(|(_, known)| known.clash(&port).is_some());
            if claimed.len() >= MAX_PORTS {
                let message = format!("more than {MAX_PORTS} published ports in one workload");
                let finding = Finding::error(code::LIMIT, port.place, message);
                job.out.findings.push(finding);
                return;
            }
            if !is_known {
                claimed.push((service, port));
            }
        }
    }
    job.out
        .ports
        .extend(claimed.into_iter().map(|(_, port)| port));
}

/// Returns the units that cannot run together with this one (`Conflicts=`).
fn excluded(service: &Service<'_, '_>) -> BTreeSet<String> {
    let conflicts = service.unit.names("Unit", "Conflicts").into_iter();
    conflicts.map(|(_, word)| word.text).collect()
}

/// Returns the ports of the machine that a unit uses.
fn claims<'u>(unit: &'u unit::Unit<'_>) -> Vec<(Value<'u>, ports::Published)> {
    let mut claims = Vec::new();
    for section in ["Container", "Pod", "Kube"] {
        // Nothing is published in the host network.
        let networks = unit.all(section, "Network");
        if networks.iter().any(|network| network.text == "host") {
            continue;
        }
        for value in unit.all(section, "PublishPort") {
            claims.extend(
                ports::parse(value.text)
                    .ok()
                    .map(|published| (value, published)),
            );
        }
    }
    for (key, protocol) in [("ListenStream", "tcp"), ("ListenDatagram", "udp")] {
        for value in unit.all("Socket", key) {
            let (address, port) = value.text.rsplit_once(':').unwrap_or(("", value.text));
            let Ok((first, 1)) = ports::range(port) else {
                continue;
            };
            let published = ports::Published {
                address: address.trim_matches(['[', ']']).to_owned(),
                first: Some(first),
                count: 1,
                protocol: protocol.to_owned(),
            };
            claims.push((value, published));
        }
    }
    claims
}
