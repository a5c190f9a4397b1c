//! Content by its SHA-256. What has its name has been checked; what is on its way has another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flotta_bundle::Digest;
use flotta_bundle::manifest::MAX_FILE_BYTES;
use flotta_bundle::verify::{Refusal, verify_blob, verify_manifest};
use rustix::fs::StatVfs;

use super::LedgerError;
use crate::config::make_private;
use crate::durable;

/// How names of content end that is on its way.
const PART: &str = ".part";
/// Bytes that prefetching leaves free: the ledger's files, old and new side by side, are far smaller on most devices.
const RESERVE: u64 = MIB;
/// Inodes that it leaves free.
const RESERVE_INODES: u64 = 16;
const MIB: u64 = 1 << 20;

/// The content store of a device.
#[derive(Debug)]
pub struct Blobs(PathBuf);

impl Blobs {
    pub(super) fn open(state: &Path) -> Result<Self, LedgerError> {
        let folder = state.join("blobs/sha256");
        make_private(&folder).map_err(LedgerError::write(&folder))?;
        Ok(Self(folder))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.hex())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.hex() + PART)
    }

    /// Whether the content is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The content. What no longer has its digest (a bad disk) is removed, so that it is fetched again.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, LedgerError> {
        let path = self.path(digest);
        let max = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
        let found = durable::read(&path, max).map_err(LedgerError::read(&path))?;
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let bytes = found.map_err(LedgerError::read(&path))?;
        if Digest::of(&bytes) != *digest {
            durable::remove(&path).map_err(LedgerError::write(&path))?;
            return Err(LedgerError::read(&path)(io::Error::other(
                "the disk gave back other bytes than were written",
            )));
        }
        Ok(bytes)
    }

    /// Content that is on its way, as far as it came.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, LedgerError> {
        let path = self.part(digest);
        let mut options = OpenOptions::new();
        let open = options.create(true).append(true).mode(0o600).open(&path);
        let file = open.map_err(LedgerError::write(&path))?;
        let length = file.metadata().map_err(LedgerError::read(&path))?.len();
        Ok(Partial {
            path,
            whole: self.path(digest),
            digest: *digest,
            file,
            length,
        })
    }

    /// What a manifest needs that is there: itself and its files. Of one that is not there, its own name.
    pub fn needed(&self, manifest: Digest) -> BTreeSet<Digest> {
        let bytes = self.read(&manifest).ok();
        let read = bytes.and_then(|bytes| verify_manifest(&bytes, manifest).ok());
        let files = read.into_iter().flat_map(|manifest| manifest.files);
        files.map(|file| file.digest).chain([manifest]).collect()
    }

    /// Refuses to begin what the disk has no space for: contents of these sizes in bytes, as far as they have not come, while
    /// the ledger must be written.
    pub fn expect(&self, contents: &BTreeMap<Digest, u64>) -> Result<(), LedgerError> {
        let disk = rustix::fs::statvfs(&self.0).map_err(io::Error::from);
        let disk = disk.map_err(LedgerError::read(&self.0))?;
        let Some(why) = lacks(&disk, self.missing(contents, disk.f_frsize.max(1))) else {
            return Ok(());
        };
        let error = io::Error::new(io::ErrorKind::StorageFull, why);
        Err(LedgerError::write(&self.0)(error))
    }

    /// Blocks of this many bytes, and inodes, that contents still need.
    pub(super) fn missing(&self, contents: &BTreeMap<Digest, u64>, block: u64) -> (u64, u64) {
        let (mut blocks, mut inodes) = (0_u64, 0);
        for (digest, size) in contents {
            if self.has(digest) {
                continue;
            }
            let came = fs::metadata(self.part(digest)).map(|part| part.len());
            inodes += u64::from(came.is_err());
            let came = came.unwrap_or(0).div_ceil(block);
            blocks = blocks.saturating_add(size.div_ceil(block).saturating_sub(came));
        }
        (blocks, inodes)
    }

    /// Removes all content but this, whether it is whole or on its way.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<(), LedgerError> {
        let keep: BTreeSet<_> = keep.iter().map(Digest::hex).collect();
        for entry in fs::read_dir(&self.0).map_err(LedgerError::read(&self.0))? {
            let entry = entry.map_err(LedgerError::read(&self.0))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !keep.contains(name.strip_suffix(PART).unwrap_or(&name)) {
                durable::remove(&entry.path()).map_err(LedgerError::write(&entry.path()))?;
            }
        }
        Ok(())
    }
}

/// What a disk lacks that is to take so many more blocks and inodes.
pub(super) fn lacks(disk: &StatVfs, (blocks, inodes): (u64, u64)) -> Option<String> {
    let block = disk.f_frsize.max(1);
    // some file systems do not say how large they are, and some make inodes as they need them
    let knows_size = disk.f_blocks > 0;
    let knows_inodes = disk.f_files > 0;
    if knows_size && blocks > 0 && blocks.saturating_add(RESERVE.div_ceil(block)) > disk.f_bavail {
        // in units so coarse that it is not news at every look
        let coming = blocks.saturating_mul(block).div_ceil(MIB);
        let free = disk.f_bavail.saturating_mul(block) / MIB;
        let stay = RESERVE / MIB;
        Some(format!(
            "No space left: {coming} MiB are to come, {free} MiB are free, and {stay} MiB stay free for the ledger"
        ))
    } else if knows_inodes && inodes > 0 && inodes.saturating_add(RESERVE_INODES) > disk.f_favail {
        Some(format!(
            "No space left: {inodes} files are to come, and too few inodes are free"
        ))
    } else {
        None
    }
}

/// Content on its way.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    whole: PathBuf,
    digest: Digest,
    file: File,
    length: u64,
}

impl Partial {
    /// Bytes that are there.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a place in a stream, not a collection"
    )]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Begins again.
    pub fn restart(&mut self) -> Result<(), LedgerError> {
        self.file
            .set_len(0)
            .map_err(LedgerError::write(&self.path))?;
        self.length = 0;
        Ok(())
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.file
            .write_all(bytes)
            .map_err(LedgerError::write(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Checks the whole and gives it its name. What is not what was asked for is thrown away.
    pub fn finish(self) -> Result<Result<(), Refusal>, LedgerError> {
        let bytes = fs::read(&self.path).map_err(LedgerError::read(&self.path))?;
        if let Err(refusal) = verify_blob(&bytes, self.digest) {
            durable::remove(&self.path).map_err(LedgerError::write(&self.path))?;
            return Ok(Err(refusal));
        }
        let folder = self.whole.parent().unwrap_or(Path::new("/"));
        let named = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &self.whole));
        let kept = named.and_then(|()| File::open(folder)?.sync_all());
        kept.map_err(LedgerError::write(&self.whole))?;
        Ok(Ok(()))
    }
}
