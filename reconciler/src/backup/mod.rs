//! Backup and restore: everything that a server must not lose in one file, and a new data directory from it.
//!
//! ```text
//! flotta-backup.json       what is in it: fleet, time, and each file with its size and digest; the first of the archive
//! keys/…                   the fleet's keys, as in the data directory
//! fleet.db status.db       the store, each as of one moment
//! depot/…                  the release in force with all that it leads to: a restored server serves at once
//! ```
//!
//! It is a tar archive, so that any machine can open it in an emergency, and may be encrypted in the age format. It holds
//! private keys: whoever can read it can sign for every device.

use std::io;
use std::path::PathBuf;

use flotta_bundle::code::{self, Code};
use flotta_bundle::{Digest, FleetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod archive;
mod keys;
mod leftover;
mod make;
mod restore;
mod sealed;

pub use keys::export;
pub(crate) use leftover::clear;
pub use make::{Made, make};
pub use restore::{RestoreSource, Restored, check_empty, restore};
pub use sealed::{Identity, KeyError, Recipient};

#[cfg(test)]
mod tests;

/// The version of a backup's format. Version 1 has no [`CONTENTS_DIGEST`]; it is still read.
const SCHEMA: u32 = 2;
/// The file that says what is in a backup.
const CONTENTS: &str = "flotta-backup.json";
/// The file with its digest, so that damage of the contents list is found too.
const CONTENTS_DIGEST: &str = "flotta-backup.sha256";
/// Longest [`CONTENTS_DIGEST`]; a digest is 71 bytes.
const MAX_DIGEST: u64 = 128;
/// Longest [`CONTENTS`]: a million files.
const MAX_CONTENTS: u64 = 256 << 20;
/// The folder of a data directory that holds an unfinished restore.
pub(crate) const UNFINISHED: &str = "restore.new";

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// 1.
    pub schema: u32,
    /// The fleet.
    pub fleet: FleetName,
    /// When it was made.
    pub made: Timestamp,
    /// The version of flotta that made it.
    pub by: String,
    /// The release in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// Devices that had joined and were not revoked.
    pub devices: u64,
    /// Pending requests to join.
    pub requests: u64,
    /// All other files, in order.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the data directory.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its content.
    pub digest: Digest,
}

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory has no keys.
    #[error("{} has no keys: is it the directory given to `flotta serve --data`?", .0.display())]
    NoKeys(PathBuf),
    /// The file exists already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// Not a backup, or an incomplete one.
    #[error("{path} is not a complete backup: {what}", path = .0.display(), what = .1)]
    Damaged(PathBuf, String),
    /// The backup is encrypted.
    #[error("{} is encrypted: give the identity file that opens it, --identity FILE", .0.display())]
    Sealed(PathBuf),
    /// The backup was made by a later version.
    #[error("{} is a backup of schema {found}, this program knows {SCHEMA}: use the newer flotta", .path.display())]
    Newer {
        /// The backup.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// The data directory is not empty.
    #[error("{path} is not empty: it has {what}", path = .0.display(), what = .1)]
    NotEmpty(PathBuf, String),
    /// It was not said who was revoked since the backup.
    #[error("nobody has said who was revoked since {0}")]
    RevokedSince(String),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeysError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The depot failed.
    #[error(transparent)]
    Depot(#[from] crate::depot::DepotError),
}

impl BackupError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotEmpty(..) => code::NOT_EMPTY,
            Self::RevokedSince(_) => code::REVOKED_SINCE,
            Self::Keys(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Depot(error) => error.code(),
            _ => code::BACKUP,
        }
    }

    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Read(path, error)
    }

    fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Write(path, error)
    }
}
