//! What is done with an input, and what must hold whatever it is. Each target is one of these; the workspace's own tests play
//! every corpus through them, so that an input that once crashed is a regression case in `cargo test` too.

use std::path::Path;
use std::sync::LazyLock;

use flotta_agent::enrol::Join;
use flotta_bundle::crypto::{PublicKey, SigningKey};
use flotta_bundle::envelope::Envelope;
use flotta_bundle::leaf::Leaf;
use flotta_bundle::verify::{Accepted, Memory, verify_offer};
use flotta_bundle::wire::{EnrolmentRequest, Offer, Report};
use flotta_bundle::{DeviceName, Manifest, TrustRoot, code, release, root};
use flotta_renderer::{Batch, Input, Options, Place, render};

/// What is done with an input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus.
#[allow(dead_code, reason = "a fuzz target needs its own alone")]
pub const ALL: [(&str, Target); 6] = [
    ("envelope", envelope),
    ("join", join),
    ("manifest", manifest),
    ("offer", offer),
    ("report", report),
    ("yaml", yaml),
];

/// The trust root of a fleet whose keys were thrown away.
static MEMORY: LazyLock<Memory> = LazyLock::new(|| {
    let envelope = include_bytes!("seeds/root.json");
    let envelope = Envelope::parse(envelope).expect("the seed is an envelope");
    let trust = TrustRoot::open(&envelope).expect("the seed is a trust root");
    Memory {
        trust,
        highest: None,
    }
});

fn press() -> DeviceName {
    "default/press-1".parse().expect("a name")
}

/// The one offer that was signed while there were keys.
static GENUINE: LazyLock<(Offer, Accepted)> = LazyLock::new(|| {
    let offer = include_bytes!("corpus/offer/genuine");
    let offer: Offer = serde_json::from_slice(offer).expect("the seed is an offer");
    let accepted = verify_offer(&offer, &press(), &MEMORY).expect("the seed is genuine");
    (offer, accepted)
});

/// A key that has signed nothing.
static FOREIGN: LazyLock<PublicKey> =
    LazyLock::new(|| SigningKey::generate().expect("a key").0.public());

/// A signed document: what is read is written back as it was, and no key that has signed nothing has signed it.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else {
        return;
    };
    let again = Envelope::parse(&envelope.encode()).expect("what was written can be read");
    assert_eq!(again, envelope);
    let _ = TrustRoot::open(&envelope);
    for kind in [release::PAYLOAD_TYPE, root::PAYLOAD_TYPE] {
        let foreign = envelope.verify(kind, &[*FOREIGN], 1);
        assert!(foreign.is_err(), "nobody can have signed this");
    }
    let keys = &MEMORY.trust.release.keys;
    if let Ok(payload) = envelope.verify(release::PAYLOAD_TYPE, keys, 1) {
        assert_eq!(payload, GENUINE.1.release.encode());
    }
}

/// A join file: an error with a code, or a trust root that its own keys have signed.
pub fn join(data: &[u8]) {
    match Join::parse(data, Path::new("press-1.join"), None) {
        Ok(join) => assert_eq!(join.trust.fleet, join.file.fleet),
        Err(error) => assert!(!error.problem().code.is_empty()),
    }
}

/// A manifest: what passes the rules passes them again, in the same bytes.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    let bytes = manifest.clone().encode();
    let again = Manifest::parse(&bytes).expect("canonical bytes are read");
    assert_eq!(again, manifest);
    for file in &manifest.files {
        assert!(file.path.as_str().starts_with('/'));
        assert!(!file.path.as_str().split('/').any(|part| part == ".."));
    }
}

/// An offer with its leaf and proof, against a fleet whose keys the input cannot have: none but the genuine one is accepted.
pub fn offer(data: &[u8]) {
    let _ = Leaf::parse(data);
    let Ok(offer) = serde_json::from_slice::<Offer>(data) else {
        return;
    };
    let genuine = &GENUINE.1;
    if let Ok(accepted) = verify_offer(&offer, &press(), &MEMORY) {
        assert_eq!(accepted.release, genuine.release);
        assert_eq!(accepted.leaf, genuine.leaf);
        assert_eq!(accepted.memory, genuine.memory);
        assert!(accepted.leaf.names(&accepted.manifest));
    }
}

/// What a device says: read, and written so that it can be read again.
pub fn report(data: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<Report>(data) {
        let bytes = serde_json::to_vec(&report).expect("a report is JSON");
        let again = serde_json::from_slice::<Report>(&bytes).expect("it is read again");
        assert_eq!(again, report);
    }
    let _ = serde_json::from_slice::<EnrolmentRequest>(data);
}

/// YAML as people commit it: rendered twice it gives the same, every finding has a place, every manifest passes its rules.
pub fn yaml(data: &[u8]) {
    let input = Input::from_iter([Batch::of_file("a.yaml", data)]);
    let options = Options {
        require_digests: false,
    };
    let (first, second) = (render(&input, &[], &options), render(&input, &[], &options));
    assert_eq!(first.findings, second.findings);
    assert_eq!(first.blobs, second.blobs);
    for finding in &first.findings {
        // an empty source is wrong at no place
        let placed = finding.place != Place::Nowhere || finding.code.id == code::EMPTY.id;
        assert!(placed, "{finding:?}");
    }
    for device in first.devices.values() {
        Manifest::parse(&first.blobs[&device.manifest]).expect("what is rendered passes the rules");
    }
}
