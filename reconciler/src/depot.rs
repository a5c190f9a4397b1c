//! The depot: rendered output, content-addressed and written once. A directory today; any `object_store` later, by the same
//! calls.
//!
//! ```text
//! head.json                        which release is in force; written last
//! releases/SEQUENCE/release.json   the signed envelope
//! releases/SEQUENCE/leaves.json    its leaves, in the order of the tree: the signed bytes, as strings
//! roots/VERSION.json               the trust roots, each signed
//! blobs/sha256/AB/ABCD…            manifests and files, by digest
//! ```
//!
//! A write is a temporary file, `fsync`, rename, `fsync` of the directory (`LocalFileSystem::with_fsync`), and `head.json` is
//! written last: a reader, also after a power cut, finds either the previous release or the new one.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use flotta_bundle::Digest;
use flotta_bundle::code::{self, Code};
use flotta_bundle::envelope::{Envelope, EnvelopeError};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::blobs::{Blob, Blobs};

#[cfg(test)]
mod tests;

/// The version of the layout.
const SCHEMA: u32 = 1;
/// Blobs written at a time: enough to hide a bucket's latency, few enough for a small machine's disk.
const WRITERS: usize = 8;

/// The content of `head.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of the layout: 1.
    pub schema: u32,
    /// Sequence of the release in force.
    pub sequence: u64,
}

/// A release as the depot stores it. The depot verifies nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The signed release.
    pub envelope: Envelope,
    /// The encoded leaves in tree order.
    pub leaves: Vec<String>,
}

/// Errors of the depot.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// The disk or bucket failed.
    #[error("depot: {0}")]
    Store(String, #[source] object_store::Error),
    /// The directory cannot be created.
    #[error("depot: {0} cannot be created")]
    Create(String, #[source] std::io::Error),
    /// A file cannot be parsed.
    #[error("depot: {0} cannot be read: {1}")]
    Malformed(String, String),
    /// A signed document is malformed.
    #[error("depot: {0}")]
    Envelope(String, #[source] EnvelopeError),
    /// A blob's content does not have its digest.
    #[error("depot: blob {wanted} holds content with digest {found}")]
    Damaged {
        /// The digest in its name.
        wanted: Digest,
        /// The digest of its content.
        found: Digest,
    },
}

impl DepotError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => code::DIGEST_MISMATCH,
            _ => code::DEPOT,
        }
    }
}

/// A depot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Depot {
    store: Arc<dyn ObjectStore>,
}

fn blob_path(digest: &Digest) -> Path {
    let hex = digest.hex();
    Path::from_iter(["blobs", "sha256", &hex[..2], &hex])
}

fn release_path(sequence: u64, file: &str) -> Path {
    Path::from_iter(["releases", &sequence.to_string(), file])
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps here have string keys")
}

impl Depot {
    /// Opens the depot in a directory, which is created if it does not exist.
    pub fn local(directory: &FilePath) -> Result<Self, DepotError> {
        let place = || directory.display().to_string();
        std::fs::create_dir_all(directory).map_err(|error| DepotError::Create(place(), error))?;
        let store = LocalFileSystem::new_with_prefix(directory)
            .map_err(|error| DepotError::Store(place(), error))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
        })
    }

    /// The head, which names the release in force; none in a new depot.
    pub async fn head(&self) -> Result<Option<Head>, DepotError> {
        let path = Path::from("head.json");
        let Some(bytes) = self.get(&path).await? else {
            return Ok(None);
        };
        let head: Head = parse(&path, &bytes)?;
        if head.schema != SCHEMA {
            let message = format!("layout {}, this program knows {SCHEMA}", head.schema);
            return Err(DepotError::Malformed(path.to_string(), message));
        }
        Ok(Some(head))
    }

    /// Puts the release `sequence` in force. Its files and blobs must have been written before.
    pub async fn put_head(&self, sequence: u64) -> Result<(), DepotError> {
        let head = Head {
            schema: SCHEMA,
            sequence,
        };
        self.put(&Path::from("head.json"), json(&head)).await
    }

    /// Reads a release and its leaves.
    pub async fn release(&self, sequence: u64) -> Result<Option<Stored>, DepotError> {
        let path = release_path(sequence, "release.json");
        let Some(bytes) = self.get(&path).await? else {
            return Ok(None);
        };
        let envelope = Envelope::parse(&bytes)
            .map_err(|error| DepotError::Envelope(path.to_string(), error))?;
        let path = release_path(sequence, "leaves.json");
        let Some(bytes) = self.get(&path).await? else {
            return Ok(None);
        };
        let leaves = parse(&path, &bytes)?;
        Ok(Some(Stored { envelope, leaves }))
    }

    /// Writes a release. Its blobs must have been written before.
    pub async fn put_release(&self, sequence: u64, release: &Stored) -> Result<(), DepotError> {
        self.put(
            &release_path(sequence, "leaves.json"),
            json(&release.leaves),
        )
        .await?;
        self.put(
            &release_path(sequence, "release.json"),
            release.envelope.encode(),
        )
        .await
    }

    /// Writes a trust root.
    pub async fn put_root(&self, version: u32, root: &Envelope) -> Result<(), DepotError> {
        let path = Path::from_iter(["roots", &format!("{version}.json")]);
        self.put(&path, root.encode()).await
    }

    /// Writes the blobs that are not there yet.
    pub async fn put_blobs(&self, blobs: &BTreeMap<Digest, Vec<u8>>) -> Result<(), DepotError> {
        let writes: Vec<_> = blobs
            .iter()
            .map(|(digest, content)| self.put_blob(digest, content))
            .collect();
        stream::iter(writes)
            .buffer_unordered(WRITERS)
            .try_collect()
            .await
    }

    async fn put_blob(&self, digest: &Digest, content: &[u8]) -> Result<(), DepotError> {
        let path = blob_path(digest);
        match self.store.head(&path).await {
            // a file of another length is damaged and is written again
            Ok(meta) if meta.size == content.len() as u64 => Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {
                self.put(&path, content.to_vec()).await
            }
            Err(error) => Err(DepotError::Store(path.to_string(), error)),
        }
    }

    /// Reads a blob and checks its digest.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, DepotError> {
        let Some(bytes) = self.get(&blob_path(digest)).await? else {
            return Ok(None);
        };
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(Some(bytes))
        } else {
            Err(DepotError::Damaged {
                wanted: *digest,
                found,
            })
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, DepotError> {
        let fail = |error| DepotError::Store(path.to_string(), error);
        match self.store.get(path).await {
            Ok(object) => object.bytes().await.map(Some).map_err(fail),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    async fn put(&self, path: &Path, content: Vec<u8>) -> Result<(), DepotError> {
        self.store
            .put(path, content.into())
            .await
            .map(drop)
            .map_err(|error| DepotError::Store(path.to_string(), error))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, DepotError> {
    serde_json::from_slice(bytes)
        .map_err(|error| DepotError::Malformed(path.to_string(), error.to_string()))
}

impl Blobs for Depot {
    fn get(&self, digest: Digest, offset: u64) -> BoxFuture<'_, std::io::Result<Option<Blob>>> {
        Box::pin(async move {
            let bytes = self.blob(&digest).await.map_err(std::io::Error::other)?;
            Ok(bytes.map(|bytes| Blob::from_bytes(bytes, offset)))
        })
    }
}
