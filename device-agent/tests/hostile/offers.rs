//! Offers that no signer meant.

use flotta_bundle::code;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release;
use flotta_bundle::root;
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf, Manifest};

use crate::fleet::{Bundle, Fleet, OURS, device, key, manifest};
use crate::stage::{FIRST, Stage, says};
use crate::{Case, case};

/// An envelope with one field changed: what a server can do without a key.
fn bend(envelope: &Envelope, change: impl FnOnce(&mut serde_json::Value)) -> Envelope {
    let mut value = serde_json::to_value(envelope).expect("JSON");
    change(&mut value);
    serde_json::from_value(value).expect("an envelope")
}

/// A release signed over these bytes.
fn of_bytes(stage: &Stage, payload: &str) -> Envelope {
    let keys = [&stage.fleet.release_key];
    Envelope::sign(release::PAYLOAD_TYPE, payload.as_bytes(), &keys)
}

/// Offers this device a malformed leaf with a valid signature.
fn with_leaf(stage: &mut Stage, leaf: &str) {
    let wanted = stage.truth.manifest;
    let mut leaves = Fleet::leaves(wanted);
    leaves[OURS] = leaf.as_bytes().to_vec();
    let bad = stage.fleet.offer_of(FIRST + 1, leaves, OURS, wanted);
    stage.plan(FIRST + 2);
    stage.offer(bad, "\"bad\"");
}

/// The honest release's payload as text.
fn payload(stage: &Stage) -> String {
    let tree = Tree::new(Fleet::leaves(stage.truth.manifest));
    let release = stage.fleet.release(FIRST + 1, &tree);
    String::from_utf8(release.encode()).expect("text")
}

const CASES: &[Case] = &[
    case(
        "a tampered release",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |stage| {
            let other = stage.fleet.offer(FIRST + 9, stage.truth.manifest).release;
            let other = serde_json::to_value(&other).expect("JSON");
            stage.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["payload"] = other["payload"].clone());
            });
        },
    ),
    case(
        "a release without signatures",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |stage| {
            stage.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["signatures"] = [(); 0].into());
            });
        },
    ),
    case(
        "a release by an unknown key",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |stage| {
            let release = payload(stage);
            let envelope = Envelope::sign(release::PAYLOAD_TYPE, release.as_bytes(), &[&key()]);
            stage.lie(|offer| offer.release = envelope);
        },
    ),
    case(
        "a release by a key revoked with it",
        code::SIGNATURE,
        "0 of the 1 signatures",
        |stage| {
            let next = stage.fleet.root(2, &key());
            let next = stage.fleet.sign_root(&next);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a wrong proof",
        code::PROOF,
        "the proof does not lead",
        |stage| {
            stage.lie(|offer| offer.proof[0] = Digest::of(b"other"));
        },
    ),
    case(
        "a missing proof",
        code::PROOF,
        "the proof does not lead",
        |stage| {
            stage.lie(|offer| offer.proof.clear());
        },
    ),
    case(
        "an endless proof",
        code::PROOF,
        "the proof does not lead",
        |stage| {
            stage.lie(|offer| offer.proof = vec![Digest::of(b"x"); 10_000]);
        },
    ),
    case(
        "a proof for another leaf",
        code::PROOF,
        "the proof does not lead",
        |stage| {
            let leaves = Fleet::leaves(stage.truth.manifest);
            let proof = Tree::new(leaves).prove(OURS as u64 + 1);
            stage.lie(|offer| offer.proof = proof.expect("a proof"));
        },
    ),
    case(
        "a place past the end of the tree",
        code::PROOF,
        "the proof does not lead",
        |stage| {
            stage.lie(|offer| offer.index = u64::MAX);
        },
    ),
    case(
        "another device's leaf",
        code::WRONG_DEVICE,
        "the leaf is of default/shop-3",
        |stage| {
            let wanted = stage.truth.manifest;
            let leaves = Fleet::leaves(wanted);
            let other = stage.fleet.offer_of(FIRST + 1, leaves, OURS + 1, wanted);
            stage.lie(|offer| *offer = other);
        },
    ),
    case(
        "a lower sequence",
        code::OLDER,
        "is older than 5",
        |stage| {
            let older = stage.fleet.offer(FIRST - 1, stage.truth.manifest);
            stage.lie(|offer| *offer = older);
        },
    ),
    case(
        "one sequence with another root",
        code::EQUIVOCATION,
        "was accepted under th",
        |stage| {
            let other = stage.fleet.offer(FIRST, stage.truth.manifest);
            stage.lie(|offer| *offer = other);
        },
    ),
    case(
        "an earlier digest that the leaf does not name",
        code::NOT_IN_LEAF,
        "the leaf does not name manifest",
        |stage| {
            // a valid one that this device had before
            let first = manifest(&mut Bundle::default(), FIRST).to_string();
            let first = Manifest::parse(first.as_bytes()).expect("a manifest");
            let first = Digest::of(&first.encode());
            assert!(stage.server.world.borrow().blobs.contains_key(&first));
            stage.lie(|offer| offer.manifest = first);
        },
    ),
    case(
        "a trust root by too few keys",
        code::ROOT_CHAIN,
        "1 of the 2 signatures",
        |stage| {
            let next = stage.fleet.root(2, &stage.fleet.release_key);
            let few = [&stage.fleet.root_keys[0]];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &few);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root by one key twice",
        code::ROOT_CHAIN,
        "1 of the 2 signatures",
        |stage| {
            let next = stage.fleet.root(2, &stage.fleet.release_key);
            let same = [&stage.fleet.root_keys[0]; 2];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &same);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root by the key that signs releases",
        code::ROOT_CHAIN,
        "0 of the 2 signatures",
        |stage| {
            let next = stage.fleet.root(2, &stage.fleet.release_key);
            let wrong = [&stage.fleet.release_key];
            let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &wrong);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root that skips a version",
        code::ROOT_CHAIN,
        "version 3 does not follow version 1",
        |stage| {
            let next = stage.fleet.root(3, &stage.fleet.release_key);
            let next = stage.fleet.sign_root(&next);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a trust root of another fleet",
        code::WRONG_FLEET,
        "trust root of fleet elsewhere",
        |stage| {
            let mut next = stage.fleet.root(2, &stage.fleet.release_key);
            next.fleet = "elsewhere".parse().expect("a name");
            let next = stage.fleet.sign_root(&next);
            stage.lie(|offer| offer.roots = vec![next]);
        },
    ),
    case(
        "a release of another fleet",
        code::WRONG_FLEET,
        "release of fleet elsewhere",
        |stage| {
            let release = payload(stage).replace("\"shops\"", "\"elsewhere\"");
            let release = of_bytes(stage, &release);
            stage.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a trust root for a release",
        code::ENVELOPE,
        "the envelope holds",
        |stage| {
            let bytes = stage.fleet.trust.encode();
            let keys = [&stage.fleet.release_key];
            let other = Envelope::sign(root::PAYLOAD_TYPE, &bytes, &keys);
            stage.lie(|offer| offer.release = other);
        },
    ),
    case(
        "a trust root called a release",
        code::ENVELOPE,
        "unknown field `version`",
        |stage| {
            let text = String::from_utf8(stage.fleet.trust.encode()).expect("text");
            let other = of_bytes(stage, &text);
            stage.lie(|offer| offer.release = other);
        },
    ),
    case(
        "a release whose type was changed",
        code::ENVELOPE,
        "the envelope holds",
        |stage| {
            stage.lie(|offer| {
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
        |stage| {
            let release = payload(stage).replacen('{', "{\"sequence\":1,", 1);
            let release = of_bytes(stage, &release);
            stage.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a signed release of a later shape",
        code::ENVELOPE,
        "release has schema 2",
        |stage| {
            let release = payload(stage).replace("\"schema\":1", "\"schema\":2");
            let release = of_bytes(stage, &release);
            stage.lie(|offer| offer.release = release);
        },
    ),
    case(
        "seventeen signatures",
        code::ENVELOPE,
        "17 signatures",
        |stage| {
            let release = payload(stage);
            let many = [&stage.fleet.release_key; 17];
            let release = Envelope::sign(release::PAYLOAD_TYPE, release.as_bytes(), &many);
            stage.lie(|offer| offer.release = release);
        },
    ),
    case(
        "a payload that is not base64",
        code::ENVELOPE,
        "invalid length",
        |stage| {
            stage.lie(|offer| {
                offer.release = bend(&offer.release, |e| e["payload"] = "!".into());
            });
        },
    ),
    case(
        "a proven leaf that is none",
        code::ENVELOPE,
        "missing field `device`",
        |stage| {
            with_leaf(stage, "{}");
        },
    ),
    case(
        "a proven leaf with a key twice",
        code::ENVELOPE,
        "duplicate field",
        |stage| {
            let leaf = Leaf::following(device(OURS), stage.truth.manifest, None).encode();
            let leaf = String::from_utf8(leaf).expect("text");
            with_leaf(stage, &leaf.replacen('{', "{\"earlier\":[],", 1));
        },
    ),
    case(
        "a proven leaf with five earlier manifests",
        code::ENVELOPE,
        "names 5 earlier manifests",
        |stage| {
            let leaf = Leaf {
                device: device(OURS),
                manifest: stage.truth.manifest,
                earlier: (0..5).map(|n| Digest::of(&[n])).collect(),
            };
            with_leaf(stage, &String::from_utf8(leaf.encode()).expect("text"));
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn offers_that_no_signer_meant_are_refused() {
    crate::play("offers", CASES).await;
}

/// An old key is no longer accepted once the device has seen a trust root without it, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_revoked_key_stays_revoked() {
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let old = std::mem::replace(&mut stage.fleet.release_key, key());
    let root = stage.fleet.root(2, &stage.fleet.release_key);
    let root = stage.fleet.sign_root(&root);
    stage.plan(FIRST + 1);
    stage.truth.roots = vec![root.clone()];
    stage.heal();
    stage.play(stage.well()).await;
    let before = stage.state();
    let new = std::mem::replace(&mut stage.fleet.release_key, old);
    stage.plan(FIRST + 2);
    let by_old_key: Offer = stage.truth.clone();
    stage.offer(by_old_key, "\"old key\"");
    stage
        .play(async {
            let refused = |world: &_| says(world, "Refused", code::SIGNATURE.id);
            stage.until("refused", refused).await;
        })
        .await;
    assert!(stage.state() == before, "nothing is touched");
    stage.fleet.release_key = new;
    stage.plan(FIRST + 2);
    // like a server that sends all its roots
    stage.truth.roots = vec![root];
    stage.heal();
    stage.play(stage.well()).await;
}
