//! Sends a blob to a device.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::blobs::Blob;

/// How long a whole blob may take, as a multiple of the patience for one chunk.
const PATIENCE_IN_ALL: u32 = 5;

/// The response body for `blob`. A device that takes no chunk for `patience` gets no more, because downloads are limited for
/// their memory. `slots` are held until then, or until the last chunk is taken.
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
        // a slower device has to ask for the rest again, behind those that wait
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
            // end with an error, so that it is not taken for a shorter blob
            None if left > 0 => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "not read in time");
                Some((Err(error), (receiver, 0)))
            }
            None => None,
        }
    })
}
