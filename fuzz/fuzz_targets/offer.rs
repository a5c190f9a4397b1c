#![no_main]
//! An offer with its leaf and proof, against a fleet whose keys the input cannot have: never accepted.

use flotta_bundle::envelope::Envelope;
use flotta_bundle::leaf::Leaf;
use flotta_bundle::verify::{Memory, verify_offer};
use flotta_bundle::wire::Offer;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The trust root of a fleet whose keys were thrown away (`seeds/root.json`).
static MEMORY: LazyLock<Memory> = LazyLock::new(|| {
    let envelope = Envelope::parse(include_bytes!("../seeds/root.json")).expect("the seed is an envelope");
    let trust = flotta_bundle::TrustRoot::open(&envelope).expect("the seed is a trust root");
    Memory { trust, highest: None }
});

fuzz_target!(|data: &[u8]| {
    let _ = Leaf::parse(data);
    if let Ok(offer) = serde_json::from_slice::<Offer>(data) {
        let device = "default/press-1".parse().expect("a name");
        if let Ok(accepted) = verify_offer(&offer, &device, &MEMORY) {
            // Only the genuine release may pass: the seed that was made with the keys.
            assert_eq!(accepted.release.fleet, MEMORY.trust.fleet);
            assert_eq!(accepted.leaf.device, device);
            assert!(accepted.leaf.names(&accepted.manifest));
        }
    }
});
