//! The ledger's files on disk: atomic, bounded, and with a distinction between a damaged file and one that is missing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use flotta_bundle::code::{self, Problem};
use serde::Serialize;

use crate::config::make_private;
use crate::durable;

/// Largest file of the ledger: 2,000 units and 10,000 files with long names fit many times.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct LedgerError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LedgerError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self {
            what: "cannot read",
            path,
            source,
        }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self {
            what: "cannot write",
            path,
            source,
        }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// A file of the agent's state that was lost or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its path below the state directory.
    pub file: String,
    /// What is wrong with the file.
    pub how: Damage,
    /// What the agent does about it.
    pub then: &'static str,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The file is missing.
    Gone,
    /// The file cannot be read, for this reason.
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("is gone"),
            Self::Unreadable(why) => write!(f, "is damaged ({why})"),
        }
    }
}

impl Loss {
    /// The problem to report for the loss.
    pub fn problem(&self) -> Problem {
        Problem::new(code::STATE_LOST, self.to_string())
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; {}", self.file, self.how, self.then)
    }
}

/// What was found where a file should be.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// The file's content.
    Whole(T),
    /// The file is missing.
    Absent,
    /// The file is damaged, in this way.
    Damaged(String),
}

impl<T> Found<T> {
    /// What is wrong with the file, if anything is.
    pub(crate) fn how(&self) -> Option<Damage> {
        match self {
            Self::Whole(_) => None,
            Self::Absent => Some(Damage::Gone),
            Self::Damaged(why) => Some(Damage::Unreadable(why.clone())),
        }
    }

    pub(crate) fn whole(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Absent | Self::Damaged(_) => None,
        }
    }
}

/// Reads a file of at most `max` bytes. Wrong content and bad sectors are damage; an error is something that may pass by
/// itself.
pub(crate) fn find<T>(
    path: &Path,
    max: usize,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> io::Result<Found<T>> {
    let bytes = match durable::read(path, max) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Found::Absent),
        Err(error) if is_damage(&error) => return Ok(Found::Damaged(error.to_string())),
        Err(error) => return Err(error),
    };
    if bytes.is_empty() {
        return Ok(Found::Damaged("it is empty".to_owned()));
    }
    Ok(parse(&bytes).map_or_else(Found::Damaged, Found::Whole))
}

/// Whether an error means damage: a file that is too long, or a bad sector.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Writes a file atomically; recreates its folder if that is gone.
pub(super) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), LedgerError> {
    let written = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|bytes| durable::bounded(bytes, MAX_BYTES))
        .and_then(|bytes| match durable::write(path, &bytes, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private(path.parent().unwrap_or(Path::new("/")))?;
                durable::write(path, &bytes, 0o600)
            }
            done => done,
        });
    written.map_err(LedgerError::write(path))
}
