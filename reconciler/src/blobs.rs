//! Blobs as they are read: whole, or as a stream of chunks.

use std::io;

use bytes::Bytes;
use flotta_bundle::Digest;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};

/// Longest chunk of a blob, in bytes.
const PIECE: usize = 64 << 10;

/// A blob that is being read.
pub struct Blob {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// Its content from the requested offset; empty when that is at or past the end.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Blob {
    /// A blob that is in memory. It is streamed in chunks, so that a limit on downloads counts it until its last chunk is asked
    /// for.
    pub fn from_bytes(mut bytes: Bytes, offset: u64) -> Self {
        let size = bytes.len() as u64;
        let mut rest = bytes.split_off(usize::try_from(offset.min(size)).unwrap_or(bytes.len()));
        let pieces = std::iter::from_fn(move || {
            // copied, so that a last chunk that is still being sent does not keep the whole blob in memory
            let piece = Bytes::copy_from_slice(&rest.split_to(rest.len().min(PIECE)));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Self {
            size,
            body: futures_util::stream::iter(pieces).boxed(),
        }
    }
}

/// A store of blobs.
pub trait Blobs: Send + Sync + 'static {
    /// Opens the blob of this digest from `offset` on; none when there is no such blob.
    fn get(&self, digest: Digest, offset: u64) -> BoxFuture<'_, io::Result<Option<Blob>>>;
}

/// Reads a whole blob of at most `max` bytes.
pub(crate) async fn read_whole(
    blobs: &dyn Blobs,
    digest: Digest,
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let Some(mut blob) = blobs.get(digest, 0).await? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.body.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > max {
            return Err(io::Error::other("blob longer than allowed"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}
