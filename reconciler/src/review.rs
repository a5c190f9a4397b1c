//! Rendered output for review: what each device would have, as files to read and compare.
//!
//! ```text
//! OUT/bundles/DIGEST/manifest.json
//! OUT/bundles/DIGEST/files/etc/containers/systemd/web.container
//! OUT/devices/NAMESPACE/NAME -> ../../bundles/DIGEST
//! ```
//!
//! Devices with the same manifest share one bundle, which is written once: 100,000 devices in ten roles are ten folders and
//! 100,000 links. With links the files of a device can be opened by its name, and `diff --recursive --no-dereference` of two
//! such folders shows each change once, and the devices whose bundle has changed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use flotta_bundle::{Digest, Manifest};
use flotta_renderer::Rendered;

/// The file that marks a folder as made by this module, so that it may be removed.
const MARK: &str = ".made-by-flotta-render";

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The folder was made by something else.
    #[error("{} exists and was not made by `flotta render`: give another --out, or remove it", .0.display())]
    NotOurs(PathBuf),
    /// A file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Writes the rendered output to `out`, and replaces that of an earlier call.
pub fn write(out: &Path, rendered: &Rendered) -> Result<(), ReviewError> {
    let folders = ["devices", "bundles"].map(|name| out.join(name));
    folders.iter().try_for_each(|folder| check(folder))?;
    for folder in &folders {
        clear(folder)?;
        save(&folder.join(MARK), b"")?;
    }
    let [devices, bundles] = folders;
    let manifests: BTreeSet<_> = rendered
        .devices
        .values()
        .map(|device| device.manifest)
        .collect();
    for digest in manifests {
        bundle(&bundles.join(digest.hex()), &digest, rendered)?;
    }
    for (name, device) in &rendered.devices {
        let namespace = devices.join(name.namespace());
        let link = namespace.join(name.name());
        let target = format!("../../bundles/{}", device.manifest.hex());
        std::fs::create_dir_all(&namespace)
            .and_then(|()| std::os::unix::fs::symlink(target, &link))
            .map_err(|error| ReviewError::Write(link.clone(), error))?;
    }
    Ok(())
}

fn bundle(folder: &Path, digest: &Digest, rendered: &Rendered) -> Result<(), ReviewError> {
    let bytes = &rendered.blobs[digest];
    let manifest = Manifest::parse(bytes).expect("the renderer writes valid manifests");
    let mut text = serde_json::to_vec_pretty(&manifest).expect("maps here have string keys");
    text.push(b'\n');
    save(&folder.join("manifest.json"), &text)?;
    for file in &manifest.files {
        if let Some(content) = rendered.blobs.get(&file.digest) {
            // a device path is absolute and normalised, so it cannot lead out of the folder
            let path = file.path.as_str().trim_start_matches('/');
            save(&folder.join("files").join(path), content)?;
        }
    }
    Ok(())
}

fn check(folder: &Path) -> Result<(), ReviewError> {
    if folder.exists() && !folder.join(MARK).exists() {
        return Err(ReviewError::NotOurs(folder.to_owned()));
    }
    Ok(())
}

fn clear(folder: &Path) -> Result<(), ReviewError> {
    if !folder.exists() {
        return Ok(());
    }
    std::fs::remove_dir_all(folder).map_err(|error| ReviewError::Write(folder.to_owned(), error))
}

fn save(path: &Path, content: &[u8]) -> Result<(), ReviewError> {
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, content)
    };
    write().map_err(|error| ReviewError::Write(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use flotta_renderer::{Batch, Input, Options, render};

    use super::*;

    const FLEET: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata: {name: web}
spec:
  type: quadlet
  deviceSelector: {matchLabels: {role: till}}
  quadlet:
    web.container: |
      [Container]
      Image=registry.example/web:1
";

    fn count(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let below = |entry: std::fs::DirEntry| {
            let is_folder = entry.file_type().unwrap().is_dir();
            if is_folder { count(&entry.path()) } else { 1 }
        };
        entries.map(below).sum()
    }

    #[test]
    fn each_bundle_is_written_once_however_many_devices_have_it() {
        let mut text = FLEET.to_owned();
        for number in 0..300 {
            let role = if number < 200 { "till" } else { "kiosk" };
            let _ = write!(
                text,
                "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata: {{name: d{number}, labels: {{role: {role}}}}}\n"
            );
        }
        let input = Input::from_iter([Batch::of_file("a.yaml", text.as_bytes())]);
        let rendered = render(&input, &[], &Options::default());
        assert_eq!(rendered.devices.len(), 300, "{:?}", rendered.findings);
        let out = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            write(out.path(), &rendered).unwrap();
            // for each of two bundles a manifest and a file
            assert_eq!(count(&out.path().join("bundles")), 4);
            assert_eq!(count(&out.path().join("devices")), 301);
        }
        let unit = "files/etc/containers/systemd/web.container";
        let device = |name: &str| out.path().join("devices/default").join(name);
        assert!(device("d7").join(unit).is_file());
        assert!(device("d250").join("manifest.json").is_file());
        assert!(!device("d250").join(unit).exists());
    }
}
