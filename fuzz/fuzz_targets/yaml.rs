#![no_main]
//! YAML as people commit it: rendered twice it gives the same, every finding has a place, every manifest passes its rules.

use flotta_bundle::Manifest;
use flotta_renderer::{Options, SourceFile, Tree, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = SourceFile { path: "a.yaml".to_owned(), content: data.to_vec() };
    let tree = Tree { files: vec![file], skipped: Vec::new() };
    let options = Options { require_digests: false };
    let (first, second) = (render(&tree, &[], &options), render(&tree, &[], &options));
    assert_eq!(first.findings, second.findings);
    assert_eq!(first.blobs, second.blobs);
    for finding in &first.findings {
        assert!(!finding.place.file.is_empty(), "{finding:?}");
    }
    for device in first.devices.values() {
        Manifest::parse(&first.blobs[&device.manifest]).expect("what is rendered passes the rules");
    }
});
