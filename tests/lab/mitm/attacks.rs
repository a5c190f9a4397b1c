//! The attacks, and what the device reports about each.

use std::path::Path;

use bytes::Bytes;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf, code};
use http::{HeaderValue, header};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::{Answer, DEVICE};

/// An attack on a genuine answer.
#[derive(Clone, Copy)]
pub(super) enum Attack {
    /// Replaces the offer.
    Offer(fn(&Forger, &mut Offer)),
    /// Replaces the manifest, with a valid signature, as an attacker with the release key can.
    Signed(fn(String) -> String),
    /// Replaces the answer to a poll.
    Poll(fn(&mut Answer)),
    /// Replaces the answer to a request for the manifest.
    Manifest(fn(&mut Answer)),
    /// Replaces the answer to a request for a file.
    File(fn(&mut Answer)),
}

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) code: code::Code,
    /// Words of the refusal.
    pub(super) words: &'static str,
    /// Whether it costs the connection, so that it is reported afterwards.
    pub(super) cut_off: bool,
    pub(super) attack: Attack,
}

pub(super) const fn case(
    name: &'static str,
    code: code::Code,
    words: &'static str,
    attack: Attack,
) -> Case {
    Case {
        name,
        code,
        words,
        cut_off: false,
        attack,
    }
}

pub(super) const fn cut_off(
    name: &'static str,
    words: &'static str,
    attack: fn(&mut Answer),
) -> Case {
    Case {
        cut_off: true,
        ..case(name, code::NOT_FLOTTA, words, Attack::Poll(attack))
    }
}

/// An attacker with the fleet's keys.
pub(super) struct Forger {
    pub(super) root: SigningKey,
    pub(super) release: SigningKey,
    pub(super) trust: TrustRoot,
    /// The first offer that the device had.
    pub(super) first: Option<Offer>,
}

impl Forger {
    pub(super) fn new(keys: &Path) -> Self {
        let key = |name| {
            let key = PrivateKeyDer::from_pem_file(keys.join(name)).expect("a key");
            SigningKey::from_pkcs8(key.secret_der()).expect("a key that signs")
        };
        let root = std::fs::read(keys.join("roots/1.json")).expect("a trust root");
        let root = Envelope::parse(&root).expect("an envelope");
        Self {
            root: key("root.pem"),
            release: key("release.pem"),
            trust: TrustRoot::open(&root).expect("the trust root"),
            first: None,
        }
    }

    /// The device's first offer.
    pub(super) fn first(&self) -> Offer {
        self.first.clone().expect("it has had one")
    }

    /// The payload of the release.
    pub(super) fn payload(&self, offer: &Offer) -> Vec<u8> {
        let keys = &self.trust.release.keys;
        let verified = offer.release.verify(release::PAYLOAD_TYPE, keys, 1);
        verified.expect("the truth")
    }

    /// Signs the genuine release again for another manifest, with the leaf of `name` and another in its tree.
    pub(super) fn sign(&self, offer: &mut Offer, name: &str, manifest: Digest, lower: u64) {
        let leaves = [name, "zz-other"].map(|name| {
            let name = name.parse().expect("a name");
            Leaf::following(name, manifest, None).encode()
        });
        let tree = Tree::new(leaves.clone());
        let mut release = Release::parse(&self.payload(offer)).expect("a release");
        release.tree = tree.head();
        release.sequence -= lower;
        offer.release = envelope(&release.encode(), &self.release);
        let [leaf, _] = leaves;
        offer.leaf = String::from_utf8(leaf).expect("text");
        offer.index = 0;
        offer.proof = tree.prove(0).expect("a proof");
        offer.manifest = manifest;
    }

    /// Signs a next trust root with `release` as the release key, by the key `by`.
    pub(super) fn root(&self, version: u32, release: &SigningKey, by: &SigningKey) -> Envelope {
        let next = TrustRoot {
            version,
            release: Role::any_of([release.public()]),
            ..self.trust.clone()
        };
        Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &[by])
    }
}

pub(super) fn envelope(payload: &[u8], key: &SigningKey) -> Envelope {
    Envelope::sign(release::PAYLOAD_TYPE, payload, &[key])
}

pub(super) fn stranger() -> SigningKey {
    SigningKey::generate().expect("a key").0
}

/// Adds files to a manifest.
pub(super) fn files(manifest: &str, paths: &[&str]) -> String {
    let mut manifest: Value = serde_json::from_str(manifest).expect("JSON");
    let files = manifest["files"].as_array_mut().expect("a list");
    for path in paths {
        let digest = Digest::of(b"x").to_string();
        files.push(json!({
            "path": path, "mode": "0644", "owner": "root", "group": "root",
            "digest": digest, "size": 1, "kind": "data",
        }));
    }
    files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    manifest.to_string()
}

/// One more where the first schema has none.
pub(super) fn elsewhere(manifest: &str, path: &str) -> String {
    let mut manifest: Value = serde_json::from_str(&files(manifest, &[path])).expect("JSON");
    manifest["schema"] = 3.into();
    manifest.to_string()
}

/// A manifest with one piece of it replaced.
pub(super) fn replaced(manifest: &str, from: &str, to: &str) -> String {
    assert!(manifest.contains(from), "{from} in {manifest}");
    manifest.replacen(from, to, 1)
}

pub(super) fn change(answer: &mut Answer, change: fn(&mut Vec<u8>)) {
    let mut body = answer.body().to_vec();
    change(&mut body);
    *answer.body_mut() = body.into();
}

pub(super) fn flip(answer: &mut Answer) {
    change(answer, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

pub(super) fn cut(answer: &mut Answer) {
    change(answer, |bytes| bytes.truncate(bytes.len() / 2));
}

pub(super) fn pad(answer: &mut Answer) {
    change(answer, |bytes| bytes.push(b' '));
}

pub(super) fn redirect(answer: &mut Answer) {
    *answer.status_mut() = http::StatusCode::FOUND;
    let elsewhere = HeaderValue::from_static("https://elsewhere.example/v1/desired");
    answer.headers_mut().insert(header::LOCATION, elsewhere);
}

pub(super) fn gzip(answer: &mut Answer) {
    // the beginning of ten gigabytes of nothing
    *answer.body_mut() =
        Bytes::from_static(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xec\xc1\x01\x01\x00");
    let gzip = HeaderValue::from_static("gzip");
    answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
}

pub(super) fn bomb(answer: &mut Answer) {
    for number in 0..100 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        let value = HeaderValue::from_str(&"x".repeat(1_000)).expect("a value");
        answer.headers_mut().insert(name, value);
    }
}

pub(super) fn portal(answer: &mut Answer) {
    *answer.body_mut() = Bytes::from_static(b"<html>Welcome, please pay");
    let html = HeaderValue::from_static("text/html");
    answer.headers_mut().insert(header::CONTENT_TYPE, html);
}

pub(super) fn endless(answer: &mut Answer) {
    *answer.body_mut() = vec![b' '; 64 << 20].into();
}

pub(super) const CASES: &[Case] = &[
    case(
        "a tampered manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        Attack::Manifest(flip),
    ),
    case(
        "a truncated manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        Attack::Manifest(cut),
    ),
    case(
        "a padded manifest",
        code::DIGEST_MISMATCH,
        "content requested as",
        Attack::Manifest(pad),
    ),
    case(
        "an endless manifest",
        code::NOT_FLOTTA,
        "sent more than",
        Attack::Manifest(endless),
    ),
    case(
        "a tampered blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        Attack::File(flip),
    ),
    case(
        "a truncated blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        Attack::File(cut),
    ),
    case(
        "a padded blob",
        code::NOT_FLOTTA,
        "sent more than",
        Attack::File(pad),
    ),
    case(
        "a blob elsewhere",
        code::NOT_FLOTTA,
        "redirects to",
        Attack::File(redirect),
    ),
    case(
        "a blob that is a gzip bomb",
        code::NOT_FLOTTA,
        "sends gzip encoding",
        Attack::File(gzip),
    ),
    case(
        "a blob with a header bomb",
        code::NOT_FLOTTA,
        "header compression context",
        Attack::File(bomb),
    ),
    case(
        "a wrong proof",
        code::PROOF,
        "the proof does not lead",
        Attack::Offer(|_, offer| {
            offer.proof[0] = Digest::of(b"other");
        }),
    ),
    case(
        "a missing proof",
        code::PROOF,
        "the proof does not lead",
        Attack::Offer(|_, offer| offer.proof.clear()),
    ),
    case(
        "a proof for another leaf",
        code::PROOF,
        "the proof does not lead",
        Attack::Offer(|_, offer| offer.index ^= 1),
    ),
    case(
        "another device's leaf",
        code::WRONG_DEVICE,
        "the leaf is of",
        Attack::Offer(|forger, offer| {
            let manifest = offer.manifest;
            forger.sign(offer, "till", manifest, 0);
        }),
    ),
    case(
        "a lower sequence",
        code::OLDER,
        "is older than",
        Attack::Offer(|forger, offer| *offer = forger.first()),
    ),
    case(
        "one sequence with another root",
        code::EQUIVOCATION,
        "was accepted under",
        Attack::Offer(|forger, offer| {
            let manifest = offer.manifest;
            forger.sign(offer, DEVICE, manifest, 1);
        }),
    ),
    case(
        "an earlier digest that the leaf does not name",
        code::NOT_IN_LEAF,
        "the leaf does not name",
        Attack::Offer(|forger, offer| {
            offer.manifest = forger.first().manifest;
        }),
    ),
    case(
        "a release by an unknown key",
        code::SIGNATURE,
        "0 of the 1 signatures",
        Attack::Offer(|forger, offer| {
            offer.release = envelope(&forger.payload(offer), &stranger());
        }),
    ),
    case(
        "a release by a key that was revoked with it",
        code::SIGNATURE,
        "0 of the 1 signatures",
        Attack::Offer(|forger, offer| {
            offer.roots.push(forger.root(2, &stranger(), &forger.root));
        }),
    ),
    case(
        "a trust root by too few keys",
        code::ROOT_CHAIN,
        "0 of the 1 signatures",
        Attack::Offer(|forger, offer| {
            offer
                .roots
                .push(forger.root(2, &forger.release, &forger.release));
        }),
    ),
    case(
        "a trust root that skips a version",
        code::ROOT_CHAIN,
        "version 3 does not follow version 1",
        Attack::Offer(|forger, offer| {
            offer
                .roots
                .push(forger.root(3, &forger.release, &forger.root));
        }),
    ),
    case(
        "a payload of another type",
        code::ENVELOPE,
        "the envelope holds",
        Attack::Offer(|forger, offer| {
            let payload = forger.payload(offer);
            offer.release = Envelope::sign(root::PAYLOAD_TYPE, &payload, &[&forger.release]);
        }),
    ),
    cut_off("an offer elsewhere", "redirects to", redirect),
    cut_off("an offer that is a gzip bomb", "sends gzip encoding", gzip),
    cut_off(
        "an offer with a header bomb",
        "header compression context",
        bomb,
    ),
    cut_off("a portal's page for an offer", "text/html", portal),
    case(
        "an endless offer",
        code::NOT_FLOTTA,
        "sent more than",
        Attack::Poll(endless),
    ),
    case(
        "a path outside",
        code::PATH_FORBIDDEN,
        "/etc/cron.d/root is forbidden on this device: its policy allows no folder",
        Attack::Signed(|m| elsewhere(&m, "/etc/cron.d/root")),
    ),
    case(
        "a path that climbs",
        code::MANIFEST,
        "a `.` or `..` component",
        Attack::Signed(|m| files(&m, &["/etc/containers/systemd/../../shadow"])),
    ),
    case(
        "case twins",
        code::MANIFEST,
        "differs from another only in case",
        Attack::Signed(|m| {
            files(
                &m,
                &["/etc/flotta/workloads/web/a", "/etc/flotta/workloads/web/A"],
            )
        }),
    ),
    case(
        "Unicode twins",
        code::MANIFEST,
        "a character that is not printable ASCII",
        Attack::Signed(|m| {
            files(
                &m,
                &[
                    "/etc/flotta/workloads/web/\u{e9}",
                    "/etc/flotta/workloads/web/e\u{301}",
                ],
            )
        }),
    ),
    case(
        "a file where a folder is",
        code::MANIFEST,
        "is both a file and a folder",
        Attack::Signed(|m| {
            files(
                &m,
                &[
                    "/etc/flotta/workloads/web/a",
                    "/etc/flotta/workloads/web/a/b",
                ],
            )
        }),
    ),
    case(
        "a key twice",
        code::MANIFEST,
        "duplicate field",
        Attack::Signed(|m| replaced(&m, "\"schema\":1", "\"schema\":1,\"schema\":1")),
    ),
    case(
        "NaN",
        code::MANIFEST,
        "expected value",
        Attack::Signed(|m| replaced(&m, "\"heartbeat_seconds\":2", "\"heartbeat_seconds\":NaN")),
    ),
    case(
        "a million lists, one in the other",
        code::MANIFEST,
        "expected `,` or `]`",
        Attack::Signed(|m| {
            replaced(
                &m,
                "\"files\":[",
                &format!("\"files\":{}", "[".repeat(1_000_000)),
            )
        }),
    ),
];
