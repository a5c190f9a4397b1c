#![no_main]
//! What a device says: read, and written so that it can be read again.

use flotta_bundle::wire::{EnrolmentRequest, Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(report) = serde_json::from_slice::<Report>(data) {
        let bytes = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(serde_json::from_slice::<Report>(&bytes).expect("it is read again"), report);
    }
    let _ = serde_json::from_slice::<EnrolmentRequest>(data);
});
