//! Blobs: from the depot to the device that may read them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::Digest;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest piece of a blob, in bytes.
const PIECE: usize = 64 << 10;
/// How many times the patience for one piece a whole blob may take.
const PATIENCE_IN_ALL: u32 = 5;

/// A blob on its way out.
pub struct Blob {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// Its content from the offset asked for; nothing when that is at or past the end.
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
    /// A blob that is in memory as a whole. It leaves in pieces: who counts blobs on their way counts this one until its
    /// last piece is asked for.
    pub fn from_bytes(mut bytes: Bytes, offset: u64) -> Self {
        let size = bytes.len() as u64;
        let mut rest = bytes.split_off(usize::try_from(offset.min(size)).unwrap_or(bytes.len()));
        let pieces = std::iter::from_fn(move || {
            // a copy: who has not taken its last piece when its slot is free must not keep the whole in memory
            let piece = Bytes::copy_from_slice(&rest.split_to(rest.len().min(PIECE)));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Self {
            size,
            body: futures_util::stream::iter(pieces).boxed(),
        }
    }
}

/// Where blobs come from.
pub trait Blobs: Send + Sync + 'static {
    /// The blob of this digest, from `offset` on; none when it is not there.
    fn get(&self, digest: Digest, offset: u64) -> BoxFuture<'_, io::Result<Option<Blob>>>;
}

/// The body of `blob`, as it is read. One who takes no piece of it for `patience` gets no more: blobs on their way are few,
/// and so is the memory they are in. `slots` are held until then, or until the last piece is taken.
pub(super) fn sent<T: Send + 'static>(
    blob: Blob,
    offset: u64,
    patience: Duration,
    slots: T,
) -> impl Stream<Item = io::Result<Bytes>> {
    let left = blob.size.saturating_sub(offset);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let (_until_sent, mut body) = (slots, blob.body);
        // who takes longer asks for the rest again, behind those who wait
        let end = Instant::now() + patience * PATIENCE_IN_ALL;
        while let Some(piece) = body.next().await {
            let left = end.saturating_duration_since(Instant::now());
            if sender
                .send_timeout(piece, patience.min(left))
                .await
                .is_err()
            {
                break;
            }
        }
    });
    futures_util::stream::unfold((receiver, left), async |(mut receiver, left)| {
        match receiver.recv().await {
            Some(piece) => {
                let length = piece.as_ref().map_or(left, |piece| piece.len() as u64);
                Some((piece, (receiver, left.saturating_sub(length))))
            }
            // it ends as a failure, not as a shorter blob
            None if left > 0 => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "not read in time");
                Some((Err(error), (receiver, 0)))
            }
            None => None,
        }
    })
}

/// A whole blob of at most `max` bytes.
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
