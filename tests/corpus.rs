//! Every input of the fuzz targets' corpora, as a regression case.

#![allow(unreachable_pub, reason = "the targets' own file")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn every_input_that_was_ever_kept_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let count = std::fs::read_dir(&corpora).expect("corpora").count();
    assert_eq!(count, targets::ALL.len(), "a corpus for each target");
    for (name, target) in targets::ALL {
        let mut tried = 0;
        for entry in std::fs::read_dir(corpora.join(name)).expect("a corpus") {
            let content = std::fs::read(entry.expect("an entry").path()).expect("an input");
            target(&content);
            // also truncated at any length
            for length in (0..content.len()).step_by(1 + content.len() / 64) {
                target(&content[..length]);
            }
            tried += 1;
        }
        println!("{name}: {tried} inputs, whole and cut");
        assert!(tried > 0, "{name}");
    }
}
