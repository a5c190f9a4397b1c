//! A copy of the fleet's keys, to be kept offline: who has lost them cannot sign another release that devices accept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No keys there.
    #[error("{} has no keys: is it the directory given to `flotta serve --data`?", .0.display())]
    NoKeys(PathBuf),
    /// Something is there already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be copied.
    #[error("{} cannot be copied", .0.display())]
    Copy(PathBuf, #[source] io::Error),
}

/// Copies the keys in `data` to the new folder `out`, for its owner alone. They are restored as `DATA/keys`.
pub fn export(data: &Path, out: &Path) -> Result<(), BackupError> {
    let keys = data.join("keys");
    if !keys.is_dir() {
        return Err(BackupError::NoKeys(data.to_owned()));
    }
    if out.exists() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    copy(&keys, out)
}

fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let fail = |error| BackupError::Copy(from.to_owned(), error);
    fs::DirBuilder::new().mode(0o700).create(to).map_err(fail)?;
    for entry in fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(fail)?.is_dir() {
            copy(&source, &target)?;
        } else {
            copy_file(&source, &target).map_err(|error| BackupError::Copy(source, error))?;
        }
    }
    fs::File::open(to)
        .and_then(|directory| directory.sync_all())
        .map_err(fail)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let content = fs::read(from)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    file.write_all(&content)?;
    file.sync_all()
}
