mod blobs;
mod damage;
mod events;

use std::os::unix::fs::{PermissionsExt as _, symlink};

use flotta_bundle::Leaf;
use flotta_bundle::code::{MAX_MESSAGE, Problem};
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::Revision;
use flotta_bundle::release::{self, Release};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::verify::verify_offer;
use flotta_bundle::{DeviceName, DevicePath, Digest, Owner, code};
use jiff::SignedDuration;
use serde_json::json;
use tempfile::TempDir;

use super::blobs::lacks;
use super::log::MAX_EVENTS;
use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn bench() -> (TempDir, Ledger) {
    let state = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(state.path()).expect("a ledger");
    (state, ledger)
}

fn owned(unit: &str) -> Owned {
    let known = OwnedUnit {
        workload: Owner::workload("web"),
        inputs: Digest::of(b"inputs"),
        due: Some(Due::Since("abc".to_owned())),
    };
    let path = "/etc/containers/systemd/web.container".parse();
    Owned {
        files: [(path.expect("allowed"), Owner::workload("web"))].into(),
        units: [(unit.to_owned(), known)].into(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// A fleet of one device.
struct Fleet {
    key: SigningKey,
    device: DeviceName,
}

impl Fleet {
    fn new() -> Self {
        Self {
            key: SigningKey::generate().expect("a key").0,
            device: "shop-17".parse().expect("a name"),
        }
    }

    fn memory(&self) -> Memory {
        let trust = TrustRoot {
            schema: root::SCHEMA,
            fleet: "shops".parse().expect("a fleet"),
            version: 1,
            root: Role::any_of([self.key.public()]),
            release: Role::any_of([self.key.public()]),
        };
        Memory {
            trust,
            highest: None,
        }
    }

    fn offer(&self, sequence: u64) -> Offer {
        self.offer_of(sequence, Digest::of(&sequence.to_be_bytes()))
    }

    fn offer_of(&self, sequence: u64, manifest: Digest) -> Offer {
        let leaf = Leaf::following(self.device.clone(), manifest, None).encode();
        let tree = Tree::new([leaf.clone()]);
        let release = Release {
            schema: release::SCHEMA,
            fleet: "shops".parse().expect("a fleet"),
            sequence,
            revision: Revision {
                source: "directory".to_owned(),
                commit: "4f2c91a".to_owned(),
                subject: "Prices".to_owned(),
                inventory: None,
            },
            issued: NOW,
            expires: NOW,
            tree: tree.head(),
        };
        Offer {
            roots: Vec::new(),
            release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[&self.key]),
            leaf: String::from_utf8(leaf).expect("JSON"),
            index: 0,
            proof: tree.prove(0).expect("a proof"),
            manifest,
        }
    }

    fn accept(&self, ledger: &mut Ledger, sequence: u64) {
        self.take(ledger, &self.offer(sequence));
    }

    fn take(&self, ledger: &mut Ledger, offer: &Offer) {
        let memory = ledger.memory().expect("joined");
        let accepted = verify_offer(offer, &self.device, memory).expect("a good offer");
        ledger.accept(offer, &accepted).expect("written");
    }
}

/// A ledger in which every file has content.
fn full(fleet: &Fleet) -> (TempDir, Ledger) {
    let (state, mut ledger) = bench();
    ledger.begin(fleet.memory()).expect("written");
    fleet.accept(&mut ledger, 3);
    let applied = AppliedState {
        manifest: Digest::of(b"manifest"),
        release: 3,
        since: NOW,
    };
    ledger
        .own(owned("web.service"), Some(applied))
        .expect("written");
    ledger
        .note(NOW, "Failed", "web".to_owned(), true)
        .expect("written");
    (state, ledger)
}

#[test]
fn what_is_written_is_there_after_a_restart() {
    let (state, mut ledger) = bench();
    assert!(ledger.memory().is_none() && ledger.accepted().is_none());
    let fleet = Fleet::new();
    ledger.begin(fleet.memory()).expect("written");
    fleet.accept(&mut ledger, 3);
    let applied = AppliedState {
        manifest: Digest::of(b"manifest"),
        release: 3,
        since: NOW,
    };
    ledger
        .own(owned("web.service"), Some(applied))
        .expect("written");
    ledger.own(owned("radio.service"), None).expect("written");
    ledger
        .note(NOW, "Failed", "web".to_owned(), true)
        .expect("written");

    let again = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(again.memory(), ledger.memory());
    let accepted = again.accepted().expect("accepted");
    assert_eq!(Some(accepted), ledger.accepted());
    assert_eq!(accepted.envelope, fleet.offer(3).release, "with its proof");
    assert_eq!(
        again.applied(),
        Some(&applied),
        "kept when only what is owned changes"
    );
    assert_eq!(again.owned(), &owned("radio.service"));
    assert_eq!(again.unacknowledged(), ledger.unacknowledged());
    assert_eq!(again.history(), ledger.history());
    assert_eq!(again.history().len(), 1);
}

#[test]
fn only_its_owner_can_read_it() {
    let (state, mut ledger) = bench();
    ledger.own(owned("web.service"), None).expect("written");
    let mode = |path: &str| {
        let metadata = fs::metadata(state.path().join(path)).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("ledger"), 0o700);
    assert_eq!(mode("ledger/machine.json"), 0o600);
    assert_eq!(mode("blobs/sha256"), 0o700);
}

#[test]
fn what_a_power_cut_left_is_no_harm_and_is_swept() {
    let (state, mut ledger) = bench();
    ledger.own(owned("web.service"), None).expect("written");
    let folder = state.path().join("ledger");
    fs::write(folder.join(".new-aB3xYz"), b"{\"applied\":nul").expect("written");
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ledger.owned(), &owned("web.service"));
    ledger.own(owned("radio.service"), None).expect("written");
    ledger.sweep().expect("swept");
    assert_eq!(names(&folder), ["machine.json"]);
    assert_eq!(ledger.owned(), &owned("radio.service"));
}

#[test]
fn what_cannot_be_written_is_not_believed() {
    let (state, mut ledger) = bench();
    ledger.own(owned("web.service"), None).expect("written");
    // Even root cannot replace a folder with a file.
    let path = state.path().join("ledger/machine.json");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    let error = ledger
        .own(owned("radio.service"), None)
        .expect_err("refused");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert_eq!(ledger.owned(), &owned("web.service"));
    assert_eq!(
        names(&state.path().join("ledger")),
        ["machine.json"],
        "no temporary stays"
    );
}

const FILES: [&str; 5] = [
    TRUST[0],
    TRUST[1],
    "ledger/machine.json",
    "ledger/events.json",
    "ledger/history.json",
];

/// Reads a ledger as each version of the agent wrote it, and one of a future version. These fixtures are kept for ever.
#[test]
fn a_ledger_of_every_version_is_opened_and_its_memory_kept() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger");
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(&fixtures).expect("a folder") {
        let fixture = entry.expect("an entry").path();
        let version = fixture
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let state = tempfile::tempdir().expect("a folder");
        for file in FILES {
            let (from, to) = (fixture.join(file), state.path().join(file));
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            if from.exists() {
                fs::copy(from, to).expect("copied");
            }
        }
        let mut ledger = Ledger::open(state.path()).expect("a ledger");
        let check = |ledger: &Ledger| {
            let memory = ledger.memory().expect("remembered");
            assert_eq!(memory.trust.fleet.to_string(), "shops", "{version}");
            assert_eq!(memory.highest.expect("a release").sequence, 3, "{version}");
            assert_eq!(ledger.trust_lost(), None, "{version}");
            let owned = ledger.owned();
            assert_eq!(owned.files.len(), 1, "{version}");
            assert!(owned.units.contains_key("web.service"), "{version}");
            assert_eq!(ledger.applied().expect("applied").release, 3);
            assert_eq!(ledger.history().len(), 1, "{version}");
            assert_eq!(ledger.unacknowledged()[0].message, "web", "{version}");
        };
        check(&ledger);
        // what a newer agent wrote in another form is requested again
        assert_eq!(ledger.accepted().is_some(), version != "newer", "{version}");
        assert_eq!(ledger.losses, [], "{version}");
        // after this agent has written every file, an older release is still refused
        ledger.settle(Vec::new(), NOW).expect("written");
        let owned = ledger.owned().clone();
        ledger.own(owned, None).expect("written");
        let memory = ledger.memory().expect("remembered").clone();
        ledger
            .keep_trust(Trust {
                memory,
                ..ledger.trust.clone().expect("one")
            })
            .expect("written");
        let again = Ledger::open(state.path()).expect("a ledger");
        check(&again);
        let kept = |file: &str| fs::read_to_string(state.path().join(file)).expect("it is there");
        if version == "newer" {
            for file in FILES.iter().filter(|file| !file.ends_with("history.json")) {
                assert!(kept(file).contains("\"later\""), "{file}: {}", kept(file));
            }
            let machine = kept("ledger/machine.json");
            assert!(
                machine.contains("/usr/lib/later") && machine.contains("later.timer"),
                "{machine}"
            );
        }
        seen.insert(version);
    }
    assert_eq!(
        seen.iter().map(String::as_str).collect::<Vec<_>>(),
        ["0", "1", "newer"]
    );
}

/// Writes the fixture of the current version: `cargo test -p flotta-agent ledger_fixture -- --ignored`.
#[test]
#[ignore = "writes into the source tree, once for each version"]
fn write_the_ledger_fixture_of_this_version() {
    let (state, _) = full(&Fleet::new());
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger");
    for file in FILES {
        let to = to.join(VERSION.to_string()).join(file);
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(state.path().join(file), to).expect("copied");
    }
}

#[test]
fn a_device_that_joins_anew_owes_nothing_to_the_last_fleet() {
    let (state, mut ledger) = bench();
    let fleet = Fleet::new();
    ledger.begin(fleet.memory()).expect("written");
    fleet.accept(&mut ledger, 5);
    let same = ledger.memory().expect("joined").clone();
    ledger.begin(same).expect("written");
    assert!(
        ledger.accepted().is_some(),
        "joined again, with what it remembers"
    );
    let noted = ledger.note(NOW, "Failed", "web".to_owned(), true);
    noted.expect("written");
    let log = ledger.log_id().to_owned();
    let applied = AppliedState {
        manifest: Digest::of(b"manifest"),
        release: 5,
        since: NOW,
    };
    let ours = owned("web.service");
    ledger.own(ours.clone(), Some(applied)).expect("written");
    let servers = ["https://edge.example".to_owned()];
    ledger.keep_servers(&servers).expect("written");
    ledger.begin(Fleet::new().memory()).expect("written");
    for ledger in [&ledger, &Ledger::open(state.path()).expect("a ledger")] {
        assert_eq!((ledger.applied(), ledger.servers()), (None, &[][..]));
        assert_eq!(
            ledger.owned(),
            &ours,
            "what is on the machine is still its own"
        );
    }
    assert!(ledger.accepted().is_none());
    assert_eq!(ledger.unacknowledged(), []);
    let noted = ledger.note(NOW, "Failed", "web".to_owned(), true);
    noted.expect("written");
    assert_ne!(ledger.log_id(), log, "no number twice in one log");
}

#[test]
fn whose_a_file_was_is_kept_after_it_left_the_manifest() {
    let (state, mut ledger) = bench();
    let path = |name: &str| -> DevicePath {
        let path = format!("/etc/containers/systemd/{name}");
        path.parse().expect("a path")
    };
    let mut all = owned("web.service");
    let config: Owner = "EdgeConfig/net".parse().expect("an owner");
    all.files.insert(path("net"), config.clone());
    all.files.insert(path("plain"), Owner::device().clone());
    let mut unit = all.units["web.service"].clone();
    unit.workload = config;
    all.units.insert("net.service".to_owned(), unit);
    ledger.own(all.clone(), None).expect("written");
    drop(ledger);
    assert_eq!(*Ledger::open(state.path()).expect("a ledger").owned(), all);
    // the first agents wrote nothing for a file without a workload; what a newer one wrote is kept
    let file = state.path().join("ledger/machine.json");
    let text = fs::read_to_string(&file).expect("text");
    let old = text.replace("\"EdgeDevice\"", "\"\"");
    assert_ne!(old, text);
    let newer = old.replace("EdgeConfig/net", "EdgeMachine/net");
    fs::write(&file, newer).expect("written");
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ledger.owned().files[&path("plain")], *Owner::device());
    assert_eq!(ledger.owned().files.len(), 2);
    ledger.own(owned("web.service"), None).expect("written");
    let text = fs::read_to_string(&file).expect("text");
    assert_eq!(text.matches("EdgeMachine/net").count(), 2);
}
