//! What a backup that was killed has left behind: copies of the fleet's keys.

use std::fs::File;
use std::path::Path;

/// Names of a backup's files while it is being made: in the data directory, and where it is made to.
pub(super) const SCRATCH: &str = ".backup-";
pub(super) const PART: &str = ".flotta-backup-";
/// What follows: letters and digits of tempfile.
const RANDOM: usize = 6;

/// A folder in which a backup is being made, for as long as this lives; the kernel ends it with the process. It is the folder's
/// own lock, so that whoever may read the folder can take it, and nothing more lies there.
#[derive(Debug)]
pub(super) struct Busy(#[expect(dead_code, reason = "held, not read")] Option<File>);

impl Busy {
    /// Removes what earlier backups have left in a data directory, and marks it. Where a file system has no locks nothing is
    /// removed: it may be another's.
    pub(super) fn data(folder: &Path) -> Self {
        // the server's own folder: those who look whether they may remove something take no time
        Self::mark(folder, &[SCRATCH, PART], |marked| {
            marked.lock_shared().is_ok()
        })
    }

    /// The same for the folder that a backup is made to. Others may use it: of folders in it none is ours, and somebody's lock
    /// is not waited for.
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

/// Removes what killed backups have left in a data directory, unless one is being made there.
pub(crate) fn clear(data: &Path) {
    // unlocked when it is dropped
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
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed backup left"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what a killed backup left is not removed");
            }
        }
    }
}
