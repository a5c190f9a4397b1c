//! A copy of only the fleet's keys, to be kept offline: without them no release can be signed that devices accept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::BackupError;

/// Copies the keys in `data` to the new folder `out`, for its owner only. `flotta restore` accepts it like a backup.
pub fn export(data: &Path, out: &Path) -> Result<(), BackupError> {
    let keys = data.join("keys");
    if !keys.is_dir() {
        return Err(BackupError::NoKeys(data.to_owned()));
    }
    if out.exists() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    crate::keys::check_nested(&keys)?;
    copy_by(&keys, out, |path| Ok(crate::keys::portable(path)?))
}

/// The files below a folder of keys, as sorted relative paths, without half-written files that a server left.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    walk(folder, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), BackupError> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).map_err(BackupError::read(&here))? {
        let entry = entry.map_err(BackupError::read(&here))?;
        let path = below.join(entry.file_name());
        let kind = fs::metadata(folder.join(&path));
        if kind.map_err(BackupError::read(entry.path()))?.is_dir() {
            walk(folder, &path, found)?;
        } else if path.extension().is_none_or(|extension| extension != "new") {
            found.push(path);
        }
    }
    Ok(())
}

/// Copies a folder of keys unchanged to a new folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    copy_by(from, to, |path| {
        fs::read(path).map_err(BackupError::read(path))
    })
}

fn copy_by(
    from: &Path,
    to: &Path,
    read: impl Fn(&Path) -> Result<Vec<u8>, BackupError>,
) -> Result<(), BackupError> {
    let make = |path: &Path| {
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        made.map_err(BackupError::write(path))
    };
    make(to)?;
    for path in list(from)? {
        let (source, target) = (from.join(&path), to.join(&path));
        let folder = target.parent().unwrap_or(to);
        if !folder.exists() {
            make(folder)?;
        }
        let content = read(&source)?;
        write(&target, &content).map_err(BackupError::write(&target))?;
        sync(folder)?;
    }
    sync(to)
}

/// Writes a new file for its owner only.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Creates a new file for its owner only.
pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Syncs a directory: only then are its entries durable.
pub(super) fn sync(folder: &Path) -> Result<(), BackupError> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(BackupError::write(folder))
}
