//! The blob store: content named by its SHA-256. A blob has that name only once it is complete and checked.

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

/// The suffix of a partly fetched blob.
const PART: &str = ".part";
/// Bytes that prefetching leaves free. The ledger's files, old and new next to each other, are far smaller on most devices.
const RESERVE: u64 = MIB;
/// Inodes that prefetching leaves free.
const RESERVE_INODES: u64 = 16;
const MIB: u64 = 1 << 20;

/// The blob store of a device.
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

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Reads a blob. One that no longer matches its digest (a bad disk) is removed, so that it is fetched again.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, LedgerError> {
        let path = self.path(digest);
        let max = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
        let found = durable::read(&path, max).map_err(LedgerError::read(&path))?;
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let bytes = found.map_err(LedgerError::read(&path))?;
        if Digest::of(&bytes) != *digest {
            durable::remove(&path).map_err(LedgerError::write(&path))?;
            return Err(LedgerError::read(&path)(io::Error::other(
                "the disk returned other bytes than were written",
            )));
        }
        Ok(bytes)
    }

    /// Opens a partly fetched blob, to append to it.
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

    /// The digests that a manifest needs: its own and those of its files. Of a manifest that is not there, only its own.
    pub fn needed(&self, manifest: Digest) -> BTreeSet<Digest> {
        let bytes = self.read(&manifest).ok();
        let read = bytes.and_then(|bytes| verify_manifest(&bytes, manifest).ok());
        let files = read.into_iter().flat_map(|manifest| manifest.files);
        files.map(|file| file.digest).chain([manifest]).collect()
    }

    /// Refuses a download that the disk has no space for: blobs of these sizes in bytes, minus what is there already, with room
    /// left for the ledger.
    pub fn expect(&self, contents: &BTreeMap<Digest, u64>) -> Result<(), LedgerError> {
        let disk = rustix::fs::statvfs(&self.0).map_err(io::Error::from);
        let disk = disk.map_err(LedgerError::read(&self.0))?;
        let Some(why) = lacks(&disk, self.missing(contents, disk.f_frsize.max(1))) else {
            return Ok(());
        };
        let error = io::Error::new(io::ErrorKind::StorageFull, why);
        Err(LedgerError::write(&self.0)(error))
    }

    /// Blocks of this many bytes, and inodes, that blobs still need.
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

    /// Removes all blobs but these, complete or not.
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

/// What a disk lacks to hold this many more blocks and inodes; none when they fit.
pub(super) fn lacks(disk: &StatVfs, (blocks, inodes): (u64, u64)) -> Option<String> {
    let block = disk.f_frsize.max(1);
    // some file systems do not report their size, and some create inodes on demand
    let knows_size = disk.f_blocks > 0;
    let knows_inodes = disk.f_files > 0;
    if knows_size && blocks > 0 && blocks.saturating_add(RESERVE.div_ceil(block)) > disk.f_bavail {
        // in coarse units, so that the message does not change at every try
        let coming = blocks.saturating_mul(block).div_ceil(MIB);
        let free = disk.f_bavail.saturating_mul(block) / MIB;
        let stay = RESERVE / MIB;
        Some(format!(
            "No space left: {coming} MiB are needed, {free} MiB are free, and {stay} MiB are reserved for the ledger"
        ))
    } else if knows_inodes && inodes > 0 && inodes.saturating_add(RESERVE_INODES) > disk.f_favail {
        Some(format!(
            "No space left: {inodes} files are needed, and too few inodes are free"
        ))
    } else {
        None
    }
}

/// A partly fetched blob.
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

    /// Starts again from the beginning.
    pub fn restart(&mut self) -> Result<(), LedgerError> {
        self.file
            .set_len(0)
            .map_err(LedgerError::write(&self.path))?;
        self.length = 0;
        Ok(())
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.file
            .write_all(bytes)
            .map_err(LedgerError::write(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Checks the complete blob and gives it its name. A blob that does not match is discarded.
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
