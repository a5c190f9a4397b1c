//! Leftovers of a killed backup: copies of the fleet's keys.

use std::fs::File;
use std::path::Path;

/// Prefixes of a backup's temporary files: in the data directory, and in the target folder.
pub(super) const SCRATCH: &str = ".backup-";
pub(super) const PART: &str = ".flotta-backup-";
/// Number of random characters that tempfile adds.
const RANDOM: usize = 6;

/// Marks a folder in which a backup is being made, until this is dropped or the process ends. It is a lock on the folder
/// itself, so that reading the folder is permission enough and no lock file remains.
#[derive(Debug)]
pub(super) struct Busy(#[expect(dead_code, reason = "held, not read")] Option<File>);

impl Busy {
    /// Removes leftovers of earlier backups from a data directory, and marks it. On a file system without locks nothing is
    /// removed, because it may belong to a running backup.
    pub(super) fn data(folder: &Path) -> Self {
        // this is the server's own folder, and others hold the lock only briefly
        Self::mark(folder, &[SCRATCH, PART], |marked| {
            marked.lock_shared().is_ok()
        })
    }

    /// The same for the target folder of a backup. Others may use it too, so folders in it stay, and another program's lock is
    /// not waited for.
    pub(super) fn target(folder: &Path) -> Self {
        Self::mark(folder, &[PART], |marked| marked.try_lock_shared().is_ok())
    }

    fn mark(folder: &Path, prefixes: &[&str], lock: impl FnOnce(&File) -> bool) -> Self {
        let marked = File::open(folder).ok().filter(|marked| {
            if marked.try_lock().is_ok() {
                remove(folder, prefixes);
            }
            lock(marked)
        });
        Self(marked)
    }
}

/// Removes leftovers of killed backups from a data directory, unless a backup is being made there.
pub(crate) fn clear(data: &Path) {
    // unlocked on drop
    if let Ok(locked) = File::open(data)
        && locked.try_lock().is_ok()
    {
        remove(data, &[SCRATCH, PART]);
    }
}

fn remove(folder: &Path, prefixes: &[&str]) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let prefix = if is_folder { SCRATCH } else { PART };
        let random = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let is_ours = |random: &str| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if !prefixes.contains(&prefix) || !random.is_some_and(is_ours) {
            continue;
        }
        let path = entry.path();
        let removed = if is_folder {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed a killed backup's files");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the leftovers of a killed backup cannot be removed");
            }
        }
    }
}
