//! Content by its SHA-256. What has its name has been checked; what is on its way has another.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flotta_bundle::Digest;
use flotta_bundle::manifest::MAX_FILE_BYTES;
use flotta_bundle::verify::{Refusal, verify_blob};

use super::LedgerError;
use crate::durable;
use crate::settings::make_private;

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
        let path = self.0.join(format!("{}.part", digest.hex()));
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

    /// Removes all content but this, and what was on its way.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<(), LedgerError> {
        let keep: BTreeSet<_> = keep.iter().map(Digest::hex).collect();
        for entry in fs::read_dir(&self.0).map_err(LedgerError::read(&self.0))? {
            let entry = entry.map_err(LedgerError::read(&self.0))?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| keep.contains(name))
            {
                durable::remove(&entry.path()).map_err(LedgerError::write(&entry.path()))?;
            }
        }
        Ok(())
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
