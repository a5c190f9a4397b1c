use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::blobs::Blob;
use crate::fixture::{Fixture, bundle, bundle_with, name};

fn digest(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

fn fixture() -> (tempfile::TempDir, Fixture) {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    (data, fixture)
}

#[test]
fn only_those_whose_manifest_changed_are_woken() {
    let (_data, fixture) = fixture();
    let index = &fixture.index;
    let (one, two) = (digest("1"), digest("2"));
    fixture.publish(1, &[("a", &[one]), ("b", &[one]), ("c", &[one])]);
    let mut watches: Vec<_> = ["a", "b", "c", "d"]
        .map(|device| index.watch(&name(device)))
        .into();
    // b changes, c leaves, d comes
    fixture.publish(2, &[("a", &[one]), ("b", &[two, one]), ("d", &[one])]);
    let woken: Vec<_> = watches
        .iter_mut()
        .map(|watch| watch.changed().now_or_never().is_some())
        .collect();
    assert_eq!(woken, [false, true, true, true]);
    assert!(
        watches[1].changed().now_or_never().is_none(),
        "once for each change"
    );
    // a release that reverts it wakes it again
    fixture.publish(3, &[("a", &[one]), ("b", &[one, two]), ("d", &[one])]);
    assert!(watches[1].changed().now_or_never().is_some());
}

#[test]
fn an_entry_lives_as_long_as_somebody_waits() {
    let (_data, fixture) = fixture();
    let first = fixture.index.watch(&name("a"));
    let second = fixture.index.watch(&name("a"));
    assert_eq!(fixture.index.waiting(), 1);
    drop(first);
    assert_eq!(fixture.index.waiting(), 1);
    drop(second);
    assert_eq!(fixture.index.waiting(), 0);
}

#[test]
fn a_device_is_held_back_to_what_its_leaf_names() {
    let (_data, fixture) = fixture();
    let (new, old) = (digest("new"), digest("old"));
    let mut current = crate::fixture::release(&fixture.fleet, 4, &[("a", &[new, old])]);
    assert!(!current.hold_back(&name("a"), digest("other")));
    assert!(!current.hold_back(&name("b"), old));
    assert_eq!(current.offered(&name("a")).unwrap().manifest, new);
    assert!(current.hold_back(&name("a"), old));
    fixture.index.publish(current);
    let offered = fixture.index.offered(&name("a")).unwrap();
    let offer = fixture.index.offer(&name("a"), offered, 1).unwrap();
    assert_eq!(
        (offered.sequence, offered.manifest, offer.manifest),
        (4, old, old)
    );
    assert!(fixture.index.offer(&name("b"), offered, 1).is_none());
    // no offer with the proof of a release that came in between
    fixture.publish(5, &[("a", &[new])]);
    assert!(fixture.index.offer(&name("a"), offered, 1).is_none());
}

#[test]
fn roots_come_after_the_one_that_is_known() {
    let (_data, fixture) = fixture();
    fixture.publish(1, &[("a", &[digest("1")])]);
    let offered = fixture.index.offered(&name("a")).unwrap();
    let roots = |after| {
        let offer = fixture.index.offer(&name("a"), offered, after);
        offer.unwrap().roots.len()
    };
    assert_eq!([roots(0), roots(1), roots(u32::MAX)], [1, 0, 0]);
}

/// A blob store that counts reads.
#[derive(Default)]
struct Counting(HashMap<Digest, Vec<u8>>, Mutex<usize>);

impl Blobs for Counting {
    fn get(&self, digest: Digest, offset: u64) -> BoxFuture<'_, std::io::Result<Option<Blob>>> {
        *lock(&self.1) += 1;
        let bytes = self.0.get(&digest).cloned();
        let blob = bytes.map(|bytes| Blob::from_bytes(bytes.into(), offset));
        std::future::ready(Ok(blob)).boxed()
    }
}

#[tokio::test]
async fn blobs_belong_to_the_manifests_a_leaf_names() {
    let (_data, fixture) = fixture();
    let (new, mut blobs) = bundle(b"new");
    let (old, of_old) = bundle(b"old");
    let (other, of_other) = bundle(b"other");
    blobs.extend(of_old);
    blobs.extend(of_other);
    let gone = digest("gone");
    fixture.publish(1, &[("a", &[new, gone, old]), ("b", &[other])]);
    let blobs = Counting(blobs.into_iter().collect(), Mutex::default());
    let (a, index) = (name("a"), &fixture.index);
    for own in [new, old, gone, digest("new"), digest("old")] {
        assert!(index.may_read(&a, &own, &blobs).await.unwrap(), "{own}");
    }
    for foreign in [other, digest("other"), digest("none")] {
        assert!(
            !index.may_read(&a, &foreign, &blobs).await.unwrap(),
            "{foreign}"
        );
    }
    assert!(!index.may_read(&name("c"), &new, &blobs).await.unwrap());
    let known = index.known(new, &blobs).await.unwrap().unwrap();
    assert_eq!((known.heartbeat_seconds, known.schema), (60, 1));
    assert!(index.known(gone, &blobs).await.unwrap().is_none());

    // each manifest is read once
    let before = *lock(&blobs.1);
    index.may_read(&a, &digest("new"), &blobs).await.unwrap();
    assert_eq!(*lock(&blobs.1), before);
}

#[tokio::test]
async fn a_device_is_offered_what_its_agent_reads() {
    let (_data, fixture) = fixture();
    let moved = manifest::Settings {
        servers: vec!["https://edge.example".to_owned()],
        ..manifest::Settings::default()
    };
    let (second, mut blobs) = bundle_with(b"new", moved);
    let (first, of_first) = bundle(b"old");
    blobs.extend(of_first);
    let blobs = Counting(blobs.into_iter().collect(), Mutex::default());
    let index = &fixture.index;
    let of = |device, reads| {
        let blobs = &blobs;
        async move { index.readable(&name(device), reads, blobs).await.unwrap() }
    };
    let offered = |manifest| {
        Readable::Offered(Offered {
            sequence: 1,
            manifest,
        })
    };
    fixture.publish(
        1,
        &[("a", &[second, first]), ("b", &[second]), ("c", &[first])],
    );
    assert_eq!(of("a", 1).await, offered(first), "an earlier one");
    assert_eq!(of("a", 2).await, offered(second));
    assert_eq!(of("b", 1).await, Readable::Needs(2));
    assert_eq!(of("c", 1).await, offered(first));
    assert_eq!(of("d", 1).await, Readable::Unnamed);
}
