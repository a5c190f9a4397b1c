//! The user's own Quadlet files: run as they are. Only what the agent must know is read from them: units and images.

use std::collections::BTreeMap;

use flotta_bundle::code;
use flotta_bundle::manifest::{FileKind, MAX_FILE_BYTES, Pull, Unit, Wanted};

use super::QUADLET_FOLDER;
use super::job::Job;
use crate::decode::step;

/// File kinds, what Quadlet appends to the name of the unit it makes (podman-systemd.unit(5)), and the section they are for.
const KINDS: [(&str, &str, &str); 6] = [
    ("container", "", "Container"),
    ("pod", "-pod", "Pod"),
    ("kube", "", "Kube"),
    ("volume", "-volume", "Volume"),
    ("network", "-network", "Network"),
    ("image", "-image", "Image"),
];

pub(super) fn compile(job: &mut Job<'_>, files: &BTreeMap<String, String>) {
    if files.is_empty() {
        job.refuse(code::SCHEMA, "/spec/quadlet", "at least one file is needed");
    }
    let mut paths = BTreeMap::new();
    for (name, content) in files {
        let pointer = format!("/spec/quadlet/{}", step(name));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let quadlet = KINDS.iter().any(|(of, ..)| *of == extension);
        // `.kube` files name the YAML they run: it lies beside them.
        let data = ["yaml", "yml"].contains(&extension);
        if stem.is_empty()
            || stem.starts_with(['.', '-'])
            || !name.chars().all(plain)
            || !(quadlet || data)
        {
            let kinds = KINDS.map(|(kind, ..)| format!(".{kind}")).join(", ");
            job.refuse(code::BAD_NAME, &pointer, format!("{name:?} is not a file name that can be used here: NAME with one of {kinds}, .yaml"));
            continue;
        }
        if content.len() as u64 > MAX_FILE_BYTES {
            job.refuse(
                code::LIMIT,
                &pointer,
                format!("{name} is larger than {MAX_FILE_BYTES} bytes"),
            );
            continue;
        }
        let kind = if quadlet {
            FileKind::Quadlet
        } else {
            FileKind::Data
        };
        if let Some(path) = job.put(
            QUADLET_FOLDER,
            name,
            content.clone().into_bytes(),
            kind,
            0o644,
            &pointer,
        ) {
            paths.insert(name.as_str(), path);
        }
    }
    for (name, content) in files {
        let Some((stem, kind)) = name.rsplit_once('.') else {
            continue;
        };
        let Some((_, suffix, section)) = KINDS.iter().find(|(of, ..)| *of == kind) else {
            continue;
        };
        let pointer = format!("/spec/quadlet/{}", step(name));
        let values = |key: &str| values(content, section, key);
        for image in values("Image") {
            // `NAME.image` and `NAME.build` are other Quadlet files.
            if !["image", "build"].contains(&extension(&image)) {
                job.need_image(&image, Pull::Missing, &pointer);
            }
        }
        let service = values("ServiceName")
            .pop()
            .unwrap_or_else(|| format!("{stem}{suffix}"));
        let wanted = match kind {
            "volume" | "network" | "image" => Wanted::Loaded,
            _ => Wanted::Active,
        };
        // A pod that restarts takes its containers with it: systemd sees to that (`BindsTo=`).
        let named = |other: &str| {
            other == name || extension(other) != "pod" && words(content).any(|word| word == other)
        };
        let restart_on = paths
            .iter()
            .filter(|(other, _)| named(other))
            .map(|(_, path)| path.clone())
            .collect();
        job.out.units.push(Unit {
            name: format!("{service}.service"),
            workload: job.name.to_owned(),
            wanted,
            restart_on,
        });
    }
}

/// The values of a key in a section, in order. An empty value takes back those before it, as everywhere in systemd.
fn values(content: &str, section: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut here = false;
    let mut lines = content.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            here = name == section;
            continue;
        }
        let mut line = line.to_owned();
        while let Some(first) = line.strip_suffix('\\') {
            line = format!("{first} {}", lines.next().unwrap_or_default());
        }
        if let Some((name, value)) = line.split_once('=')
            && here
            && name.trim() == key
        {
            let value = value.trim();
            if value.is_empty() {
                found.clear();
            } else {
                found.push(value.to_owned());
            }
        }
    }
    found
}

/// What stands after the last dot: it says what Quadlet makes of a file.
fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// What could be the name of another file: `data.volume:/data` names `data.volume`.
fn words(content: &str) -> impl Iterator<Item = &str> {
    content.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
}
