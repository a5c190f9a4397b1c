//! Reads the corpus of Quadlet files, for the tests of the renderer and for the lab, which checks it with the real Quadlet.

use std::collections::BTreeMap;
use std::path::Path;

/// A workload's files, by name.
pub(super) type Files = BTreeMap<String, String>;

/// Returns every case below the folder, `good/NAME` and `bad/NAME`, sorted.
pub(super) fn cases(corpus: &Path) -> Vec<(String, Files)> {
    let mut cases = Vec::new();
    for folder in ["good", "bad"] {
        for case in std::fs::read_dir(corpus.join(folder)).expect("a corpus") {
            let case = case.expect("a case").path();
            let name = case.file_name().expect("a name").to_string_lossy();
            cases.push((format!("{folder}/{name}"), files(&case)));
        }
    }
    cases.sort();
    cases
}

/// Returns the files of a case, by the names that they have in a workload.
fn files(case: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![case.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).expect("a folder");
            open.extend(inside.map(|entry| entry.expect("a file").path()));
            continue;
        }
        let base = if case.is_dir() {
            case
        } else {
            case.parent().expect("a folder")
        };
        let name = path.strip_prefix(base).expect("inside").to_str();
        let text = std::fs::read_to_string(&path).expect("text");
        files.insert(name.expect("UTF-8").to_owned(), text);
    }
    files
}
