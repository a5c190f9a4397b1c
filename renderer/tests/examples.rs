//! Compares every rendered example with its snapshot: what reaches a device is reviewed here, byte for byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use flotta_bundle::manifest::Manifest;
use flotta_bundle::{DevicePath, Digest, Owner};
use flotta_renderer::{Batch, Input, Options, Rendered, render};

#[test]
fn examples_render_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let mut batches = BTreeMap::new();
        read(&path, "", &mut batches);
        let rendered = render(
            &batches.into_values().collect::<Input>(),
            &[],
            &Options {
                require_digests: true,
            },
        );
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        insta::assert_snapshot!(name, show(&rendered));
    }
}

/// Reads the YAML files of a folder, and of the folders below it.
fn read(folder: &Path, prefix: &str, batches: &mut BTreeMap<String, Batch>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), batches);
        } else if entry.path().extension().is_some_and(|kind| kind == "yaml") {
            let content = std::fs::read(entry.path()).expect("a file");
            batches.insert(path.clone(), Batch::of_file(&path, &content));
        }
    }
}

fn show(rendered: &Rendered) -> String {
    let mut text = String::new();
    for finding in &rendered.findings {
        let _ = writeln!(
            text,
            "{:?} {} {} {}",
            finding.severity, finding.code.id, finding.place, finding.message
        );
    }
    let counts = rendered.counts;
    let _ = writeln!(
        text,
        "{} files, {} devices, {} workloads, {} manifests",
        counts.files, counts.devices, counts.workloads, counts.manifests
    );
    let mut groups: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (name, device) in &rendered.devices {
        let line = format!(
            "{name} sets {:?} workloads {:?}",
            device.sets, device.workloads
        );
        groups.entry(device.manifest).or_default().push(line);
    }
    let mut shown = std::collections::BTreeSet::new();
    for (digest, devices) in groups {
        let _ = writeln!(text, "\n== manifest {digest}");
        for device in devices {
            let _ = writeln!(text, "{device}");
        }
        let manifest =
            Manifest::parse(&rendered.blobs[&digest]).expect("a manifest within the rules");
        let _ = writeln!(text, "heartbeat {} s", manifest.settings.heartbeat_seconds);
        for unit in &manifest.units {
            let on: Vec<_> = unit.restart_on.iter().map(DevicePath::as_str).collect();
            let _ = writeln!(
                text,
                "unit {} of {} {:?} restarts on {on:?}",
                unit.name, unit.workload, unit.wanted
            );
        }
        for image in &manifest.images {
            let of: Vec<_> = image.workloads.iter().map(Owner::as_str).collect();
            let _ = writeln!(
                text,
                "image {} {:?} for {:?}",
                image.reference, image.pull, of
            );
        }
        for file in &manifest.files {
            let _ = writeln!(
                text,
                "file {} {} {:?}",
                file.path,
                String::from(file.mode),
                file.digest
            );
            if shown.insert(file.digest) {
                for line in String::from_utf8_lossy(&rendered.blobs[&file.digest]).lines() {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
    }
    text
}
