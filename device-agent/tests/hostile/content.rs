//! Content that was not signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::Digest;
use flotta_bundle::code;
use futures_util::{StreamExt as _, stream};

use crate::bench::{Bench, FIRST, says};
use crate::fleet::{Bundle, manifest};
use crate::rules::unit;
use crate::server::{Answer, ServerState, answer, whole};
use crate::{Case, case};

/// Makes the server answer a request for the honest release's manifest (or its largest other blob) like this.
pub fn content(
    bench: &Bench,
    of_manifest: bool,
    lie: impl Fn(&[u8]) -> Answer + Send + Sync + 'static,
) {
    let wanted = bench.truth.manifest;
    let mut bundle = Bundle::default();
    manifest(&mut bundle, FIRST + 1);
    let largest = bundle.blobs.iter().max_by_key(|(_, content)| content.len());
    let digest = if of_manifest {
        wanted
    } else {
        *largest.expect("a blob").0
    };
    let truth = bench.server.state.borrow().blobs[&digest].clone();
    let path = format!("/v1/blobs/{digest}");
    bench.become_honest();
    bench.answer(Arc::new(move |request| {
        (request.uri().path() == path).then(|| lie(&truth))
    }));
}

/// The same with the bytes of a good answer changed.
fn bytes(bench: &Bench, of_manifest: bool, change: fn(&mut Vec<u8>)) {
    content(bench, of_manifest, move |truth| {
        let mut bytes = truth.to_vec();
        change(&mut bytes);
        answer(200, &[], whole(bytes))
    });
}

#[expect(
    clippy::ptr_arg,
    reason = "one shape with those that change the length"
)]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.push(b' ');
}

const BYTES: &[Case] = &[
    case(
        "a tampered manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, true, flip);
        },
    ),
    case(
        "a truncated manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, true, cut);
        },
    ),
    case(
        "a padded manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, true, pad);
        },
    ),
    case(
        "a tampered blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, false, flip);
        },
    ),
    case(
        "a truncated blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, false, cut);
        },
    ),
    case(
        "an empty blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, false, Vec::clear);
        },
    ),
    case(
        "a padded blob",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            bytes(bench, false, pad);
        },
    ),
    case(
        "a blob in another's place",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| {
            bytes(bench, false, |bytes| *bytes = b"[Container]\n".to_vec());
        },
    ),
    case(
        "another range of a blob",
        code::NOT_FLOTTA,
        "sent another range of a blob",
        |bench| {
            content(bench, false, |truth| {
                let range = [("content-range", "bytes 7-9/10")];
                answer(206, &range, whole(truth.to_vec()))
            });
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn content_that_was_not_signed_is_refused() {
    crate::run("content", BYTES).await;
}

static UNITS: AtomicU64 = AtomicU64::new(0);
static TRIES: AtomicU64 = AtomicU64::new(0);

/// Ten million units are never in memory at once, on either side: the device hangs up at its limit.
#[tokio::test(start_paused = true)]
async fn ten_million_units_are_cut_off_at_the_limit() {
    fn lie(bench: &mut Bench) {
        content(bench, true, |_| {
            TRIES.fetch_add(1, Ordering::Relaxed);
            let head = stream::iter([Bytes::from_static(
                b"{\"schema\":1,\"files\":[],\"units\":[",
            )]);
            let units = stream::iter((0..10_000_000_u32).map(|number| {
                UNITS.fetch_add(1, Ordering::Relaxed);
                Bytes::from(format!("{},", unit(&format!("u{number:08}.service"))))
            }));
            answer(200, &[], crate::server::stream(head.chain(units)))
        });
    }
    let case = [case(
        "ten million units",
        code::NOT_FLOTTA,
        "sent more than",
        lie,
    )];
    crate::run("units", &case).await;
    let (made, tries) = (UNITS.load(Ordering::Relaxed), TRIES.load(Ordering::Relaxed));
    println!("{made} units were sent in {tries} tries");
    assert!(made / tries < 200_000, "{made} units in {tries} tries");
}

/// The disk fills up in the middle of a blob: that is reported, what was fetched stays, and once there is space the device
/// continues by itself.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_in_the_middle_of_a_blob_is_named_and_heals() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let before = bench.state();
    bench.publish(FIRST + 1);
    let folder = bench.config.state.join("blobs/sha256");
    let missing = bench.server.state.borrow().blobs.clone().into_keys();
    let files = missing.filter(|digest| *digest != bench.truth.manifest);
    let files: Vec<_> = files.map(|digest| folder.join(digest.hex())).collect();
    let reports = bench.server.state.borrow().reports.len();
    bench
        .run(async {
            bench
                .until("it runs again", |state| state.reports.len() > reports)
                .await;
            let files = files.iter().filter(|blob| !blob.exists());
            let traps: Vec<_> = files.map(|blob| blob.with_extension("part")).collect();
            assert_eq!(traps.len(), 2);
            for trap in &traps {
                std::os::unix::fs::symlink("/dev/full", trap).expect("a link");
            }
            bench.become_honest();
            let full = |state: &ServerState| says(state, "Failed", code::LEDGER.id);
            bench.until("the disk is full", full).await;
            assert!(bench.state() == before, "nothing is touched");
            let manifest = folder.join(bench.truth.manifest.hex());
            assert!(manifest.exists(), "what came stays");
            for trap in &traps {
                std::fs::remove_file(trap).expect("there is space again");
            }
            bench.well().await;
        })
        .await;
    let state = bench.server.state.borrow();
    let mut events = state.reports.iter().flat_map(|report| &report.events);
    let said = events.find(|event| event.message.contains(code::LEDGER.id));
    let said = &said.expect("an event").message;
    assert!(said.contains("No space left on device"), "{said}");
}

/// The disk has no space for the manifest itself: blobs of a superseded release are removed for it, those in use are not.
#[tokio::test(start_paused = true)]
async fn a_manifest_takes_the_place_of_what_nothing_needs() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    // another manifest with the same files, which the server no longer has
    let mut bundle = Bundle::default();
    let mut next = manifest(&mut bundle, FIRST);
    next["settings"]["heartbeat_seconds"] = 61.into();
    bench.change(|state| state.blobs.clear());
    bench.truth = bench.signed(FIRST + 1, Bundle::default(), &next.to_string());
    let folder = bench.config.state.join("blobs/sha256");
    let part = |digest: Digest| folder.join(format!("{}.part", digest.hex()));
    let left = part(Digest::of(b"superseded"));
    std::fs::write(&left, "half of it").expect("written");
    let full = part(bench.truth.manifest);
    std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
    bench.become_honest();
    bench.run(bench.well()).await;
    assert!(!left.exists() && !full.is_symlink());
    let state = bench.server.state.borrow();
    let mut events = state.reports.iter().flat_map(|report| &report.events);
    let trouble = events.find(|event| event.message.contains(code::LEDGER.id));
    assert_eq!(trouble, None);
}

/// A download that broke off after its last byte and before its check is complete, and must not be requested past its end for
/// ever.
#[tokio::test(start_paused = true)]
async fn a_blob_that_came_whole_and_was_not_checked_is_no_trap() {
    for spoilt in [false, true] {
        let mut bench = Bench::new().await;
        bench.become_honest();
        bench.run_first().await;
        bench.publish(FIRST + 1);
        let blobs = bench.server.state.borrow().blobs.clone();
        for (digest, mut content) in blobs {
            if spoilt {
                content[0] ^= 1;
            }
            let folder = bench.config.state.join("blobs/sha256");
            let name = format!("{}.part", Digest::hex(&digest));
            std::fs::write(folder.join(name), content).expect("written");
        }
        bench.become_honest();
        let begun = tokio::time::Instant::now();
        bench.run(bench.well()).await;
        let spent = begun.elapsed();
        assert!(spent < Duration::from_secs(60), "{spoilt}: {spent:?}");
    }
}
