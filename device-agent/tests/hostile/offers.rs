//! Offers that no signer meant.

use flotta_bundle::code;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release;
use flotta_bundle::root;
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf, Manifest};

use crate::bench::{Bench, FIRST, says};
use crate::fleet::{Bundle, Fleet, OURS, device, key, manifest};
use crate::{Case, case};

/// An envelope with one field changed: what a server can do without a key.
fn bend(envelope: &Envelope, change: impl FnOnce(&mut serde_json::Value)) -> Envelope {
    let mut value = serde_json::to_value(envelope).expect("JSON");
    change(&mut value);
    serde_json::from_value(value).expect("an envelope")
}

/// A release signed over these bytes.
fn of_bytes(bench: &Bench, payload: &str) -> Envelope {
    let keys = [&bench.fleet.release_key];
    Envelope::sign(release::PAYLOAD_TYPE, payload.as_bytes(), &keys)
}

/// Offers this device a malformed leaf with a valid signature.
fn with_leaf(bench: &mut Bench, leaf: &str) {
    let wanted = bench.truth.manifest;
    let mut leaves = Fleet::leaves(wanted);
    leaves[OURS] = leaf.as_bytes().to_vec();
    let bad = bench.fleet.offer_of(FIRST + 1, leaves, OURS, wanted);
    bench.publish(FIRST + 2);
    bench.offer(bad, "\"bad\"");
}

/// The honest release's payload as text.
fn payload(bench: &Bench) -> String {
    let tree = Tree::new(Fleet::leaves(bench.truth.manifest));
    let release = bench.fleet.release(FIRST + 1, &tree);
    String::from_utf8(release.encode()).expect("text")
}

const CASES: &[Case] = &[
    case(
        "a tampered release",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |bench| {
            let other = bench.fleet.offer(FIRST + 9, bench.truth.manifest).release;
            let other = serde_json::to_value(&other).expect("JSON");
            bench.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["payload"] = other["payload"].clone());
            });
        },
    ),
    case(
        "a release without signatures",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |bench| {
            bench.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["signatures"] = [(); 0].into());
            });
        },
    ),
    case(
        "a release by an unknown key",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |bench| {
            let release = payload(bench);
            let envelope = Envelope::sign(release::PAYLOAD_TYPE, release.as_bytes(), &[&key()]);
            bench.lie(|offer| offer.release = envelope);
        },
    ),
    case(
        "a release by a key revoked with it",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |bench| {
            let next = bench.fleet.root(2, &key());
            let next = bench.fleet.sign_root(&next);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a wrong proof",
        code::PROOF,
        "the proof does not lead",
        |bench| {
            bench.lie(|offer| offer.proof[0] = Digest::of(b"other"));
        },
    ),
    case(
        "a missing proof",
        code::PROOF,
        "the proof does not lead",
        |bench| {
            bench.lie(|offer| offer.proof.clear());
        },
    ),
    case(
        "an endless proof",
        code::PROOF,
        "the proof does not lead",
        |bench| {
            bench.lie(|offer| offer.proof = vec![Digest::of(b"x"); 10_000]);
        },
    ),
    case(
        "a proof for another leaf",
        code::PROOF,
        "the proof does not lead",
        |bench| {
            let leaves = Fleet::leaves(bench.truth.manifest);
            let proof = Tree::new(leaves).prove(OURS as u64 + 1);
            bench.lie(|offer| offer.proof = proof.expect("a proof"));
        },
    ),
    case(
        "a place past the end of the tree",
        code::PROOF,
        "the proof does not lead",
        |bench| {
            bench.lie(|offer| offer.index = u64::MAX);
        },
    ),
    case(
        "another device's leaf",
        code::WRONG_DEVICE,
        "the leaf is of default/shop-3",
        |bench| {
            let wanted = bench.truth.manifest;
            let leaves = Fleet::leaves(wanted);
            let other = bench.fleet.offer_of(FIRST + 1, leaves, OURS + 1, wanted);
            bench.lie(|offer| *offer = other);
        },
    ),
    case(
        "a lower sequence",
        code::OLDER,
        "is older than 5",
        |bench| {
            let older = bench.fleet.offer(FIRST - 1, bench.truth.manifest);
            bench.lie(|offer| *offer = older);
        },
    ),
    case(
        "one sequence with another root",
        code::EQUIVOCATION,
        "was accepted under th",
        |bench| {
            let other = bench.fleet.offer(FIRST, bench.truth.manifest);
            bench.lie(|offer| *offer = other);
        },
    ),
    case(
        "an earlier digest that the leaf does not name",
        code::NOT_IN_LEAF,
        "the leaf does not name manifest",
        |bench| {
            // a valid one that this device had before
            let first = manifest(&mut Bundle::default(), FIRST).to_string();
            let first = Manifest::parse(first.as_bytes()).expect("a manifest");
            let first = Digest::of(&first.encode());
            assert!(bench.server.state.borrow().blobs.contains_key(&first));
            bench.lie(|offer| offer.manifest = first);
        },
    ),
    case(
        "a trust root by too few keys",
        code::ROOT_CHAIN,
        "1 of the 2 signatures",
        |bench| {
            let next = bench.fleet.root(2, &bench.fleet.release_key);
            let few = [&bench.fleet.root_keys[0]];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &few);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root by one key twice",
        code::ROOT_CHAIN,
        "1 of the 2 signatures",
        |bench| {
            let next = bench.fleet.root(2, &bench.fleet.release_key);
            let same = [&bench.fleet.root_keys[0]; 2];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &same);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root by the key that signs releases",
        code::ROOT_CHAIN,
        "0 of the 2 signatures",
        |bench| {
            let next = bench.fleet.root(2, &bench.fleet.release_key);
            let wrong = [&bench.fleet.release_key];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &wrong);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root that skips a version",
        code::ROOT_CHAIN,
        "version 3 does not follow version 1",
        |bench| {
            let next = bench.fleet.root(3, &bench.fleet.release_key);
            let next = bench.fleet.sign_root(&next);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root of another fleet",
        code::WRONG_FLEET,
        "trust root of fleet elsewhere",
        |bench| {
            let mut next = bench.fleet.root(2, &bench.fleet.release_key);
            next.fleet = "elsewhere".parse().expect("a name");
            let next = bench.fleet.sign_root(&next);
            bench.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a release of another fleet",
        code::WRONG_FLEET,
        "release of fleet elsewhere",
        |bench| {
            let release = payload(bench).replace("\"shops\"", "\"elsewhere\"");
            let release = of_bytes(bench, &release);
            bench.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a trust root for a release",
        code::ENVELOPE,
        "the envelope holds",
        |bench| {
            let bytes = bench.fleet.trust.encode();
            let keys = [&bench.fleet.release_key];
            let other = Envelope::sign(root::PAYLOAD_TYPE, &bytes, &keys);
            bench.lie(|offer| offer.release = other);
        },
    ),
    case(
        "a trust root called a release",
        code::ENVELOPE,
        "unknown field `version`",
        |bench| {
            let text = String::from_utf8(bench.fleet.trust.encode()).expect("text");
            let other = of_bytes(bench, &text);
            bench.lie(|offer| offer.release = other);
        },
    ),
    case(
        "a release whose type was changed",
        code::ENVELOPE,
        "the envelope holds",
        |bench| {
            bench.lie(|offer| {
                offer.release = bend(&offer.release, |e| {
                    e["payloadType"] = root::PAYLOAD_TYPE.into();
                });
            });
        },
    ),
    case(
        "a signed release with a key twice",
        code::ENVELOPE,
        "duplicate field",
        |bench| {
            let release = payload(bench).replacen('{', "{\"sequence\":1,", 1);
            let release = of_bytes(bench, &release);
            bench.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a signed release of a later shape",
        code::ENVELOPE,
        "release has schema 2",
        |bench| {
            let release = payload(bench).replace("\"schema\":1", "\"schema\":2");
            let release = of_bytes(bench, &release);
            bench.lie(|offer| offer.release = release);
        },
    ),
    case(
        "seventeen signatures",
        code::ENVELOPE,
        "17 signatures",
        |bench| {
            let release = payload(bench);
            let many = [&bench.fleet.release_key; 17];
            let release = Envelope::sign(release::PAYLOAD_TYPE, release.as_bytes(), &many);
            bench.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a payload that is not base64",
        code::ENVELOPE,
        "invalid length",
        |bench| {
            bench.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["payload"] = "!".into());
            });
        },
    ),
    case(
        "a proven leaf that is none",
        code::ENVELOPE,
        "missing field `device`",
        |bench| {
            with_leaf(bench, "{}");
        },
    ),
    case(
        "a proven leaf with a key twice",
        code::ENVELOPE,
        "duplicate field",
        |bench| {
            let leaf = Leaf::following(device(OURS), bench.truth.manifest, None).encode();
            let leaf = String::from_utf8(leaf).expect("text");
            with_leaf(bench, &leaf.replacen('{', "{\"earlier\":[],", 1));
        },
    ),
    case(
        "a proven leaf with five earlier manifests",
        code::ENVELOPE,
        "names 5 earlier manifests",
        |bench| {
            let leaf = Leaf {
                device: device(OURS),
                manifest: bench.truth.manifest,
                earlier: (0..5).map(|n| Digest::of(&[n])).collect(),
            };
            with_leaf(bench, &String::from_utf8(leaf.encode()).expect("text"));
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn offers_that_no_signer_meant_are_refused() {
    crate::run("offers", CASES).await;
}

/// An old key is no longer accepted once the device has seen a trust root without it, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_revoked_key_stays_revoked() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let old = std::mem::replace(&mut bench.fleet.release_key, key());
    let root = bench.fleet.root(2, &bench.fleet.release_key);
    let root = bench.fleet.sign_root(&root);
    bench.publish(FIRST + 1);
    bench.truth.roots = vec![root.clone()];
    bench.become_honest();
    bench.run(bench.well()).await;
    let before = bench.state();
    let new = std::mem::replace(&mut bench.fleet.release_key, old);
    bench.publish(FIRST + 2);
    let by_old_key: Offer = bench.truth.clone();
    bench.offer(by_old_key, "\"old key\"");
    bench
        .run(async {
            let refused = |state: &_| says(state, "Refused", code::SIGNATURE.id);
            bench.until("refused", refused).await;
        })
        .await;
    assert!(bench.state() == before, "nothing is touched");
    bench.fleet.release_key = new;
    bench.publish(FIRST + 2);
    // like a server that sends all its roots
    bench.truth.roots = vec![root];
    bench.become_honest();
    bench.run(bench.well()).await;
}
