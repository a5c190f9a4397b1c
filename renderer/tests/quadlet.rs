//! A corpus of Quadlet files. The files of `quadlet/good` are clean; those of `quadlet/bad` say in comments what is wrong with
//! them. A case is a file, or a folder of files that belong together.
//!
//! `#^ CODE` is an error at the line above (`#^-1` at the one before that), `#! CODE` one of the file as a whole: Quadlet skips
//! the file. With `+` (`#^+ CODE`) Quadlet accepts the file, but what runs is not what it says; `#^~` is a warning. The lab
//! checks each of them with the real Quadlet (`tests/lab/quadlet.rs`).

mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use corpus::Files;
use flotta_renderer::quadlet::Set;
use flotta_renderer::{Severity, quadlet::Fault};

/// Returns the cases of a folder of the corpus.
fn cases(folder: &str) -> Vec<(String, Files)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quadlet");
    let mut cases = corpus::cases(&corpus);
    cases.retain(|(name, _)| name.starts_with(folder));
    cases
}

/// Severity, code, file and line of what was found.
type Found = BTreeSet<(Severity, String, String, usize)>;

fn found(files: &BTreeMap<String, String>) -> (Found, Vec<Fault>) {
    let set = Set::read(files);
    let (mut faults, needs) = set.check();
    faults.extend(needs.iter().map(flotta_renderer::quadlet::Need::fault));
    let found = faults.iter().map(|fault| {
        let line = fault.spot.map_or(0, |spot| spot.line);
        (
            fault.severity,
            fault.code.id.to_owned(),
            fault.file.clone(),
            line,
        )
    });
    (found.collect(), faults)
}

fn expected(files: &BTreeMap<String, String>) -> Found {
    let mut expected = Found::new();
    for (file, text) in files {
        let mut last = 0;
        for (number, line) in text.lines().enumerate() {
            let Some(marker) = line.strip_prefix("#^").or(line.strip_prefix("#!")) else {
                last = number + 1;
                continue;
            };
            let (kind, code) = marker.split_once(' ').expect("a code");
            let back = usize::from(kind.starts_with("-1"));
            let line = if line.starts_with("#!") {
                0
            } else {
                last - back
            };
            let severity = if kind.ends_with('~') {
                Severity::Warning
            } else {
                Severity::Error
            };
            expected.insert((severity, code.trim().to_owned(), file.clone(), line));
        }
    }
    expected
}

#[test]
fn good_files_have_no_findings() {
    let cases = cases("good/");
    assert!(cases.len() >= 50, "{}", cases.len());
    for (case, files) in cases {
        let (found, faults) = found(&files);
        assert!(found.is_empty(), "{case}: {faults:#?}");
    }
}

#[test]
fn bad_files_have_the_expected_findings_and_no_others() {
    let cases = cases("bad/");
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for (case, files) in cases {
        let expected = expected(&files);
        assert!(!expected.is_empty(), "{case} expects no finding");
        let (found, faults) = found(&files);
        if found != expected {
            wrong.push(format!("{case}: {faults:#?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
