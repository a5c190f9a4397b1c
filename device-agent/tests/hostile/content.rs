//! Content that was not signed, and signed manifests that break a rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::Digest;
use flotta_bundle::code;
use flotta_bundle::manifest::{MAX_BYTES, MAX_UNITS};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::fleet::{Bundle, file, manifest};
use crate::server::{Answer, World, answer, whole};
use crate::stage::{FIRST, Stage, says};
use crate::{Case, case};

/// Makes the server answer a request for the honest release's manifest (or its largest other blob) like this.
pub fn content(
    stage: &Stage,
    of_manifest: bool,
    lie: impl Fn(&[u8]) -> Answer + Send + Sync + 'static,
) {
    let wanted = stage.truth.manifest;
    let mut bundle = Bundle::default();
    manifest(&mut bundle, FIRST + 1);
    let largest = bundle.blobs.iter().max_by_key(|(_, content)| content.len());
    let digest = if of_manifest {
        wanted
    } else {
        *largest.expect("a blob").0
    };
    let truth = stage.server.world.borrow().blobs[&digest].clone();
    let path = format!("/v1/blobs/{digest}");
    stage.heal();
    stage.answer(Arc::new(move |request| {
        (request.uri().path() == path).then(|| lie(&truth))
    }));
}

/// The same with the bytes of a good answer changed.
fn bytes(stage: &Stage, of_manifest: bool, change: fn(&mut Vec<u8>)) {
    content(stage, of_manifest, move |truth| {
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

/// Adds a file at this path to the manifest.
fn path(stage: &mut Stage, path: &'static str) {
    more(stage, &[path]);
}

/// The same where only the third schema has files.
pub fn elsewhere(stage: &mut Stage, path: &str) {
    stage.offer_manifest(|bundle, manifest| {
        let file = file(bundle, path, b"x", "data");
        manifest["schema"] = 3.into();
        manifest["files"].as_array_mut().expect("a list").push(file);
        let files = manifest["files"].as_array_mut().expect("a list");
        files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    });
}

fn twins(stage: &mut Stage, first: &'static str, second: &'static str) {
    more(stage, &[first, second]);
}

/// Adds files at these paths; `files` stays sorted.
fn more(stage: &mut Stage, paths: &[&str]) {
    stage.offer_manifest(|bundle, manifest| {
        for path in paths {
            let file = file(bundle, path, b"x", "data");
            manifest["files"].as_array_mut().expect("a list").push(file);
        }
        let files = manifest["files"].as_array_mut().expect("a list");
        files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    });
}

/// Offers a good manifest with one piece of its text replaced.
fn text(stage: &mut Stage, from: &str, to: &str) {
    let mut bundle = Bundle::default();
    let good = manifest(&mut bundle, 1_000).to_string();
    assert!(good.contains(from), "{from} in {good}");
    stage.offer_text(bundle, &good.replacen(from, to, 1));
}

fn unit(name: &str) -> Value {
    json!({"name": name, "workload": "web", "wanted": "active", "restart_on": []})
}

const BYTES: &[Case] = &[
    case(
        "a tampered manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, true, flip);
        },
    ),
    case(
        "a truncated manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, true, cut);
        },
    ),
    case(
        "a padded manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, true, pad);
        },
    ),
    case(
        "a tampered blob",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, false, flip);
        },
    ),
    case(
        "a truncated blob",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, false, cut);
        },
    ),
    case(
        "an empty blob",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, false, Vec::clear);
        },
    ),
    case(
        "a padded blob",
        code::NOT_FLOTTA,
        "sent more than",
        |stage| {
            bytes(stage, false, pad);
        },
    ),
    case(
        "a blob in another's place",
        code::DIGEST_MISMATCH,
        "content asked for as",
        |stage| {
            bytes(stage, false, |bytes| *bytes = b"[Container]\n".to_vec());
        },
    ),
    case(
        "another range of a blob",
        code::NOT_FLOTTA,
        "sent another range of a blob",
        |stage| {
            content(stage, false, |truth| {
                let range = [("content-range", "bytes 7-9/10")];
                answer(206, &range, whole(truth.to_vec()))
            });
        },
    ),
];

const RULES: &[Case] = &[
    case(
        "a path outside, in a manifest that older agents read",
        code::MANIFEST,
        "it says schema 1, and what it uses needs 3",
        |stage| {
            path(stage, "/etc/cron.d/root");
        },
    ),
    case(
        "a path that no policy allows here",
        code::PATH_FORBIDDEN,
        "/etc/cron.d/root is forbidden on this device: its policy allows no folder",
        |stage| {
            elsewhere(stage, "/etc/cron.d/root");
        },
    ),
    case(
        "a path that no policy can allow",
        code::PATH_FORBIDDEN,
        "/etc/shadow is forbidden on this device: it is a database of accounts",
        |stage| {
            elsewhere(stage, "/etc/shadow");
        },
    ),
    case(
        "a drop-in of the agent's own unit",
        code::PATH_FORBIDDEN,
        "10.conf is forbidden on this device: it is Flotta's own, whatever a policy says",
        |stage| {
            elsewhere(stage, "/etc/systemd/system/flotta-agent.service.d/10.conf");
        },
    ),
    case(
        "a drop-in of every unit whose name begins as the agent's does",
        code::PATH_FORBIDDEN,
        "10.conf is forbidden on this device: it is Flotta's own",
        |stage| {
            elsewhere(stage, "/etc/systemd/system/flotta-.service.d/10.conf");
        },
    ),
    case(
        "the agent's own identity",
        code::PATH_FORBIDDEN,
        "key.pem is forbidden on this device: it is Flotta's own",
        |stage| {
            elsewhere(stage, "/var/lib/flotta-agent/identity/key.pem");
        },
    ),
    case(
        "the agent's own policy",
        code::PATH_FORBIDDEN,
        "/etc/flotta/policy.toml is forbidden",
        |stage| {
            elsewhere(stage, "/etc/flotta/policy.toml");
        },
    ),
    case(
        "a path that climbs",
        code::MANIFEST,
        "a `.` or `..` component",
        |stage| {
            path(stage, "/etc/containers/systemd/../../shadow");
        },
    ),
    case(
        "a relative path",
        code::MANIFEST,
        "refused: not absolute",
        |stage| {
            path(stage, "etc/containers/systemd/web.container");
        },
    ),
    case(
        "a path with a NUL",
        code::MANIFEST,
        "a character that is not printable ASCII",
        |stage| {
            path(stage, "/etc/containers/systemd/web\0.container");
        },
    ),
    case(
        "case twins",
        code::MANIFEST,
        "differs from another only in case",
        |stage| {
            twins(
                stage,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/A",
            );
        },
    ),
    case(
        "Unicode twins",
        code::MANIFEST,
        "a character that is not printable ASCII",
        |stage| {
            let (composed, apart) = (
                "/etc/flotta/workloads/web/\u{e9}",
                "/etc/flotta/workloads/web/e\u{301}",
            );
            twins(stage, composed, apart);
        },
    ),
    case(
        "one path twice",
        code::MANIFEST,
        "files are not sorted, or",
        |stage| {
            twins(
                stage,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/a",
            );
        },
    ),
    case(
        "a file and a folder of one name",
        code::MANIFEST,
        "is both a file and a folder",
        |stage| {
            twins(
                stage,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/a/b",
            );
        },
    ),
    case(
        "a file and a folder whose names fold to one",
        code::MANIFEST,
        "is both a file and a folder",
        |stage| {
            twins(
                stage,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/A/b",
            );
        },
    ),
    case("a key twice", code::MANIFEST, "duplicate field", |stage| {
        text(stage, "\"schema\":1", "\"schema\":1,\"schema\":1");
    }),
    case(
        "a key twice, further in",
        code::MANIFEST,
        "duplicate field",
        |stage| {
            text(
                stage,
                "\"mode\":\"0644\"",
                "\"mode\":\"0644\",\"mode\":\"0777\"",
            );
        },
    ),
    case("NaN", code::MANIFEST, "expected value", |stage| {
        text(
            stage,
            "\"heartbeat_seconds\":60",
            "\"heartbeat_seconds\":NaN",
        );
    }),
    case(
        "a number without end",
        code::MANIFEST,
        "number out of range",
        |stage| {
            text(
                stage,
                "\"heartbeat_seconds\":60",
                "\"heartbeat_seconds\":1e999",
            );
        },
    ),
    case(
        "a number with a fraction",
        code::MANIFEST,
        "floating point `60.0`",
        |stage| {
            text(
                stage,
                "\"heartbeat_seconds\":60",
                "\"heartbeat_seconds\":60.0",
            );
        },
    ),
    case(
        "a heartbeat of nothing",
        code::MANIFEST,
        "heartbeat_seconds must be at least 1",
        |stage| {
            text(stage, "\"heartbeat_seconds\":60", "\"heartbeat_seconds\":0");
        },
    ),
    case(
        "a million lists, one in the other",
        code::MANIFEST,
        "expected `,` or `]`",
        |stage| {
            let deep = "[".repeat(1_000_000);
            text(stage, "\"files\":[", &format!("\"files\":{deep}["));
        },
    ),
    case(
        "a million lists in what nobody reads",
        code::MANIFEST,
        "unknown field `x`",
        |stage| {
            let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
            text(
                stage,
                "\"schema\":1",
                &format!("\"schema\":1,\"x\":{open}{close}"),
            );
        },
    ),
    case(
        "an unknown key",
        code::MANIFEST,
        "unknown field `tasks`",
        |stage| {
            text(stage, "\"schema\":1", "\"schema\":1,\"tasks\":[]");
        },
    ),
    case(
        "a later shape",
        code::MANIFEST,
        "manifest has schema 99",
        |stage| {
            text(stage, "\"schema\":1", "\"schema\":99");
        },
    ),
    case(
        "text after the end",
        code::MANIFEST,
        "trailing characters",
        |stage| {
            let mut bundle = Bundle::default();
            let good = manifest(&mut bundle, 1_000).to_string();
            stage.offer_text(bundle, &format!("{good}{{}}"));
        },
    ),
    case(
        "bytes that are no text",
        code::MANIFEST,
        "expected value",
        |stage| {
            let bundle = Bundle::default();
            stage.offer_text(bundle, "\u{0}\u{fffd}");
        },
    ),
    case(
        "a set-id bit",
        code::MANIFEST,
        "mode must be four octal digits",
        |stage| {
            text(stage, "\"0644\"", "\"4755\"");
        },
    ),
    case(
        "an owner that is an option",
        code::MANIFEST,
        "is not an account name",
        |stage| {
            text(stage, "\"owner\":\"root\"", "\"owner\":\"-root\"");
        },
    ),
    case(
        "an owner longer than a report, and longer still when it is quoted",
        code::MANIFEST,
        "breaks a rule: ",
        |stage| {
            let long = "\u{7f}".repeat(3 << 20);
            text(
                stage,
                "\"owner\":\"root\"",
                &format!("\"owner\":\"{long}\""),
            );
        },
    ),
    case(
        "a unit that is a path",
        code::MANIFEST,
        "is not a unit name",
        |stage| {
            text(
                stage,
                "\"name\":\"web.service\"",
                "\"name\":\"../web.service\"",
            );
        },
    ),
    case(
        "a unit that restarts on a file of the host",
        code::MANIFEST,
        "which is not a file of the manifest",
        |stage| {
            text(
                stage,
                "\"restart_on\":[",
                "\"restart_on\":[\"/etc/containers/systemd/host.container\",",
            );
        },
    ),
    case(
        "an image that is an option",
        code::MANIFEST,
        "is not an image reference",
        |stage| {
            text(
                stage,
                "\"reference\":\"registry",
                "\"reference\":\"--registry",
            );
        },
    ),
    case(
        "a file larger than any may be",
        code::MANIFEST,
        "is larger than 16777216 bytes",
        |stage| {
            stage
                .offer_manifest(|_, manifest| manifest["files"][0]["size"] = (17_u32 << 20).into());
        },
    ),
    case(
        "a file of less than no bytes",
        code::MANIFEST,
        "integer `-1`",
        |stage| {
            stage.offer_manifest(|_, manifest| manifest["files"][0]["size"] = (-1).into());
        },
    ),
    case(
        "a file that is longer than it says",
        code::NOT_FLOTTA,
        "sent more than",
        |stage| {
            stage.offer_manifest(|_, manifest| manifest["files"][1]["size"] = 3.into());
        },
    ),
    case(
        "more units than any device has",
        code::MANIFEST,
        "2001 units",
        |stage| {
            stage.offer_manifest(|_, manifest| {
                let names = (0..=MAX_UNITS).map(|n| format!("u{n:05}.service"));
                manifest["units"] = names.map(|name| unit(&name)).collect();
            });
        },
    ),
    case(
        "a manifest longer than any may be",
        code::NOT_FLOTTA,
        "sent more than",
        |stage| {
            let long = " ".repeat(MAX_BYTES);
            text(stage, "{", &format!("{{{long}"));
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn content_that_was_not_signed_is_refused() {
    crate::play("content", BYTES).await;
}

#[tokio::test(start_paused = true)]
async fn manifests_that_break_a_rule_are_refused_though_they_are_signed() {
    crate::play("manifests", RULES).await;
}

static UNITS: AtomicU64 = AtomicU64::new(0);
static TRIES: AtomicU64 = AtomicU64::new(0);

/// Ten million units are never in memory at once, on either side: the device hangs up at its limit.
#[tokio::test(start_paused = true)]
async fn ten_million_units_are_cut_off_at_the_limit() {
    fn lie(stage: &mut Stage) {
        content(stage, true, |_| {
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
    crate::play("units", &case).await;
    let (made, tries) = (UNITS.load(Ordering::Relaxed), TRIES.load(Ordering::Relaxed));
    println!("{made} units were sent in {tries} tries");
    assert!(made / tries < 200_000, "{made} units in {tries} tries");
}

/// The disk fills up in the middle of a blob: that is reported, what was fetched stays, and once there is space the device
/// continues by itself.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_in_the_middle_of_a_blob_is_named_and_heals() {
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let before = stage.state();
    stage.plan(FIRST + 1);
    let folder = stage.config.state.join("blobs/sha256");
    let missing = stage.server.world.borrow().blobs.clone().into_keys();
    let files = missing.filter(|digest| *digest != stage.truth.manifest);
    let files: Vec<_> = files.map(|digest| folder.join(digest.hex())).collect();
    let reports = stage.server.world.borrow().reports.len();
    stage
        .play(async {
            stage
                .until("it runs again", |world| world.reports.len() > reports)
                .await;
            let files = files.iter().filter(|blob| !blob.exists());
            let traps: Vec<_> = files.map(|blob| blob.with_extension("part")).collect();
            assert_eq!(traps.len(), 2);
            for trap in &traps {
                std::os::unix::fs::symlink("/dev/full", trap).expect("a link");
            }
            stage.heal();
            let full = |world: &World| says(world, "Failed", code::LEDGER.id);
            stage.until("the disk is full", full).await;
            assert!(stage.state() == before, "nothing is touched");
            let manifest = folder.join(stage.truth.manifest.hex());
            assert!(manifest.exists(), "what came stays");
            for trap in &traps {
                std::fs::remove_file(trap).expect("there is space again");
            }
            stage.well().await;
        })
        .await;
    let world = stage.server.world.borrow();
    let mut events = world.reports.iter().flat_map(|report| &report.events);
    let said = events.find(|event| event.message.contains(code::LEDGER.id));
    let said = &said.expect("an event").message;
    assert!(said.contains("No space left on device"), "{said}");
}

/// The disk has no space for the manifest itself: blobs of a superseded release are removed for it, those in use are not.
#[tokio::test(start_paused = true)]
async fn a_manifest_takes_the_place_of_what_nothing_needs() {
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    // another manifest with the same files, which the server no longer has
    let mut bundle = Bundle::default();
    let mut next = manifest(&mut bundle, FIRST);
    next["settings"]["heartbeat_seconds"] = 61.into();
    stage.change(|world| world.blobs.clear());
    stage.truth = stage.signed(FIRST + 1, Bundle::default(), &next.to_string());
    let folder = stage.config.state.join("blobs/sha256");
    let part = |digest: Digest| folder.join(format!("{}.part", digest.hex()));
    let left = part(Digest::of(b"superseded"));
    std::fs::write(&left, "half of it").expect("written");
    let full = part(stage.truth.manifest);
    std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
    stage.heal();
    stage.play(stage.well()).await;
    assert!(!left.exists() && !full.is_symlink());
    let world = stage.server.world.borrow();
    let mut events = world.reports.iter().flat_map(|report| &report.events);
    let trouble = events.find(|event| event.message.contains(code::LEDGER.id));
    assert_eq!(trouble, None);
}

/// A download that broke off after its last byte and before its check is complete, and must not be requested past its end for
/// ever.
#[tokio::test(start_paused = true)]
async fn a_blob_that_came_whole_and_was_not_checked_is_no_trap() {
    for spoilt in [false, true] {
        let mut stage = Stage::new().await;
        stage.heal();
        stage.play_first().await;
        stage.plan(FIRST + 1);
        let blobs = stage.server.world.borrow().blobs.clone();
        for (digest, mut content) in blobs {
            if spoilt {
                content[0] ^= 1;
            }
            let folder = stage.config.state.join("blobs/sha256");
            let name = format!("{}.part", Digest::hex(&digest));
            std::fs::write(folder.join(name), content).expect("written");
        }
        stage.heal();
        let begun = tokio::time::Instant::now();
        stage.play(stage.well()).await;
        let spent = begun.elapsed();
        assert!(spent < Duration::from_secs(60), "{spoilt}: {spent:?}");
    }
}
