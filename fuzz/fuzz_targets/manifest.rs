#![no_main]
//! A manifest: what passes the rules passes them again, in the same bytes.

use flotta_bundle::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        let bytes = manifest.clone().encode();
        assert_eq!(Manifest::parse(&bytes).expect("canonical bytes are read"), manifest);
        for file in &manifest.files {
            assert!(flotta_bundle::path::ALLOWED_PREFIXES.iter().any(|prefix| file.path.as_str().starts_with(prefix)));
            assert!(!file.path.as_str().contains(".."));
        }
    }
});
