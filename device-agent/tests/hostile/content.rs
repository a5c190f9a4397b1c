//! Content that is not what was signed, and manifests that were signed and break a rule.

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
use crate::server::{Answer, answer, whole};
use crate::stage::{FIRST, Stage};
use crate::{Case, case};

/// The server answers a request for the manifest (or else for the largest other blob) of the truth like this.
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

/// The same with other bytes in a good answer.
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

fn path(stage: &mut Stage, path: &'static str) {
    stage.offer_manifest(|_, manifest| manifest["files"][0]["path"] = path.into());
}

/// Two more files, at these paths; `files` stays sorted.
fn twins(stage: &mut Stage, first: &'static str, second: &'static str) {
    stage.offer_manifest(|bundle, manifest| {
        for path in [first, second] {
            let file = file(bundle, path, b"x", "data");
            manifest["files"].as_array_mut().expect("a list").push(file);
        }
        let files = manifest["files"].as_array_mut().expect("a list");
        files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    });
}

/// A good manifest as text, with one piece of it replaced.
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
    case("a tampered manifest", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, true, flip);
    }),
    case("a truncated manifest", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, true, cut);
    }),
    case("a padded manifest", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, true, pad);
    }),
    case("a tampered blob", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, false, flip);
    }),
    case("a truncated blob", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, false, cut);
    }),
    case("an empty blob", code::DIGEST_MISMATCH, |stage| {
        bytes(stage, false, Vec::clear);
    }),
    case("a padded blob", code::NOT_FLOTTA, |stage| {
        bytes(stage, false, pad);
    }),
    case(
        "a blob in another's place",
        code::DIGEST_MISMATCH,
        |stage| {
            bytes(stage, false, |bytes| *bytes = b"[Container]\n".to_vec());
        },
    ),
    case("another part of a blob", code::NOT_FLOTTA, |stage| {
        content(stage, false, |truth| {
            let range = [("content-range", "bytes 7-9/10")];
            answer(206, &range, whole(truth.to_vec()))
        });
    }),
];

const RULES: &[Case] = &[
    case("a path outside", code::MANIFEST, |stage| {
        path(stage, "/etc/cron.d/root");
    }),
    case("a path that climbs", code::MANIFEST, |stage| {
        path(stage, "/etc/containers/systemd/../../shadow");
    }),
    case("a relative path", code::MANIFEST, |stage| {
        path(stage, "etc/containers/systemd/web.container");
    }),
    case("a path with a NUL", code::MANIFEST, |stage| {
        path(stage, "/etc/containers/systemd/web\0.container");
    }),
    case("case twins", code::MANIFEST, |stage| {
        twins(
            stage,
            "/etc/flotta/workloads/web/a",
            "/etc/flotta/workloads/web/A",
        );
    }),
    case("Unicode twins", code::MANIFEST, |stage| {
        let (composed, apart) = (
            "/etc/flotta/workloads/web/\u{e9}",
            "/etc/flotta/workloads/web/e\u{301}",
        );
        twins(stage, composed, apart);
    }),
    case("one path twice", code::MANIFEST, |stage| {
        twins(
            stage,
            "/etc/flotta/workloads/web/a",
            "/etc/flotta/workloads/web/a",
        );
    }),
    case("a file and a folder of one name", code::MANIFEST, |stage| {
        twins(
            stage,
            "/etc/flotta/workloads/web/a",
            "/etc/flotta/workloads/web/a/b",
        );
    }),
    case(
        "a file and a folder whose names fold to one",
        code::MANIFEST,
        |stage| {
            twins(
                stage,
                "/etc/flotta/workloads/web/a",
                "/etc/flotta/workloads/web/A/b",
            );
        },
    ),
    case("a key twice", code::MANIFEST, |stage| {
        text(stage, "\"schema\":1", "\"schema\":1,\"schema\":1");
    }),
    case("a key twice, further in", code::MANIFEST, |stage| {
        text(
            stage,
            "\"mode\":\"0644\"",
            "\"mode\":\"0644\",\"mode\":\"0777\"",
        );
    }),
    case("NaN", code::MANIFEST, |stage| {
        text(
            stage,
            "\"heartbeat_seconds\":60",
            "\"heartbeat_seconds\":NaN",
        );
    }),
    case("a number without end", code::MANIFEST, |stage| {
        text(
            stage,
            "\"heartbeat_seconds\":60",
            "\"heartbeat_seconds\":1e999",
        );
    }),
    case("a number with a fraction", code::MANIFEST, |stage| {
        text(
            stage,
            "\"heartbeat_seconds\":60",
            "\"heartbeat_seconds\":60.0",
        );
    }),
    case("a heartbeat of nothing", code::MANIFEST, |stage| {
        text(stage, "\"heartbeat_seconds\":60", "\"heartbeat_seconds\":0");
    }),
    case(
        "a million lists, one in the other",
        code::MANIFEST,
        |stage| {
            let deep = "[".repeat(1_000_000);
            text(stage, "\"files\":[", &format!("\"files\":{deep}["));
        },
    ),
    case(
        "a million lists in what nobody reads",
        code::MANIFEST,
        |stage| {
            let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
            text(
                stage,
                "\"schema\":1",
                &format!("\"schema\":1,\"x\":{open}{close}"),
            );
        },
    ),
    case("an unknown key", code::MANIFEST, |stage| {
        text(stage, "\"schema\":1", "\"schema\":1,\"tasks\":[]");
    }),
    case("a later shape", code::MANIFEST, |stage| {
        text(stage, "\"schema\":1", "\"schema\":2");
    }),
    case("text after the end", code::MANIFEST, |stage| {
        text(stage, "{", "{}{");
    }),
    case("bytes that are no text", code::MANIFEST, |stage| {
        let bundle = Bundle::default();
        stage.offer_text(bundle, "\u{0}\u{fffd}");
    }),
    case("a set-id bit", code::MANIFEST, |stage| {
        text(stage, "\"0644\"", "\"4755\"");
    }),
    case("an owner that is an option", code::MANIFEST, |stage| {
        text(stage, "\"owner\":\"root\"", "\"owner\":\"-root\"");
    }),
    case("an owner longer than a report", code::MANIFEST, |stage| {
        let long = "x".repeat(2 << 20);
        text(
            stage,
            "\"owner\":\"root\"",
            &format!("\"owner\":\"{long}\""),
        );
    }),
    case(
        "an owner longer than a report, and longer still when it is quoted",
        code::MANIFEST,
        |stage| {
            let long = "\u{7f}".repeat(3 << 20);
            text(
                stage,
                "\"owner\":\"root\"",
                &format!("\"owner\":\"{long}\""),
            );
        },
    ),
    case("a unit that is a path", code::MANIFEST, |stage| {
        text(
            stage,
            "\"name\":\"web.service\"",
            "\"name\":\"../web.service\"",
        );
    }),
    case(
        "a unit that restarts on a file of the host",
        code::MANIFEST,
        |stage| {
            text(
                stage,
                "\"restart_on\":[",
                "\"restart_on\":[\"/etc/containers/systemd/host.container\",",
            );
        },
    ),
    case("an image that is an option", code::MANIFEST, |stage| {
        text(
            stage,
            "\"reference\":\"registry",
            "\"reference\":\"--registry",
        );
    }),
    case("a file larger than any may be", code::MANIFEST, |stage| {
        stage.offer_manifest(|_, manifest| manifest["files"][0]["size"] = (17_u32 << 20).into());
    }),
    case("a file of less than no bytes", code::MANIFEST, |stage| {
        stage.offer_manifest(|_, manifest| manifest["files"][0]["size"] = (-1).into());
    }),
    case(
        "a file that is longer than it says",
        code::NOT_FLOTTA,
        |stage| {
            stage.offer_manifest(|_, manifest| manifest["files"][1]["size"] = 3.into());
        },
    ),
    case("more units than any device has", code::MANIFEST, |stage| {
        stage.offer_manifest(|_, manifest| {
            let names = (0..=MAX_UNITS).map(|n| format!("u{n:05}.service"));
            manifest["units"] = names.map(|name| unit(&name)).collect();
        });
    }),
    case(
        "a manifest longer than any may be",
        code::NOT_FLOTTA,
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

/// Ten million units are never there at once, on neither side: the device hangs up at its limit.
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
    let case = [case("ten million units", code::NOT_FLOTTA, lie)];
    crate::play("units", &case).await;
    let (made, tries) = (UNITS.load(Ordering::Relaxed), TRIES.load(Ordering::Relaxed));
    println!("{made} units were sent in {tries} tries");
    assert!(made / tries < 200_000, "{made} units in {tries} tries");
}

/// What was cut off after its last byte and before it was checked is whole, and must not be asked for past its end for ever.
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
            let folder = stage.settings.state.join("blobs/sha256");
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
