//! A data directory from a backup, or from the fleet's keys alone.

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

/// What a restored data directory has, in the order in which it gets it.
const PARTS: [&str; 4] = ["depot", "status.db", "fleet.db", "keys"];

/// What is restored from.
#[derive(Debug, Clone)]
pub enum Given {
    /// A backup, and what is in it.
    Backup(Contents),
    /// A folder made by `flotta keys export`, and its fleet.
    Keys(FleetName),
}

impl Given {
    /// Looks at what is at `path`, all of it. Writes nothing.
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

/// A data directory that was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Those that were said to be revoked since, and that the backup has: they are.
    pub revoked: BTreeSet<DeviceName>,
    /// Those that it does not have: whoever has a certificate in such a name is turned away.
    pub barred: BTreeSet<DeviceName>,
    /// Tokens that were open when the backup was made: they are closed, as any of them may have been used since.
    pub tokens: usize,
}

/// Makes the data directory `data` of what is at `path`. All is checked before anything is written there; a restore that did
/// not come to its end can be begun anew, and no server starts on it. `revoked` are the devices that were revoked, or
/// replaced by another machine, after the backup was made.
pub fn restore(
    path: &Path,
    identity: Option<&Identity>,
    data: &Path,
    revoked: &BTreeSet<DeviceName>,
    now: Timestamp,
) -> Result<Restored, BackupError> {
    check_empty(data)?;
    let given = Given::look(path, identity)?;
    let new = data.join(UNFINISHED);
    if new.exists() {
        clear(data, &new)?;
    }
    folder(data).map_err(BackupError::write(data))?;
    folder(&new).map_err(BackupError::write(&new))?;
    match &given {
        Given::Backup(contents) => unpack(path, identity, contents, &new)?,
        Given::Keys(_) => keys::copy(path, &new.join("keys"))?,
    }
    // as a server would open them
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

/// Refuses a directory with anything in it but a restore that did not come to its end.
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

/// Removes what a restore left that did not come to its end. No server has begun with it: none starts while it is there.
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

/// Makes a folder for its owner alone, if it is not there.
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

/// Gives what root has restored to whoever owns the directory: the user that the server runs as.
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
