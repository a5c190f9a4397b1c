//! The same commit gives the same bytes: from any copy, on any machine, in any locale and time zone.
//!
//! Every process has different seeds for its hash maps, so the child process below also finds an order that depends on one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flotta_bundle::{DeviceName, Digest, Leaf};
use flotta_reconciler::source::{Reader, Tree, refuses};
use flotta_renderer::{Finding, Options, leaves, render};
use git2::{IndexAddOption, Repository, Signature, Time};

/// The variable that tells the child process which file to write its answer to.
const ANSWER_TO: &str = "FLOTTA_TEST_ANSWER_TO";
/// Turkish has its own rules for `i` and `I`; Kathmandu is 5:45 from UTC. Both are set in the child process.
const SETTINGS: [(&str, &str); 3] = [
    ("LC_ALL", "tr_TR.UTF-8"),
    ("LANG", "tr_TR.UTF-8"),
    ("TZ", "Asia/Kathmandu"),
];

fn retail() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/retail")
}

/// The complete output of a render.
#[derive(Debug, PartialEq, Eq)]
struct Everything {
    findings: Vec<Finding>,
    manifests: BTreeMap<DeviceName, Digest>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// The leaves of this release, and of an unchanged one that follows it.
    leaves: [Vec<Vec<u8>>; 2],
}

impl Everything {
    fn of(tree: &Tree) -> Self {
        let options = Options {
            require_digests: true,
        };
        let rendered = render(&Reader::default().read(tree), &[], &options);
        assert!(!refuses(&rendered), "{:?}", rendered.findings);
        assert!(rendered.held.is_empty());
        assert_eq!(rendered.devices.len(), 40);
        let first = leaves(&rendered, &BTreeMap::new());
        let second = leaves(&rendered, &first);
        let encoded =
            |leaves: &BTreeMap<DeviceName, Leaf>| leaves.values().map(Leaf::encode).collect();
        Self {
            leaves: [encoded(&first), encoded(&second)],
            manifests: rendered
                .devices
                .iter()
                .map(|(name, device)| (name.clone(), device.manifest))
                .collect(),
            findings: rendered.findings,
            blobs: rendered.blobs,
        }
    }

    /// One digest over all of it.
    fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let mut add = |part: &[u8]| {
            bytes.extend_from_slice(&part.len().to_le_bytes());
            bytes.extend_from_slice(part);
        };
        for finding in &self.findings {
            add(format!("{finding:?}").as_bytes());
        }
        for (device, manifest) in &self.manifests {
            add(device.to_string().as_bytes());
            add(manifest.as_bytes());
        }
        for (digest, blob) in &self.blobs {
            add(digest.as_bytes());
            add(blob);
        }
        for leaf in self.leaves.iter().flatten() {
            add(leaf);
        }
        Digest::of(&bytes)
    }
}

/// Writes the files of `tree` below `directory`, the last one first.
fn write_backwards(tree: &Tree, directory: &Path) {
    for file in tree.files.iter().rev() {
        let path = directory.join(&file.path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(path, &file.content).expect("a new file");
    }
}

#[test]
fn a_copy_elsewhere_whose_files_were_made_in_another_order_gives_the_same_bytes() {
    let tree = Tree::read_dir(&retail()).expect("the example");
    let here = Everything::of(&tree);
    assert_eq!(here, Everything::of(&tree), "twice in one process");

    let copy = tempfile::tempdir().expect("a folder");
    write_backwards(&tree, copy.path());
    // Files that are ignored: other types, hidden ones.
    fs::write(copy.path().join("notes.txt"), "not YAML").expect("a new file");
    fs::create_dir(copy.path().join(".hidden")).expect("a new folder");
    fs::write(copy.path().join(".hidden/x.yaml"), "kind: Nothing").expect("a new file");
    let there = Tree::read_dir(copy.path()).expect("the copy");
    assert_eq!(tree, there);
    assert_eq!(here, Everything::of(&there));
}

#[test]
fn a_revision_of_a_clone_gives_the_same_bytes_whatever_lies_in_its_folder() {
    let tree = Tree::read_dir(&retail()).expect("the example");
    let (origin, clone) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    write_backwards(&tree, &origin.path().join("fleets/shops"));
    let repository = Repository::init(origin.path()).expect("a repository");
    commit_all(&repository);

    let url = origin.path().to_str().expect("a plain path");
    let cloned = Repository::clone(url, clone.path()).expect("a clone");
    // Only what is committed counts.
    let folder = clone.path().join("fleets/shops");
    fs::write(folder.join("sets.yaml"), "changed and not committed").expect("a changed file");
    fs::remove_dir_all(folder.join("devices")).expect("a folder less");
    let (committed, revision) =
        Tree::at_revision(&cloned, "HEAD", Some("fleets/shops")).expect("the revision");
    assert_eq!(revision.commit.len(), 40);
    assert_eq!(tree, committed);
    assert_eq!(Everything::of(&tree), Everything::of(&committed));
}

fn commit_all(repository: &Repository) {
    let mut index = repository.index().expect("an index");
    index
        .add_all(["*"], IndexAddOption::DEFAULT, None)
        .expect("files added");
    let files = index.write_tree().expect("a tree");
    let files = repository.find_tree(files).expect("a tree");
    let by = Signature::new("fleet", "fleet@shops.example", &Time::new(0, 0)).expect("a name");
    repository
        .commit(Some("HEAD"), &by, &by, "The shops", &files, &[])
        .expect("a commit");
}

#[test]
fn another_process_under_another_locale_and_time_zone_gives_the_same_bytes() {
    let digest = Everything::of(&Tree::read_dir(&retail()).expect("the example")).digest();
    // The child process runs this same test, and answers here.
    if let Some(path) = std::env::var_os(ANSWER_TO) {
        let mut answer = format!("{digest}\n");
        for (name, _) in SETTINGS {
            let _ = writeln!(answer, "{name}={}", std::env::var(name).unwrap_or_default());
        }
        fs::write(path, answer).expect("the answer written");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let answer = folder.path().join("answer");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "another_process_under_another_locale_and_time_zone_gives_the_same_bytes",
        ])
        .current_dir(folder.path())
        .env_clear()
        .envs(SETTINGS)
        .env(ANSWER_TO, &answer)
        .output()
        .expect("the child ran");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut expected = format!("{digest}\n");
    for (name, value) in SETTINGS {
        let _ = writeln!(expected, "{name}={value}");
    }
    let answered = fs::read_to_string(&answer).expect("the child answered");
    assert_eq!(answered, expected);
}

#[test]
fn one_changed_byte_changes_the_digest_over_everything() {
    let tree = Tree::read_dir(&retail()).expect("the example");
    let before = Everything::of(&tree);
    let mut changed = tree.clone();
    let file = changed
        .files
        .iter_mut()
        .find(|file| file.path == "workloads/chain/hours.yaml")
        .expect("the shared settings");
    let text = String::from_utf8(file.content.clone()).expect("text");
    file.content = text.replace("20:00", "21:00").into_bytes();
    let after = Everything::of(&changed);
    assert_ne!(before.digest(), after.digest());
    // It affects only the devices that read it.
    for (device, manifest) in &before.manifests {
        let reads = ["till", "signage"]
            .iter()
            .any(|role| device.name().contains(role));
        assert_eq!(after.manifests[device] != *manifest, reads, "{device}");
    }
}

#[test]
fn what_was_read_before_changes_nothing() {
    let tree = Tree::read_dir(&retail()).expect("the example");
    let mut reader = Reader::default();
    let mut same = |tree: &Tree| {
        let options = Options::default();
        assert_eq!(
            render(&reader.read(tree), &[], &options),
            render(&Reader::default().read(tree), &[], &options)
        );
    };
    same(&tree);
    for at in 0..tree.files.len() {
        let mut broken = tree.clone();
        broken.files[at].content.extend(b"\n]");
        same(&broken);
        // the same content under another path: findings and places name another file
        let mut moved = tree.clone();
        moved.files[at].path.insert_str(0, "moved/");
        same(&moved);
        let mut twice = tree.clone();
        let mut copy = tree.files[at].clone();
        copy.path.insert_str(0, "twice/");
        twice.files.push(copy);
        same(&twice);
        let mut less = tree.clone();
        less.files.remove(at);
        same(&less);
    }
}
