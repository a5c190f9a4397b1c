//! Rendered output for people: what each device would have, as plain files, to be read and compared with `diff -r`.
//!
//! ```text
//! OUT/devices/NAMESPACE/NAME/manifest.json
//! OUT/devices/NAMESPACE/NAME/files/etc/containers/systemd/web.container
//! OUT/blobs/sha256/…   the same, as a depot holds it
//! ```

use std::io;
use std::path::{Path, PathBuf};

use flotta_bundle::Manifest;
use flotta_renderer::Rendered;

use crate::depot::{Depot, DepotError};

/// Marks a folder that this module made, and may remove.
const MARK: &str = ".made-by-flotta-render";

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The folder is someone else's.
    #[error("{} is there, and was not made by `flotta render`: give another --out, or remove it", .0.display())]
    NotOurs(PathBuf),
    /// A file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The blobs cannot be written.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

/// Writes what was rendered to `out`. What an earlier call wrote there is replaced.
pub async fn write(out: &Path, rendered: &Rendered) -> Result<(), ReviewError> {
    let devices = out.join("devices");
    clear(&devices)?;
    Depot::local(out)?.put_blobs(&rendered.blobs).await?;
    save(&devices.join(MARK), b"")?;
    for (name, device) in &rendered.devices {
        let folder = devices.join(name.namespace()).join(name.name());
        let Some(bytes) = rendered.blobs.get(&device.manifest) else {
            continue;
        };
        let manifest = Manifest::parse(bytes).expect("the renderer writes valid manifests");
        let mut text = serde_json::to_vec_pretty(&manifest).expect("maps here have string keys");
        text.push(b'\n');
        save(&folder.join("manifest.json"), &text)?;
        for file in &manifest.files {
            if let Some(content) = rendered.blobs.get(&file.digest) {
                // a device path is absolute and normalised: it cannot lead out of the folder
                let path = file.path.as_str().trim_start_matches('/');
                save(&folder.join("files").join(path), content)?;
            }
        }
    }
    Ok(())
}

fn clear(devices: &Path) -> Result<(), ReviewError> {
    if !devices.exists() {
        return Ok(());
    }
    if !devices.join(MARK).exists() {
        return Err(ReviewError::NotOurs(devices.to_owned()));
    }
    std::fs::remove_dir_all(devices).map_err(|error| ReviewError::Write(devices.to_owned(), error))
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
