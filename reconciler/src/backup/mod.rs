//! A copy of all that a server must not lose, in one file, and a new data directory from it.
//!
//! ```text
//! flotta-backup.json       what is in it: fleet, time, and each file with its size and digest; the first of the archive
//! keys/…                   the fleet's keys, as in the data directory
//! fleet.db status.db       the store, each as of one moment
//! depot/…                  the release in force with all that it leads to: a restored server serves at once
//! ```
//!
//! It is a tar archive, so that in need any machine can look into it, and may be encrypted in the format of age. It holds
//! private keys: who can read it can sign for every device.

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
pub use restore::{Given, Restored, check_empty, restore};
pub use sealed::{Identity, KeyError, Recipient};

#[cfg(test)]
mod tests;

/// The version of a backup's shape. Version 1 has no [`CONTENTS_DIGEST`]; it is still read.
const SCHEMA: u32 = 2;
/// The file that says what is in a backup.
const CONTENTS: &str = "flotta-backup.json";
/// The file that has its digest: what is said of a backup is as whole as what is in it.
const CONTENTS_DIGEST: &str = "flotta-backup.sha256";
/// Longest [`CONTENTS_DIGEST`]; a digest is 71 bytes.
const MAX_DIGEST: u64 = 128;
/// Longest [`CONTENTS`]: a million files.
const MAX_CONTENTS: u64 = 256 << 20;
/// The folder of a data directory in which a restore is under way.
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
    /// Requests to join that waited.
    pub requests: u64,
    /// Every file after this one, in their order.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the data directory.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its content.
    pub digest: Digest,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No keys there.
    #[error("{} has no keys: is it the directory given to `flotta serve --data`?", .0.display())]
    NoKeys(PathBuf),
    /// Something is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// Not a backup, or not a whole one.
    #[error("{path} is not a whole backup: {what}", path = .0.display(), what = .1)]
    Damaged(PathBuf, String),
    /// Encrypted.
    #[error("{} is encrypted: give the identity file that opens it, --identity FILE", .0.display())]
    Sealed(PathBuf),
    /// Made by a later version.
    #[error("{} is a backup of schema {found}, this program knows {SCHEMA}: use the newer flotta", .path.display())]
    Newer {
        /// The backup.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// A data directory that is in use.
    #[error("{path} is not empty: it has {what}", path = .0.display(), what = .1)]
    NotEmpty(PathBuf, String),
    /// Nobody has said who was revoked since.
    #[error("nobody has said who was revoked since {0}")]
    RevokedSince(String),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The depot.
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
