use std::time::Duration;

use flotta_bundle::{Digest, code};
use futures_util::StreamExt;
use http::Method;
use tokio::sync::oneshot::error::TryRecvError;

use super::refused;
use super::world::World;
use crate::blobs::Blob;
use crate::edge::blobs::sent;
use crate::edge::limits::Limits;
use crate::fixture::{TestDevice, bundle};

#[tokio::test]
async fn a_device_reads_its_own_bundles_and_no_others() {
    let world = World::new().await;
    let content = vec![b'x'; 200_000];
    let (own, own_blobs) = bundle(&content);
    let (earlier, earlier_blobs) = bundle(b"earlier");
    let (other, other_blobs) = bundle(b"of b");
    for blobs in [&own_blobs, &earlier_blobs, &other_blobs] {
        world.fixture.depot.put_blobs(blobs).await.unwrap();
    }
    world
        .fixture
        .publish(1, &[("a", &[own, earlier]), ("b", &[other])]);
    let client = world.device(&TestDevice::new("a")).await;
    for (digest, content) in own_blobs.iter().chain(&earlier_blobs) {
        let answer = client.get(&format!("/v1/blobs/{digest}"), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &content[..])
        );
    }
    // the answers for b's blob and for a missing one are the same
    let none = Digest::of(b"none");
    for digest in other_blobs.keys().chain([&none]) {
        let answer = client.get(&format!("/v1/blobs/{digest}"), &[]).await;
        assert_eq!(answer.failure(), refused(code::NOT_YOURS, 403));
    }
    for name in ["sha256:00", "..%2f..%2fkeys", "x"] {
        let answer = client.get(&format!("/v1/blobs/{name}"), &[]).await;
        assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400));
    }

    let path = format!("/v1/blobs/{}", Digest::of(&content));
    let answer = client.get(&path, &[("range", "bytes=199990-")]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (206, &content[199_990..])
    );
    assert_eq!(answer.header("content-range"), "bytes 199990-199999/200000");
    let answer = client.get(&path, &[("range", "bytes=200000-")]).await;
    assert_eq!(answer.status, 416);
    assert_eq!(answer.header("content-range"), "bytes */200000");
    // a server may ignore ranges that it does not support (RFC 9110, 14.2)
    let others = [
        "bytes=0-",
        "bytes=-5",
        "bytes=1-2",
        "bytes=1-,5-",
        "lines=5-",
        "5",
        "",
    ];
    for range in others {
        let answer = client.get(&path, &[("range", range)]).await;
        let found = (answer.status.as_u16(), answer.body.len());
        assert_eq!(found, (200, content.len()), "{range:?}");
        assert!(!answer.headers.contains_key("content-range"), "{range:?}");
    }
}

#[tokio::test]
async fn a_device_that_does_not_read_keeps_no_other_from_reading() {
    let each = crate::rate::DOWNLOADS_EACH;
    let limits = Limits {
        downloads: each + 1,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    // more than a client buffers unread: 2 MiB of each, 5 MiB in all
    let content = vec![b'x'; 3_000_000];
    let (manifest, blobs) = bundle(&content);
    world.fixture.depot.put_blobs(&blobs).await.unwrap();
    world
        .fixture
        .publish(1, &[("a", &[manifest]), ("b", &[manifest])]);
    let path = format!("/v1/blobs/{}", Digest::of(&content));
    let idle = world.device(&TestDevice::new("a")).await;
    let mut unread = Vec::new();
    for _ in 0..each {
        let begun = idle.begin(Method::GET, &path, &[], Vec::new()).await;
        unread.push(begun.unwrap());
    }
    let more = tokio::spawn(async move {
        let more = (0..4).map(|_| idle.begin(Method::GET, &path, &[], Vec::new()));
        futures_util::future::join_all(more).await
    });
    let reader = world.device(&TestDevice::new("b")).await;
    let path = format!("/v1/blobs/{}", Digest::of(&content));
    assert_eq!(reader.get(&path, &[]).await.body.len(), content.len());
    more.abort();
}

/// A client that takes each chunk in time, but the whole too slowly, loses its slot; its body ends with an error, not as if it
/// were complete.
#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_gets_no_more() {
    const PIECES: usize = 100;
    let patience = Duration::from_secs(60);
    let whole = bytes::Bytes::from(vec![b'x'; PIECES << 16]);
    let (slot, mut taken) = tokio::sync::oneshot::channel::<()>();
    let sent = sent(Blob::from_bytes(whole, 0), 0, patience, slot);
    tokio::pin!(sent);
    let begun = tokio::time::Instant::now();
    let mut came = 0;
    let error = loop {
        tokio::time::sleep(patience * 9 / 10).await;
        match sent.next().await.expect("a piece, or an error") {
            Ok(piece) => came += piece.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let spent = begun.elapsed();
    assert!(spent > patience * 5 && spent < patience * 8, "{spent:?}");
    assert!(came > 4 << 16 && came < 10 << 16, "{came}");
    assert!(
        taken
            .try_recv()
            .is_err_and(|error| error == TryRecvError::Closed)
    );
    assert!(sent.next().await.is_none());
}
