//! The mark of a file that an agent wrote: a digest of its path and content, in an attribute of the file.
//!
//! The ledger says what is the fleet's. When it is lost, this tells a file of the fleet's from one that a person made: the
//! mark comes with the file and in one rename, and holds only while the content is the very one that was written, at
//! the very place. So nothing that a person wrote, copied or changed is ever taken for the fleet's. It is next to the content, and not in it: what a release
//! says is, byte for byte, what is on the disk. Where a file system has no attributes, there are no marks, and a file of the
//! fleet's is recognised by nothing but its being as it should.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use flotta_bundle::manifest::{MAX_FILE_BYTES, MAX_FILES};
use flotta_bundle::path::ALLOWED_PREFIXES;
use flotta_bundle::{DevicePath, Digest};
use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, XattrFlags};

/// The attribute.
const NAME: &str = "user.flotta.written";

/// The mark of a file of this path and content.
fn of(path: &DevicePath, content: &Digest) -> Digest {
    Digest::of(format!("{path}\0{content}").as_bytes())
}

/// Marks a file of this content. That it cannot be marked is no reason not to have it.
pub(super) fn set(file: impl AsFd, path: &DevicePath, digest: &Digest) {
    let value = of(path, digest).to_string();
    if let Err(error) = rustix::fs::fsetxattr(file, NAME, value.as_bytes(), XattrFlags::empty()) {
        tracing::debug!(%error, "a file is not marked");
    }
}

/// When a file was written, and its content, if its mark holds. Older programs marked a file by its content alone, and a copy
/// with all attributes has that mark, too: it counts where the manifest names the file (`is_wanted`).
pub(super) fn read(
    folder: &OwnedFd,
    path: &DevicePath,
    is_wanted: bool,
) -> Option<(Timestamp, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = rustix::fs::openat(folder, path.file_name(), flags, Mode::empty()).ok()?;
    let mut value = [0; 128];
    let length = rustix::fs::fgetxattr(&open, NAME, &mut value).ok()?;
    let marked: Digest = std::str::from_utf8(value.get(..length)?)
        .ok()?
        .parse()
        .ok()?;
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
    (read.is_ok() && holds).then_some((at, content))
}

/// Tells every file below `root` whose mark holds, where a release may have files.
pub(super) fn walk(root: &Path, tell: &mut dyn FnMut(DevicePath, &[u8])) {
    let top = ALLOWED_PREFIXES
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
                folders.push(path);
                continue;
            }
            let Ok(path) = path.parse::<DevicePath>() else {
                continue;
            };
            if let Some((_, content)) = read(&open, &path, false) {
                tell(path, &content);
                left -= 1;
            }
            if left == 0 {
                return;
            }
        }
    }
}
