//! The mark of a file that an agent wrote: a digest of its path and content, in an attribute of the file.
//!
//! The ledger says which files belong to the fleet. When the ledger is lost, the mark distinguishes a file of the fleet from
//! one that a person made: it appears with the file, in one rename, and is valid only for the same content at the same path.
//! So nothing that a person wrote, copied or changed is ever taken for the fleet's. The mark is an attribute and not part of
//! the content, so that the file is byte for byte what the release says. On a file system without attributes there are no
//! marks, and a file is recognised as the fleet's only if it is exactly as the manifest says.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use flotta_bundle::manifest::{File, MAX_FILE_BYTES, MAX_FILES};
use flotta_bundle::{DevicePath, Digest, Owner, policy};
use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, XattrFlags};

use crate::backend::Visit;

/// The attribute with the mark.
const NAME: &str = "user.flotta.written";
/// The attribute with the owner: the object that the file belongs to.
const OWNER: &str = "user.flotta.owner";

/// A file with a valid mark.
pub(super) struct Marked {
    /// When the file was written.
    pub(super) at: Timestamp,
    /// The object it belongs to; older agents did not record it.
    owner: Option<Owner>,
    content: Vec<u8>,
}

/// The mark for a file of this path and content.
fn of(path: &DevicePath, content: &Digest) -> Digest {
    Digest::of(format!("{path}\0{content}").as_bytes())
}

/// Marks a file. A file that cannot be marked is written all the same.
pub(super) fn set(open: impl AsFd, file: &File) {
    let mark = of(&file.path, &file.digest).to_string();
    let owner = file.belongs_to.as_ref().map(Owner::as_str);
    for (name, value) in [(NAME, Some(mark.as_str())), (OWNER, owner)] {
        let value = value.map(str::as_bytes);
        let set = value.map(|value| rustix::fs::fsetxattr(&open, name, value, XattrFlags::empty()));
        if let Some(Err(error)) = set {
            tracing::debug!(%error, "a file could not be marked");
        }
    }
}

fn attribute(open: &OwnedFd, name: &str) -> Option<String> {
    let mut value = [0; 512];
    let length = rustix::fs::fgetxattr(open, name, &mut value).ok()?;
    String::from_utf8(value.get(..length)?.to_vec()).ok()
}

/// Reads a file if its mark is valid. The mark of older agents covers only the content, so a copy with all attributes has
/// it too: it counts only where the manifest names the file (`is_wanted`).
pub(super) fn read(folder: &OwnedFd, path: &DevicePath, is_wanted: bool) -> Option<Marked> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = rustix::fs::openat(folder, path.file_name(), flags, Mode::empty()).ok()?;
    let marked: Digest = attribute(&open, NAME)?.parse().ok()?;
    let owner = attribute(&open, OWNER).and_then(|owner| owner.parse().ok());
    let stat = rustix::fs::fstat(&open).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let at = Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).ok()?).ok()?;
    let mut content = Vec::new();
    let read = fs::File::from(open)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content);
    let digest = Digest::of(&content);
    let holds = marked == of(path, &digest) || is_wanted && marked == digest;
    (read.is_ok() && holds).then_some(Marked { at, owner, content })
}

/// Calls `tell` for every file with a valid mark, in the folders below `root` where a release may have files.
pub(super) fn walk(root: &Path, prefixes: &[String], tell: &mut Visit<'_>) {
    let top = prefixes
        .iter()
        .map(|prefix| prefix.trim_end_matches('/').to_owned());
    let mut folders: Vec<String> = top.collect();
    let mut left = MAX_FILES;
    while let Some(folder) = folders.pop() {
        let here = root.join(folder.trim_start_matches('/'));
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (Ok(open), Ok(entries)) = (
            rustix::fs::open(&here, flags, Mode::empty()),
            fs::read_dir(&here),
        ) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if policy::never(&format!("{path}/")).is_none() {
                    folders.push(path);
                }
                continue;
            }
            let Ok(path) = path.parse::<DevicePath>() else {
                continue;
            };
            if let Some(marked) = read(&open, &path, false) {
                tell(path, marked.owner, &marked.content);
                left -= 1;
            }
            if left == 0 {
                return;
            }
        }
    }
}
