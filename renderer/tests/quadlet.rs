//! A corpus of Quadlet files. The files of `quadlet/good` are clean; those of `quadlet/bad` say in comments what is wrong with
//! them. A case is a file, or a folder of files that belong together.
//!
//! `#^ CODE` is an error at the line above (`#^-1` at the one before that), `#! CODE` one of the file as a whole: Quadlet leaves
//! the file out. With `+` (`#^+ CODE`) Quadlet takes the file, and what runs is not what it says; `#^~` is a warning. The lab
//! asks the real Quadlet about each of them (`tests/lab/quadlet.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flotta_renderer::quadlet::Set;
use flotta_renderer::{Severity, quadlet::Fault};

fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/quadlet")
        .join(folder);
    let cases = std::fs::read_dir(folder).expect("a corpus");
    let mut cases: Vec<_> = cases.map(|case| case.expect("a case").path()).collect();
    cases.sort();
    cases
}

/// The files of a case, by the names that they have in a workload.
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
fn nothing_is_found_in_good_files() {
    let cases = corpus("good");
    assert!(cases.len() >= 50, "{}", cases.len());
    for case in cases {
        let (found, faults) = found(&files(&case));
        assert!(found.is_empty(), "{}: {faults:#?}", case.display());
    }
}

#[test]
fn what_is_wrong_in_bad_files_is_found_at_its_line_and_nothing_else() {
    let cases = corpus("bad");
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let files = files(&case);
        let expected = expected(&files);
        assert!(!expected.is_empty(), "{} says nothing", case.display());
        let (found, faults) = found(&files);
        if found != expected {
            wrong.push(format!(
                "{}: {faults:#?}, expected {expected:?}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
