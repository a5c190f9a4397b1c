#![no_main]
//! A join file: an error with a place, or a trust root that its own keys have signed.

use std::path::Path;

use flotta_agent::enrol::Join;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Join::parse(data, Path::new("press-1.join"), None) {
        Ok(join) => assert_eq!(join.trust.fleet, join.file.fleet),
        Err(error) => assert!(!error.problem().code.is_empty()),
    }
});
