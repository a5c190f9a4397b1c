//! Reports when somebody may have changed files of the fleet: an edit, a removal, another folder or mount in their place.
//!
//! inotify reports names in folders, and every folder on the way to a file is watched, so that one that is removed and
//! created again is watched again. A mount over a folder raises no such event; the kernel signals those on
//! `/proc/self/mountinfo`. Nothing polls: an idle machine costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use flotta_bundle::DevicePath;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::files::Root;

/// How soon changes are reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Changes come in bursts (an editor's save is four), which are reported together.
    pub(super) burst: Duration,
    /// Shortest and longest time between two reports: a file that keeps changing costs a check now and then, and its changes
    /// are still seen within a minute.
    pub(super) gap: (Duration, Duration),
}

/// The agent's pace.
pub(super) const PACE: Pace = Pace {
    burst: Duration::from_millis(300),
    gap: (Duration::from_secs(1), Duration::from_secs(30)),
};
/// How often files are checked where the kernel has no more watches to give.
pub(super) const BLIND: Duration = Duration::from_secs(60);
/// The events that matter in a folder.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// The events about the folder itself.
const OF_FOLDER: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::IGNORED);

/// The identity of the folder at a path: device and inode.
type FileId = (u64, u64);

/// A watch over some files.
#[derive(Debug)]
pub(super) struct Watch {
    events: AsyncFd<OwnedFd>,
    mounts: Option<AsyncFd<File>>,
    /// Folders on the way to the files, parents first, and the names in them that matter.
    folders: BTreeMap<String, BTreeSet<String>>,
    /// The watched folders, by their inotify watch descriptor.
    watched: BTreeMap<i32, String>,
    seen: BTreeMap<String, FileId>,
    /// Whether the kernel refused to watch some folders.
    partial: bool,
    /// When to check the files without an event, because the kernel refused to watch some folders.
    look_at: Option<Instant>,
    /// When to report a change that was not reported yet. Kept here, because the caller may stop waiting and come back.
    due: Option<Instant>,
    last: Option<Instant>,
    gap: Duration,
    pace: Pace,
}

impl Watch {
    /// Creates a watch over no files.
    pub(super) fn new(pace: Pace) -> std::io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mounts = File::open("/proc/self/mountinfo")
            .and_then(|file| registered(file, Interest::PRIORITY));
        Ok(Self {
            events: registered(events, Interest::READABLE)?,
            mounts: mounts.ok(),
            folders: BTreeMap::new(),
            watched: BTreeMap::new(),
            seen: BTreeMap::new(),
            partial: false,
            look_at: None,
            due: None,
            last: None,
            gap: pace.gap.0,
            pace,
        })
    }

    /// Watches these files and no others.
    pub(super) fn over(&mut self, root: &Root, paths: &BTreeSet<DevicePath>) {
        let folders = folders(paths);
        if folders != self.folders {
            self.folders = folders;
            self.arm(root);
        }
    }

    /// Watches the folders that exist now. A folder is watched before its entries are opened, so that what is created in between
    /// is reported.
    fn arm(&mut self, root: &Root) {
        let before = std::mem::take(&mut self.watched);
        self.seen.clear();
        self.partial = false;
        for folder in self.folders.keys() {
            let Ok(open) = root.walk(folder, false) else {
                continue;
            };
            if let Ok(stat) = rustix::fs::fstat(&open) {
                self.seen.insert(folder.clone(), (stat.st_dev, stat.st_ino));
            }
            let path = format!("/proc/self/fd/{}", open.as_raw_fd());
            match inotify::add_watch(self.events.get_ref(), path, EVENTS) {
                Ok(number) => {
                    self.watched.insert(number, folder.clone());
                }
                Err(error) => {
                    if !self.partial {
                        tracing::warn!(%error, folder, "the folder cannot be watched; files are checked once a minute");
                    }
                    self.partial = true;
                }
            }
        }
        for number in before.keys() {
            if !self.watched.contains_key(number) {
                // the watch may be gone already
                let _ = inotify::remove_watch(self.events.get_ref(), *number);
            }
        }
        self.look_at = self.partial.then(|| Instant::now() + BLIND);
    }

    /// Waits until one of the files may have changed.
    pub(super) async fn changed(&mut self, root: &Root) {
        let due = loop {
            if let Some(due) = self.due {
                break due;
            }
            let look_at = self.look_at;
            let matters = tokio::select! {
                ready = self.events.readable() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                    self.drain()
                }
                () = remounted(self.mounts.as_ref()) => self.has_moved(root),
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => true,
            };
            if matters {
                let soon = Instant::now() + self.pace.burst;
                self.due = Some(self.last.map_or(soon, |last| soon.max(last + self.gap)));
            }
        };
        sleep_until(due).await;
        self.drain();
        self.arm(root);
        self.gap = if self.last.is_some_and(|last| last.elapsed() < self.gap * 3) {
            (self.gap * 2).min(self.pace.gap.1)
        } else {
            self.pace.gap.0
        };
        self.last = Some(Instant::now());
        self.due = None;
    }

    /// Reads all pending events; whether any of them matters.
    fn drain(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.events.get_ref(), &mut space);
        let mut matters = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let names = self
                        .watched
                        .get(&event.wd())
                        .and_then(|folder| self.folders.get(folder));
                    let of = || event.file_name().and_then(|name| name.to_str().ok());
                    matters |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                        || names.is_some_and(|names| {
                            event.events().intersects(OF_FOLDER)
                                || of().is_some_and(|name| names.contains(name))
                        });
                }
                Err(Errno::INTR) => {}
                Err(_) => return matters,
            }
        }
    }

    /// Whether a folder was replaced by another one.
    fn has_moved(&self, root: &Root) -> bool {
        let now = |folder: &str| {
            let open = root.walk(folder, false).ok()?;
            let stat = rustix::fs::fstat(&open).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let mut folders = self.folders.keys();
        folders.any(|folder| self.seen.get(folder).copied() != now(folder))
    }
}

/// Registers a descriptor with the runtime.
fn registered<T: AsRawFd + Owned>(fd: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "sound for what owns its descriptor; what replaces it is unsafe code, which this workspace forbids"
    )]
    AsyncFd::with_interest(fd, interest)
}

/// Types that own their descriptor, and so keep it open and the same.
trait Owned {}
impl Owned for OwnedFd {}
impl Owned for File {}

/// Waits until something was mounted or unmounted.
async fn remounted(mounts: Option<&AsyncFd<File>>) {
    let Some(mounts) = mounts else {
        return std::future::pending().await;
    };
    match mounts.ready(Interest::PRIORITY).await {
        Ok(mut ready) => ready.clear_ready(),
        Err(_) => std::future::pending().await,
    }
}

/// The folders on the way to some files, and which names in each matter.
fn folders(paths: &BTreeSet<DevicePath>) -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in paths {
        let mut rest = path.as_str();
        while let Some((folder, name)) = rest.rsplit_once('/').filter(|(_, name)| !name.is_empty())
        {
            let is_new = folders
                .entry(folder.to_owned())
                .or_default()
                .insert(name.to_owned());
            if !is_new {
                break;
            }
            rest = folder;
        }
    }
    folders
}

#[cfg(test)]
mod tests;
