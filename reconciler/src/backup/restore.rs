//! Restores a data directory from a backup, or from only the fleet's keys.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use flotta_bundle::{DeviceName, FleetName};
use jiff::Timestamp;

use super::{BackupError, Contents, Identity, UNFINISHED, archive, keys};
use crate::keys::Fleet;
use crate::store::offline;

/// The parts of a data directory, in the order in which they are restored.
const PARTS: [&str; 4] = ["depot", "status.db", "fleet.db", "keys"];

/// What to restore from.
#[derive(Debug, Clone)]
pub enum RestoreSource {
    /// A backup with these contents.
    Backup(Contents),
    /// A folder made by `flotta keys export`, of this fleet.
    Keys(FleetName),
}

impl RestoreSource {
    /// Reads and checks what is at `path`. Writes nothing.
    pub fn look(path: &Path, identity: Option<&Identity>) -> Result<Self, BackupError> {
        if !path.is_dir() {
            return archive::check(path, identity).map(Self::Backup);
        }
        if !path.join("fleet").is_file() {
            let what = "a folder that `flotta keys export` made has a file `fleet` in it";
            return Err(BackupError::Damaged(path.to_owned(), what.to_owned()));
        }
        let fleet = Fleet::open(path.to_owned())?;
        Ok(Self::Keys(fleet.name().clone()))
    }
}

/// The result of a restore.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Devices in the backup that were revoked since, and now are.
    pub revoked: BTreeSet<DeviceName>,
    /// Revoked devices that the backup does not have: certificates for these names are refused.
    pub barred: BTreeSet<DeviceName>,
    /// Number of tokens that were open when the backup was made. They are closed, because any may have been used since.
    pub tokens: usize,
}

/// Creates the data directory `data` from what is at `path`. Everything is checked before anything is written there; an
/// interrupted restore can be started again, and no server starts on it. `revoked` are the devices that were revoked, or
/// replaced by another machine, after the backup was made.
pub fn restore(
    path: &Path,
    identity: Option<&Identity>,
    data: &Path,
    revoked: &BTreeSet<DeviceName>,
    now: Timestamp,
) -> Result<Restored, BackupError> {
    check_empty(data)?;
    let given = RestoreSource::look(path, identity)?;
    let new = data.join(UNFINISHED);
    if new.exists() {
        clear(data, &new)?;
    }
    folder(data).map_err(BackupError::write(data))?;
    folder(&new).map_err(BackupError::write(&new))?;
    match &given {
        RestoreSource::Backup(contents) => unpack(path, identity, contents, &new)?,
        RestoreSource::Keys(_) => keys::copy(path, &new.join("keys"))?,
    }
    // check that a server can open them
    Fleet::open(new.join("keys"))?;
    let changed = offline::restored(&new, revoked, now)?;
    hand_over(data, &new).map_err(BackupError::write(&new))?;
    for name in PARTS {
        let (from, to) = (new.join(name), data.join(name));
        if from.exists() {
            fs::rename(&from, &to).map_err(BackupError::write(&to))?;
        }
    }
    keys::sync(data)?;
    fs::remove_dir_all(&new).map_err(BackupError::write(&new))?;
    keys::sync(data)?;
    Ok(Restored {
        barred: revoked.difference(&changed.revoked).cloned().collect(),
        revoked: changed.revoked,
        tokens: changed.tokens,
    })
}

/// Refuses a directory that holds anything but an unfinished restore.
pub fn check_empty(data: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::Read(data.to_owned(), error)),
    };
    let unfinished = data.join(UNFINISHED).is_dir();
    for entry in entries {
        let name = entry.map_err(BackupError::read(data))?.file_name();
        let name = name.to_string_lossy().into_owned();
        let moved = PARTS.contains(&name.as_str());
        // `lost+found` is the file system's own
        let known = name == UNFINISHED || name == "lost+found" || (unfinished && moved);
        if !known {
            return Err(BackupError::NotEmpty(data.to_owned(), name));
        }
    }
    Ok(())
}

/// Removes an unfinished restore. No server can have started on it.
fn clear(data: &Path, new: &Path) -> Result<(), BackupError> {
    for path in PARTS.map(|name| data.join(name)) {
        let removed = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(BackupError::write(&path))?;
    }
    fs::remove_dir_all(new).map_err(BackupError::write(new))
}

/// Creates a folder for its owner only, if it does not exist.
fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn unpack(
    path: &Path,
    identity: Option<&Identity>,
    contents: &Contents,
    to: &Path,
) -> Result<(), BackupError> {
    let mut folders: BTreeSet<PathBuf> = [to.to_owned()].into();
    let read = archive::read(path, identity, |place, content| {
        let target = to.join(place);
        if let Some(parent) = target.parent()
            && folders.insert(parent.to_owned())
        {
            folder(parent)?;
        }
        write(&target, content)
    })?;
    if read != *contents {
        let what = "it has changed while it was read";
        return Err(BackupError::Damaged(path.to_owned(), what.to_owned()));
    }
    folders.iter().try_for_each(|folder| keys::sync(folder))
}

fn write(path: &Path, content: &mut dyn Read) -> io::Result<()> {
    let mut file = keys::create(path)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    file.sync_all()
}

/// Gives files that root restored to the owner of the directory, the user that the server runs as.
fn hand_over(data: &Path, new: &Path) -> io::Result<()> {
    let owner = fs::metadata(data)?;
    let owner = (owner.uid(), owner.gid());
    let made = fs::metadata(new)?;
    if (made.uid(), made.gid()) == owner {
        return Ok(());
    }
    give(new, owner)
}

fn give(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    chown(path, Some(owner.0), Some(owner.1))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}
