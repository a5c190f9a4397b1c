//! Flips every bit of what a device receives, one at a time: only what was signed is accepted.
//!
//! Two parts of an offer are signed by nobody, and a flip there is harmless:
//! - `keyid`, the hint next to a signature. DSSE says that it is never trusted; the trust root decides which keys count.
//! - the *name* of the list `roots` while the list is empty. An empty list has no signed content, and unknown fields are allowed
//!   because a later server may send more.
//!
//! Harmless means that the accepted content is, to the last byte, that of the offer without the flip.

use std::ops::Range;

use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::verify::{Accepted, Memory, verify_blob, verify_manifest, verify_offer};
use flotta_bundle::wire::Offer;
use flotta_bundle::{DeviceName, Digest, Leaf, Manifest};
use jiff::Timestamp;

const MANIFEST: &str = r#"{"schema":1,"files":[{"path":"/etc/containers/systemd/web.container","mode":"0644","owner":"root","group":"root","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":24,"kind":"quadlet"}],"units":[{"name":"web.service","workload":"web","wanted":"active","restart_on":["/etc/containers/systemd/web.container"]}],"images":[],"settings":{"heartbeat_seconds":60}}"#;

struct Fleet {
    old: SigningKey,
    new: SigningKey,
    memory: Memory,
}

fn device(number: usize) -> DeviceName {
    format!("shop-{number}").parse().expect("a name")
}

impl Fleet {
    fn new() -> Self {
        let key = || SigningKey::generate().expect("a key").0;
        let (old, new) = (key(), key());
        let role = Role::any_of([old.public()]);
        let trust = TrustRoot {
            schema: root::SCHEMA,
            fleet: "shops".parse().expect("a name"),
            version: 1,
            root: role.clone(),
            release: role,
        };
        let memory = Memory {
            trust,
            highest: None,
        };
        Self { old, new, memory }
    }

    /// An offer to the third of seven devices; with `rotated` it comes with the trust root whose key signed the release.
    fn offer(&self, rotated: bool) -> Offer {
        let wanted = Digest::of(MANIFEST.as_bytes());
        let leaf = |number| {
            let before = Leaf::following(device(number), Digest::of(b"before"), None);
            Leaf::following(device(number), wanted, Some(&before)).encode()
        };
        let tree = Tree::new((0..7).map(leaf));
        let release = Release {
            schema: release::SCHEMA,
            fleet: self.memory.trust.fleet.clone(),
            sequence: 7,
            revision: Revision {
                source: "https://git.example/fleet".to_owned(),
                commit: "4f2c91a".to_owned(),
                subject: "more".to_owned(),
                inventory: Some(Digest::of(b"inventory")),
            },
            issued: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
            tree: tree.head(),
        };
        let signer = if rotated { &self.new } else { &self.old };
        let next = TrustRoot {
            version: 2,
            release: Role::any_of([self.new.public()]),
            ..self.memory.trust.clone()
        };
        let next = Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &[&self.old]);
        Offer {
            roots: rotated.then_some(next).into_iter().collect(),
            release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[signer]),
            leaf: String::from_utf8(leaf(2)).expect("text"),
            index: 2,
            proof: tree.prove(2).expect("a proof"),
            manifest: wanted,
        }
    }

    fn accepts(&self, offer: &Offer) -> Option<Accepted> {
        verify_offer(offer, &device(2), &self.memory).ok()
    }
}

/// Calls `with` for every bit of `bytes`, flipped.
fn flips(bytes: &[u8], mut with: impl FnMut(usize, &[u8])) -> usize {
    let mut bent = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bent[at] ^= 1 << bit;
            with(at, &bent);
            bent[at] = bytes[at];
        }
    }
    bytes.len() * 8
}

/// Returns the parts that nobody signs.
fn unsigned(text: &str) -> Vec<Range<usize>> {
    let keyids = text.match_indices("\"keyid\":\"").map(|(at, found)| {
        let begin = at + found.len();
        let length = text[begin..].find('"').expect("an end");
        begin..begin + length
    });
    let roots = text
        .match_indices("\"roots\":[]")
        .map(|(at, _)| at + 1..at + 6);
    keyids.chain(roots).collect()
}

#[test]
fn no_flipped_bit_of_an_offer_is_accepted() {
    let fleet = Fleet::new();
    for rotated in [false, true] {
        let offer = fleet.offer(rotated);
        let truth = fleet.accepts(&offer).expect("the truth is accepted");
        let text = serde_json::to_string(&offer).expect("JSON");
        let unsigned = unsigned(&text);
        let mut harmless = 0;
        let tried = flips(text.as_bytes(), |at, bent| {
            let Ok(bent) = serde_json::from_slice::<Offer>(bent) else {
                return;
            };
            if let Some(accepted) = fleet.accepts(&bent) {
                assert_eq!(accepted, truth, "byte {at}: {}", &text[at..=at]);
                let named = unsigned.iter().any(|range| range.contains(&at));
                assert!(
                    named,
                    "byte {at} is signed by nobody, and not named: {}",
                    &text[at - 9..=at]
                );
                harmless += 1;
            }
        });
        let most: usize = unsigned.iter().map(|range| range.len() * 8).sum();
        assert!(harmless <= most);
        println!(
            "offer (roots: {}): {} flips, {} refused, {harmless} in parts that nobody signs",
            offer.roots.len(),
            tried,
            tried - harmless
        );
    }
}

/// Flips bits inside an encoding: in payloads in base64, in hashes in hex, in the leaf in JSON.
#[test]
fn no_flipped_bit_below_an_encoding_is_accepted() {
    let fleet = Fleet::new();
    let offer = fleet.offer(true);
    let mut accepted = 0;
    let mut tried = 0;
    let mut judge = |bent: &Offer| accepted += usize::from(fleet.accepts(bent).is_some());
    let bend = |envelope: &Envelope, field: &str, bytes: &[u8]| -> Envelope {
        let mut value = serde_json::to_value(envelope).expect("JSON");
        let text = data_encoding::BASE64.encode(bytes);
        let place = value.pointer_mut(field).expect("a field");
        *place = text.into();
        serde_json::from_value(value).expect("an envelope")
    };
    let inside = |envelope: &Envelope, field: &str| -> Vec<u8> {
        let value = serde_json::to_value(envelope).expect("JSON");
        let text = value.pointer(field).and_then(|text| text.as_str());
        let text = text.expect("a field").as_bytes();
        data_encoding::BASE64.decode(text).expect("base64")
    };
    for field in ["/payload", "/signatures/0/sig"] {
        tried += flips(&inside(&offer.release, field), |_, bent| {
            let mut offer = offer.clone();
            offer.release = bend(&offer.release, field, bent);
            judge(&offer);
        });
        tried += flips(&inside(&offer.roots[0], field), |_, bent| {
            let mut offer = offer.clone();
            offer.roots[0] = bend(&offer.roots[0], field, bent);
            judge(&offer);
        });
    }
    tried += flips(offer.leaf.as_bytes(), |_, bent| {
        let mut offer = offer.clone();
        if let Ok(leaf) = String::from_utf8(bent.to_vec()) {
            offer.leaf = leaf;
            judge(&offer);
        }
    });
    for at in 0..offer.proof.len() {
        tried += flips(offer.proof[at].as_bytes(), |_, bent| {
            let mut offer = offer.clone();
            offer.proof[at] = Digest::from_bytes(bent.try_into().expect("32 bytes"));
            judge(&offer);
        });
    }
    tried += flips(&offer.index.to_be_bytes(), |_, bent| {
        let mut offer = offer.clone();
        offer.index = u64::from_be_bytes(bent.try_into().expect("8 bytes"));
        judge(&offer);
    });
    tried += flips(offer.manifest.as_bytes(), |_, bent| {
        let mut offer = offer.clone();
        offer.manifest = Digest::from_bytes(bent.try_into().expect("32 bytes"));
        judge(&offer);
    });
    println!(
        "below the encodings: {} refused of {tried} flips",
        tried - accepted
    );
    assert_eq!(accepted, 0);
}

#[test]
fn no_flipped_bit_of_content_is_accepted() {
    let wanted = Digest::of(MANIFEST.as_bytes());
    let manifest = verify_manifest(MANIFEST.as_bytes(), wanted).expect("the truth");
    assert_eq!(manifest.encode(), MANIFEST.as_bytes());
    let mut accepted = 0;
    // The rules of the manifest alone would not notice: without the digest, most flips would pass.
    let mut well_formed = 0;
    let tried = flips(MANIFEST.as_bytes(), |_, bent| {
        accepted += usize::from(verify_manifest(bent, wanted).is_ok());
        accepted += usize::from(verify_blob(bent, wanted).is_ok());
        well_formed += usize::from(Manifest::parse(bent).is_ok());
    });
    println!(
        "content: {tried} refused of {tried} flips ({well_formed} of them well-formed manifests)"
    );
    assert_eq!(accepted, 0);
    assert!(well_formed > 0);
}
