#![no_main]
//! A signed document: what is read is written back as it was, and no key of ours has signed it.

use flotta_bundle::TrustRoot;
use flotta_bundle::envelope::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::parse(data) {
        let again = Envelope::parse(&envelope.encode()).expect("what was written can be read");
        assert_eq!(again, envelope);
        let _ = TrustRoot::open(&envelope);
    }
});
