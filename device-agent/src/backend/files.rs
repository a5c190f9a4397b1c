//! Writes files atomically. A path is walked folder by folder and no symbolic link is followed, so nothing that a workload
//! puts on the machine can redirect a write out of the folders that a release may use.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use flotta_bundle::manifest::{File, MAX_FILE_BYTES};
use flotta_bundle::path::DEFAULT_PREFIXES;
use flotta_bundle::policy::Policy;
use flotta_bundle::{DevicePath, Digest};
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use tokio::time::{Instant, sleep_until};

use super::watch::{BLIND, PACE, Pace, Watch};
use super::{BackendError, Files, Found, Visit};

mod mark;

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The file system below a root.
#[derive(Debug)]
pub struct Disk {
    root: Root,
    /// Where a release may have files: below these, an empty folder is removed with its last file.
    prefixes: Vec<String>,
    watch: Option<Watch>,
    watched: BTreeSet<DevicePath>,
    pace: Pace,
    /// When to check the files without a watch. Kept here, because the caller may stop waiting and come back.
    look_at: Option<Instant>,
}

/// The root directory of a file system.
#[derive(Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    /// Opens the folder of a path; creates missing folders if asked to.
    fn folder(&self, path: &DevicePath, make: bool) -> rustix::io::Result<OwnedFd> {
        let folder = path
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        self.walk(folder, make)
    }

    /// Opens a folder; creates it and its parents if asked to.
    pub(super) fn walk(&self, path: &str, make: bool) -> rustix::io::Result<OwnedFd> {
        let mut folder = rustix::fs::open(&self.0, FOLDER, Mode::empty())?;
        for name in path.split('/').skip(1) {
            if make {
                match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => rustix::fs::fsync(&folder)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            folder = rustix::fs::openat(&folder, name, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// The ids of owner and group, from the machine's own `/etc/passwd` and `/etc/group`.
    fn account(&self, file: &File) -> Result<(Uid, Gid), BackendError> {
        let number = |list: &str, name: &str| {
            let text = fs::read_to_string(self.0.join(list)).unwrap_or_default();
            let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let found = lines.find(|fields| fields.first() == Some(&name));
            let number = found.and_then(|fields| fields.get(2)?.parse().ok());
            number
                .or((name == "root").then_some(0))
                .ok_or_else(|| BackendError::File {
                    path: file.path.clone(),
                    why: format!("there is no user or group named {name}"),
                })
        };
        let uid = number("etc/passwd", &file.owner)?;
        let gid = number("etc/group", &file.group)?;
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

impl Disk {
    /// The file system whose `/` is `root`.
    pub fn new(root: PathBuf) -> Self {
        Self::paced(root, PACE)
    }

    /// The same, with another pace for reporting changes.
    pub(super) fn paced(root: PathBuf, pace: Pace) -> Self {
        Self {
            root: Root(root),
            prefixes: DEFAULT_PREFIXES.map(str::to_owned).into(),
            watch: None,
            watched: BTreeSet::new(),
            pace,
            look_at: None,
        }
    }

    /// The same for a device with this policy.
    #[must_use]
    pub fn with(self, policy: &Policy) -> Self {
        Self {
            prefixes: policy.prefixes().map(str::to_owned).collect(),
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn watch_of_mut(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut()
    }

    #[cfg(test)]
    pub(super) fn watch_of(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }
}

fn failed(path: &DevicePath) -> impl Fn(Errno) -> BackendError {
    move |error| {
        let path = path.clone();
        match error {
            Errno::LOOP | Errno::NOTDIR => BackendError::File {
                path,
                why: "there is a link or a file where a folder should be".to_owned(),
            },
            Errno::ROFS => BackendError::ReadOnly {
                path,
                why: std::io::Error::from(error).to_string(),
            },
            error => BackendError::File {
                path,
                why: std::io::Error::from(error).to_string(),
            },
        }
    }
}

/// The same for an error of the standard library.
fn failed_io(path: &DevicePath) -> impl Fn(std::io::Error) -> BackendError {
    move |error| match Errno::from_io_error(&error) {
        Some(error) => failed(path)(error),
        None => BackendError::File {
            path: path.clone(),
            why: error.to_string(),
        },
    }
}

/// The temporary name of a file while it is written. One for each file, so that the next try overwrites what a power cut
/// left.
fn temporary(path: &DevicePath) -> String {
    format!(".{}.flotta-new", path.file_name())
}

impl Files for Disk {
    fn look(&mut self, file: &File) -> Result<Found, BackendError> {
        let failed = failed(&file.path);
        let folder = match self.root.folder(&file.path, false) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(error) => return Err(failed(error)),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = match rustix::fs::openat(&folder, file.path.file_name(), flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::LOOP) => return Ok(Found::Other),
            Err(error) => return Err(failed(error)),
        };
        let stat = rustix::fs::fstat(&open).map_err(&failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Found::Other);
        }
        let mut content = Vec::new();
        let read = fs::File::from(open)
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut content);
        read.map_err(failed_io(&file.path))?;
        let (uid, gid) = self.root.account(file)?;
        let fits = stat.st_mode & 0o7777 == file.mode.bits()
            && stat.st_uid == uid.as_raw()
            && stat.st_gid == gid.as_raw();
        Ok(Found::File {
            digest: Digest::of(&content),
            fits,
        })
    }

    fn write(&mut self, file: &File, content: &[u8]) -> Result<(), BackendError> {
        let failed = failed(&file.path);
        let (uid, gid) = self.root.account(file)?;
        let folder = self.root.folder(&file.path, true).map_err(&failed)?;
        let name = temporary(&file.path);
        match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&folder, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(&failed)?;
        let mut open = fs::File::from(open);
        let written = open.write_all(content);
        let finished = written.map_err(failed_io(&file.path)).and_then(|()| {
            rustix::fs::fchown(&open, Some(uid), Some(gid)).map_err(&failed)?;
            rustix::fs::fchmod(&open, Mode::from_raw_mode(file.mode.bits())).map_err(&failed)?;
            mark::set(&open, file);
            rustix::fs::fsync(&open).map_err(&failed)?;
            rustix::fs::renameat(&folder, &name, &folder, file.path.file_name())
                .map_err(&failed)?;
            rustix::fs::fsync(&folder).map_err(&failed)
        });
        if finished.is_err() {
            let _ = rustix::fs::unlinkat(&folder, &name, AtFlags::empty());
        }
        finished
    }

    fn written(&mut self, path: &DevicePath) -> Option<Timestamp> {
        let folder = self.root.folder(path, false).ok()?;
        mark::read(&folder, path, true).map(|mark| mark.at)
    }

    fn each_written(&mut self, tell: &mut Visit<'_>) {
        mark::walk(&self.root.0, &self.prefixes, tell);
    }

    fn remove(&mut self, path: &DevicePath) -> Result<(), BackendError> {
        let failed = failed(path);
        match self.root.folder(path, false) {
            Ok(folder) => {
                for name in [temporary(path).as_str(), path.file_name()] {
                    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                rustix::fs::fsync(&folder).map_err(&failed)?;
            }
            // The file is gone already, but the folders above it may not be.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        let mut empty = path.as_str();
        while let Some((folder, _)) = empty.rsplit_once('/') {
            let Some((parent, name)) = folder.rsplit_once('/').filter(|(parent, _)| {
                let parent = format!("{parent}/");
                let mut prefixes = self.prefixes.iter();
                prefixes.any(|prefix| parent.starts_with(prefix))
            }) else {
                break;
            };
            let removed = self
                .root
                .walk(parent, false)
                .and_then(|parent| rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR));
            match removed {
                Ok(()) | Err(Errno::NOENT) => empty = folder,
                // The folder is not empty, so it stays.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn is_writable(&self, path: &DevicePath) -> bool {
        let mut path = path.as_str();
        while let Some((folder, _)) = path.rsplit_once('/') {
            match self.root.walk(folder, false) {
                // root can write everywhere but on a read-only mount
                Ok(open) => {
                    return rustix::fs::fstatvfs(&open)
                        .is_ok_and(|disk| !disk.f_flag.contains(StatVfsMountFlags::RDONLY));
                }
                Err(_) => path = folder,
            }
        }
        false
    }

    fn watch(&mut self, paths: BTreeSet<DevicePath>) {
        if let Some(watch) = &mut self.watch {
            watch.over(&self.root, &paths);
        }
        self.watched = paths;
    }

    async fn changed(&mut self) {
        if self.watch.is_none() {
            match Watch::new(self.pace) {
                Ok(mut watch) => {
                    watch.over(&self.root, &self.watched);
                    // nobody has reported the changes until now
                    self.watch = Some(watch);
                    self.look_at = None;
                    return;
                }
                Err(error) => {
                    let look_at = *self.look_at.get_or_insert_with(|| {
                        tracing::warn!(%error, "file events are not available; files are checked once a minute");
                        Instant::now() + BLIND
                    });
                    sleep_until(look_at).await;
                    self.look_at = None;
                    return;
                }
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.changed(&self.root).await;
        }
    }
}

#[cfg(test)]
mod tests;
