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
use flotta_bundle::{DeviceName, Digest, code};
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
        workload: "web".to_owned(),
        inputs: Digest::of(b"inputs"),
        due: Some(Due::Since("abc".to_owned())),
    };
    let path = "/etc/containers/systemd/web.container".parse();
    Owned {
        files: [(path.expect("allowed"), "web".to_owned())].into(),
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
    // A folder cannot be replaced by a file, even by root.
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

/// A ledger that has been through all of it.
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

const FILES: [&str; 5] = [
    TRUST[0],
    TRUST[1],
    "ledger/machine.json",
    "ledger/events.json",
    "ledger/history.json",
];

#[test]
fn a_file_that_is_lost_or_damaged_is_named_and_written_again_and_the_others_stay() {
    let fleet = Fleet::new();
    let mut tried = 0;
    for file in FILES {
        let good = {
            let (state, _) = full(&fleet);
            fs::read(state.path().join(file)).expect("it is there")
        };
        let mut garbled = good.clone();
        let middle = good.len() / 2;
        garbled[middle..middle + 4].fill(0xff);
        let cut = good[..middle].to_vec();
        let zeroed = vec![0; good.len()];
        let long = vec![b' '; MAX_BYTES + 1];
        for damage in [
            None,
            Some(vec![]),
            Some(cut),
            Some(garbled),
            Some(zeroed),
            Some(long),
        ] {
            let (state, before) = full(&fleet);
            let path = state.path().join(file);
            match &damage {
                None => fs::remove_file(&path).expect("removed"),
                Some(bytes) => fs::write(&path, bytes).expect("written"),
            }
            let mut ledger = Ledger::open(state.path()).expect("a ledger");
            assert_eq!(ledger.memory(), before.memory(), "{file}");
            assert_eq!(ledger.accepted(), before.accepted(), "{file}");
            let is = |name: &str| file.ends_with(name);
            assert_eq!(ledger.owned() == before.owned(), !is("machine.json"));
            assert_eq!(ledger.log_id() == before.log_id(), !is("events.json"));
            assert_eq!(ledger.history() == before.history(), !is("history.json"));
            ledger.settle(Vec::new(), NOW).expect("written");
            let said = ledger.unacknowledged().last().expect("an event").clone();
            assert_eq!(said.reason, "Repaired");
            let begins = format!("FLT0518: {file} is ");
            assert!(said.message.starts_with(&begins), "{}", said.message);
            // all of it is there again, and nothing more is wrong
            let again = Ledger::open(state.path()).expect("a ledger");
            assert_eq!(again.losses, [], "{file}");
            assert_eq!(again.unacknowledged(), ledger.unacknowledged());
            assert_eq!(again.memory(), before.memory(), "{file}");
            tried += 1;
        }
    }
    println!("ledger: {tried} losses of files healed of {tried} tried");
}

#[test]
fn one_digit_that_has_changed_neither_stops_the_agent_nor_beats_the_copy_that_is_intact() {
    let fleet = Fleet::new();
    let (state, before) = full(&fleet);
    let mut tried = 0;
    for file in FILES {
        let path = state.path().join(file);
        let good = fs::read(&path).expect("it is there");
        let numbers = ["\"release\":3", "\"sequence\":3", "\"last\":1", "\"id\":1"];
        for number in numbers {
            let text = String::from_utf8(good.clone()).expect("JSON");
            for (at, _) in text.match_indices(number) {
                for digit in b"0279" {
                    let mut bytes = good.clone();
                    bytes[at + number.len() - 1] = *digit;
                    fs::write(&path, bytes).expect("written");
                    let mut ledger = Ledger::open(state.path()).expect("a ledger");
                    assert_eq!(ledger.memory(), before.memory(), "{file} {number}");
                    assert_eq!(ledger.accepted(), before.accepted(), "{file} {number}");
                    if TRUST.contains(&file) {
                        assert_eq!(ledger.losses[0].file, file);
                    }
                    assert!(ledger.unacknowledged().len() <= 1);
                    ledger.acknowledge(1).expect("written");
                    tried += 1;
                }
            }
        }
        fs::write(&path, good).expect("written");
    }
    assert!(tried >= 24, "{tried}");
}

#[test]
fn numbers_of_events_that_cannot_be_are_damage() {
    let event = |id: u64| json!({"id": id, "time": NOW, "reason": "Failed", "message": "web", "warning": true});
    for (last, kept, ids, good) in [
        (3, 1, vec![2, 3], true),
        (5, 5, vec![], true),
        (1, 2, vec![1], false),
        (2, 0, vec![2, 3], false),
        (3, 0, vec![3, 2], false),
        (3, 0, vec![2, 2, 3], false),
    ] {
        let (state, ledger) = bench();
        let events: Vec<_> = ids.iter().copied().map(event).collect();
        let log = json!({"version": 1, "id": "a", "last": last, "kept": kept, "events": events});
        ledger.save("events.json", &log).expect("written");
        let found = Ledger::open(state.path()).expect("a ledger");
        assert_eq!(found.log_id() == "a", good, "{log}");
        let _ = found.unacknowledged();
    }
}

#[test]
fn a_joined_device_without_a_trust_says_so_whatever_version_wrote_its_ledger() {
    let (state, _) = bench();
    let machine = json!({"owned": {"files": {}, "units": {}}});
    let path = state.path().join("ledger/machine.json");
    fs::write(path, machine.to_string()).expect("written");
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ledger.trust_lost(), None, "it may never have joined");
    ledger.settle(Vec::new(), NOW).expect("written");
    assert!(ledger.trust_lost().is_some());
    let again = Ledger::open(state.path()).expect("a ledger");
    assert!(again.trust_lost().is_some());
}

#[test]
fn the_memory_of_trust_and_sequence_survives_either_of_its_places_and_the_loss_of_both_is_known() {
    let fleet = Fleet::new();
    let (state, before) = full(&fleet);
    let folder = |name: &str| state.path().join(name);
    fs::remove_dir_all(folder("ledger")).expect("removed");
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ledger.memory(), before.memory());
    ledger.settle(Vec::new(), NOW).expect("written");
    fs::remove_dir_all(folder("identity")).expect("removed");
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ledger.memory(), before.memory());
    assert_eq!(ledger.trust_lost(), None);
    ledger.settle(Vec::new(), NOW).expect("written");
    ledger.own(owned("web.service"), None).expect("written");
    for file in TRUST {
        fs::write(folder(file), b"{").expect("written");
    }
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert!(ledger.memory().is_none() && ledger.accepted().is_none());
    let why = ledger.trust_lost().expect("lost").to_owned();
    assert!(why.contains("identity/trust.json is damaged"), "{why}");
    assert_eq!(
        ledger.owned(),
        &owned("web.service"),
        "what runs is still known"
    );
    ledger.settle(Vec::new(), NOW).expect("written");
    assert_eq!(
        fs::read(folder(TRUST[0])).expect("it is there"),
        b"{",
        "what nobody can read is not written over: a newer agent may"
    );
    ledger.begin(fleet.memory()).expect("joined again");
    assert_eq!(ledger.trust_lost(), None);
    assert_eq!(
        Ledger::open(state.path()).expect("a ledger").trust_lost(),
        None
    );
}

#[test]
fn after_a_crash_between_its_two_places_the_newer_trust_counts() {
    let fleet = Fleet::new();
    let (state, _) = full(&fleet);
    let old = TRUST.map(|file| fs::read(state.path().join(file)).expect("it is there"));
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    fleet.accept(&mut ledger, 4);
    for at in 0..2 {
        let new = fs::read(state.path().join(TRUST[at])).expect("it is there");
        fs::write(state.path().join(TRUST[at]), &old[at]).expect("written");
        let found = Ledger::open(state.path()).expect("a ledger");
        assert_eq!(found.memory(), ledger.memory());
        assert_eq!(found.accepted().map(|accepted| accepted.release), Some(4));
        fs::write(state.path().join(TRUST[at]), new).expect("written");
    }
    // of another trust, the identity's own counts, whatever the ledger remembers of the one before
    let other = Fleet::new();
    let (away, _) = full(&other);
    fs::copy(away.path().join(TRUST[0]), state.path().join(TRUST[0])).expect("copied");
    let found = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(
        found.memory().map(|memory| &memory.trust),
        Some(&other.memory().trust)
    );
}

/// The ledgers that programs of each version wrote, kept for ever, and one of a version to come.
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
        // what a newer program says in another way is asked for anew
        assert_eq!(ledger.accepted().is_some(), version != "newer", "{version}");
        assert_eq!(ledger.losses, [], "{version}");
        // and after this program has written each of the files: an older release is still refused
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

/// Writes the fixture of the version that this program writes: `cargo test -p flotta-agent ledger_fixture -- --ignored`.
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
fn events_are_bounded_and_numbered_and_kept_until_the_server_has_them() {
    let (state, mut ledger) = bench();
    for n in 0..MAX_EVENTS + 10 {
        ledger
            .note(NOW, "Failed", n.to_string(), true)
            .expect("written");
    }
    let ids = |ledger: &Ledger| -> Vec<u64> {
        let events = ledger.unacknowledged().iter();
        events.map(|event| event.id).collect()
    };
    assert_eq!(
        ids(&ledger),
        (11..=210).collect::<Vec<_>>(),
        "the oldest went"
    );
    ledger.acknowledge(208).expect("written");
    assert_eq!(ids(&ledger), [209, 210]);
    ledger.acknowledge(3).expect("an old answer");
    assert_eq!(ids(&ledger), [209, 210]);
    let mut ledger = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(ids(&ledger), [209, 210]);
    ledger.acknowledge(u64::MAX).expect("written");
    assert_eq!(ids(&ledger), [0; 0]);
    ledger
        .note(NOW, "Failed", "new".to_owned(), true)
        .expect("written");
    assert_eq!(ids(&ledger), [211], "no number twice");
    assert_eq!(ledger.log.events.len(), MAX_EVENTS);
}

#[test]
fn an_event_is_told_when_it_is_on_disk_and_no_number_is_given_twice() {
    let (state, mut ledger) = bench();
    let said = |ledger: &Ledger| -> Vec<(u64, String)> {
        let events = ledger.unacknowledged().iter();
        events
            .map(|event| (event.id, event.message.clone()))
            .collect()
    };
    let note = |ledger: &mut Ledger, message: &str| {
        let noted = ledger.note(NOW, "Failed", message.to_owned(), true);
        noted.is_ok()
    };
    assert!(note(&mut ledger, "kept"));
    let path = state.path().join("ledger/events.json");
    let aside = path.with_extension("aside");
    let mut told = Vec::new();
    // twice a run that cannot write, from its start on or not, and a power cut
    for _ in 0..2 {
        fs::rename(&path, &aside).expect("put aside");
        fs::create_dir(&path).expect("made");
        for message in ["a", "b", "a"] {
            assert!(!note(&mut ledger, message));
        }
        told.extend(said(&ledger));
        ledger.acknowledge(u64::MAX).expect_err("not written");
        ledger.save_unsaved().expect_err("not written");
        fs::remove_dir(&path).expect("removed");
        fs::rename(&aside, &path).expect("put back");
        ledger = Ledger::open(state.path()).expect("a ledger");
    }
    let kept = (1, "kept".to_owned());
    assert_eq!(told, [kept.clone(), kept.clone()], "and nothing else");
    assert!(note(&mut ledger, "new"));
    let new = (2, "new".to_owned());
    assert_eq!(said(&ledger), [kept, new.clone()]);

    // without a power cut all is told in the end, once
    ledger.acknowledge(1).expect("written");
    fs::rename(&path, &aside).expect("put aside");
    fs::create_dir(&path).expect("made");
    assert!(!note(&mut ledger, "late") && !note(&mut ledger, "later"));
    assert_eq!(said(&ledger), std::slice::from_ref(&new));
    fs::remove_dir(&path).expect("removed");
    ledger.save_unsaved().expect("written");
    let all = [new, (3, "late".to_owned()), (4, "later".to_owned())];
    assert_eq!(said(&ledger), all);
    assert_eq!(said(&Ledger::open(state.path()).expect("a ledger")), all);
    fs::remove_file(&path).expect("removed");
    ledger.save_unsaved().expect("nothing to write");
    assert!(!path.exists());
}

#[test]
fn what_was_said_a_moment_ago_is_not_said_again() {
    let (_state, mut ledger) = bench();
    let mut said = Vec::new();
    for (reason, message, is_news) in [
        ("Failed", "web", true),
        ("Failed", "web", false),
        ("Failed", "radio", true),
        ("Failed", "web", false),
        ("Applied", "release 1", true),
        ("Failed", "web", true),
        ("Applied", "release 1", false),
        ("Failed", "web", false),
    ] {
        let before = ledger.unacknowledged().len();
        ledger
            .note(NOW, reason, message.to_owned(), true)
            .expect("written");
        said.push((ledger.unacknowledged().len() > before) == is_news);
    }
    assert_eq!(said, [true; 8]);

    let told = |ledger: &mut Ledger, hours: i64, what: &str| {
        let before = ledger.log.last;
        let time = NOW + SignedDuration::from_hours(hours);
        let noted = ledger.note(time, "Failed", what.to_owned(), true);
        noted.expect("written");
        ledger.acknowledge(u64::MAX).expect("written");
        ledger.log.last > before
    };
    // however many fail by turns: also what the server has is not told again
    let many: Vec<String> = (0..MAX_EVENTS / 2).map(|n| n.to_string()).collect();
    for (hours, is_news) in [(0, true), (1, false), (23, false), (24, true), (47, false)] {
        for what in &many {
            assert_eq!(told(&mut ledger, hours, what), is_news, "{what}, {hours} h");
        }
    }
    // a clock that was years ahead hides nothing
    assert!(told(&mut ledger, -100_000, "0"));
}

#[test]
fn a_workload_that_fails_in_other_words_each_time_is_told_once() {
    let (_state, mut ledger) = bench();
    let (failed, pull) = (code::UNIT_FAILED, code::IMAGE_PULL);
    let pulls =
        |tag: u8, port: u16| format!("image web:{tag}: read udp 10.0.0.2:{port}->10.0.0.1:53");
    let exits = |how: &str, second: u8| format!("web.service {how}: 10:00:{second} no database");
    let applied = |ledger: &mut Ledger, what: &str| {
        let noted = ledger.note(NOW, "Applied", format!("release 2: {what}"), false);
        noted.expect("written");
    };
    let told = |ledger: &mut Ledger, workload: &str, code, message: &str| {
        let before = ledger.unacknowledged().len();
        let problem = Problem::new(code, message.to_owned());
        let noted = ledger.note_failure(NOW, workload, &problem);
        noted.expect("written");
        let is_news = ledger.unacknowledged().len() > before;
        if is_news {
            let event = ledger.unacknowledged().last().expect("an event");
            assert!(event.message.starts_with(&format!(
                "{workload}: {}: {}",
                code.id,
                &message[..9]
            )));
            assert!(event.warning && event.reason == "Failed");
        }
        is_news
    };
    assert!(told(&mut ledger, "web", failed, &exits("exited 1", 10)));
    assert!(!told(&mut ledger, "web", failed, &exits("exited 1", 20)));
    assert!(told(&mut ledger, "web-1", failed, &exits("exited 1", 20)));
    assert!(told(&mut ledger, "web", failed, &exits("exited 2", 20)));
    assert!(
        told(&mut ledger, "web", failed, "web.service exited 3"),
        "no words"
    );
    assert!(!told(&mut ledger, "web", failed, &exits("exited 3", 20)));
    assert!(told(&mut ledger, "web", pull, &pulls(1, 40_001)));
    assert!(!told(&mut ledger, "web", pull, &pulls(1, 50_001)));
    assert!(
        told(&mut ledger, "web", pull, &pulls(2, 50_001)),
        "another image"
    );
    let long = "x".repeat(2 * MAX_MESSAGE);
    assert!(told(&mut ledger, "web", pull, &long));
    assert!(!told(&mut ledger, "web", pull, &long));

    applied(&mut ledger, "removed web-1; started db, radio");
    assert!(!told(&mut ledger, "web", failed, &exits("exited 1", 30)));
    assert!(told(&mut ledger, "web-1", failed, &exits("exited 1", 30)));
    applied(&mut ledger, "restarted radio, web; started db");
    assert!(told(&mut ledger, "web", failed, &exits("exited 1", 40)));
    assert!(!told(&mut ledger, "web", failed, &exits("exited 1", 50)));
}

#[test]
fn history_is_bounded_and_says_each_release_once() {
    let (state, mut ledger) = bench();
    let fleet = Fleet::new();
    ledger.begin(fleet.memory()).expect("written");
    fleet.accept(&mut ledger, 1);
    fleet.accept(&mut ledger, 1);
    assert_eq!(ledger.history().len(), 1);
    let seen = ledger.history()[0];
    ledger.history.releases = vec![seen; MAX_HISTORY];
    fleet.accept(&mut ledger, 2);
    let again = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(again.history().len(), MAX_HISTORY);
    assert_eq!(again.history().last().map(|seen| seen.sequence), Some(2));
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
fn a_blob_goes_on_where_it_was_interrupted() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    partial.append(b"hello ").expect("written");
    drop(partial);
    let ledger = Ledger::open(state.path()).expect("a ledger");
    assert!(!ledger.blobs().has(&digest));
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    assert_eq!(partial.len(), 6);
    partial.append(b"world").expect("written");
    partial.finish().expect("kept").expect("as it should be");
    assert!(ledger.blobs().has(&digest));
    assert_eq!(ledger.blobs().read(&digest).expect("read"), b"hello world");
    assert_eq!(names(&state.path().join("blobs/sha256")), [digest.hex()]);
}

#[test]
fn a_blob_that_is_something_else_is_thrown_away() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    partial.append(b"hello evil!").expect("written");
    let refusal = partial.finish().expect("read").expect_err("refused");
    assert_eq!(refusal.problem().code, code::DIGEST_MISMATCH.id);
    assert_eq!(names(&state.path().join("blobs/sha256")), [""; 0]);
    let mut partial = ledger.blobs().partial(&digest).expect("a file");
    assert_eq!(partial.len(), 0);
    partial.append(b"other").expect("written");
    partial.restart().expect("emptied");
    partial.append(b"hello world").expect("written");
    partial.finish().expect("kept").expect("as it should be");
}

#[test]
fn a_blob_that_the_disk_lost_is_fetched_again() {
    let (state, ledger) = bench();
    let digest = Digest::of(b"hello world");
    let path = state.path().join("blobs/sha256").join(digest.hex());
    fs::write(&path, b"hello w\0rld").expect("written");
    ledger.blobs().read(&digest).expect_err("not what it was");
    assert!(!ledger.blobs().has(&digest));
    ledger.blobs().read(&digest).expect_err("not there");
}

#[test]
fn what_no_manifest_needs_is_collected() {
    let (state, ledger) = bench();
    for content in [b"one", b"two"] {
        let mut partial = ledger
            .blobs()
            .partial(&Digest::of(content))
            .expect("a file");
        partial.append(content).expect("written");
        partial.finish().expect("kept").expect("as it should be");
    }
    ledger
        .blobs()
        .partial(&Digest::of(b"three"))
        .expect("begun");
    let folder = state.path().join("blobs/sha256");
    symlink("/etc/hostname", folder.join("link")).expect("made");
    let keep = Digest::of(b"two");
    ledger.blobs().collect(&[keep].into()).expect("collected");
    assert_eq!(names(&folder), [keep.hex()]);
}

#[test]
fn nothing_is_written_that_would_not_be_read_again() {
    let (state, mut ledger) = bench();
    ledger.own(owned("web.service"), None).expect("written");
    let names = (0..MAX_BYTES / 100).map(|n| format!("{n:0>100}.service"));
    let units = names.map(|name| (name, owned("web.service").units["web.service"].clone()));
    let many = Owned {
        units: units.collect(),
        ..Owned::default()
    };
    let error = ledger.own(many, None).expect_err("refused");
    assert!(
        crate::pull::chain(&error).contains("longer than"),
        "{error}"
    );
    assert!(!error.is_full());
    for _ in 0..MAX_EVENTS {
        let long = "x".repeat(MAX_BYTES / MAX_EVENTS);
        let noted = ledger.note(NOW, "Applied", format!("{}{long}", ledger.log.last), false);
        noted.expect("cut, and written");
    }
    let again = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(again.owned(), &owned("web.service"));
    assert_eq!(again.unacknowledged().len(), MAX_EVENTS);
    let longest = again
        .unacknowledged()
        .iter()
        .map(|event| event.message.chars().count());
    assert_eq!(
        longest.max(),
        Some(MAX_MESSAGE + 1),
        "with a mark where it was cut"
    );
}

#[test]
fn what_was_not_applied_gives_way_and_what_was_stays() {
    let (state, mut ledger) = bench();
    let keep = |ledger: &Ledger, content: &[u8]| {
        let digest = Digest::of(content);
        let mut partial = ledger.blobs().partial(&digest).expect("a file");
        partial.append(content).expect("written");
        partial.finish().expect("kept").expect("as it should be");
        digest
    };
    let of_file = |ledger: &Ledger, file: Digest| {
        let manifest = format!(
            r#"{{"schema":1,"files":[{{"path":"/etc/flotta/workloads/web/page","mode":"0644","owner":"root","group":"root","digest":"{file}","size":6,"kind":"data"}}],"units":[],"images":[],"settings":{{"heartbeat_seconds":60}}}}"#
        );
        let manifest = flotta_bundle::Manifest::parse(manifest.as_bytes()).expect("a manifest");
        keep(ledger, &manifest.encode())
    };
    let file = keep(&ledger, b"a page");
    let manifest = of_file(&ledger, file);
    let applied = AppliedState {
        manifest,
        release: 1,
        since: NOW,
    };
    ledger
        .own(Owned::default(), Some(applied))
        .expect("written");
    let coming = keep(&ledger, b"the next page");
    ledger
        .blobs()
        .partial(&Digest::of(b"another"))
        .expect("begun");
    let folder = state.path().join("blobs/sha256");
    assert_eq!(names(&folder).len(), 4);
    // what is wanted stays, as far as it came
    let wanted = [coming, Digest::of(b"another"), manifest, file];
    ledger.blobs().collect(&wanted.into()).expect("collected");
    assert_eq!(names(&folder).len(), 4);
    let left = |ledger: &Ledger, what: &[Digest]| {
        ledger.make_room().expect("made");
        let what: BTreeSet<_> = what.iter().map(Digest::hex).collect();
        assert_eq!(names(&folder), Vec::from_iter(what));
    };
    left(&ledger, &[manifest, file]);
    // what is accepted stays when it is there whole: without a server, too, it can be applied
    let fleet = Fleet::new();
    ledger.begin(fleet.memory()).expect("written");
    let next_file = Digest::of(b"next page");
    let next = of_file(&ledger, next_file);
    fleet.take(&mut ledger, &fleet.offer_of(2, next));
    left(&ledger, &[manifest, file]);
    of_file(&ledger, keep(&ledger, b"next page"));
    left(&ledger, &[manifest, file, next, next_file]);
}

#[test]
fn what_the_disk_has_no_space_for_is_not_begun() {
    let (state, ledger) = bench();
    let blobs = ledger.blobs();
    let (small, large) = (Digest::of(b"small"), Digest::of(b"large"));
    blobs.expect(&[].into()).expect("nothing is to come");
    let fits = [(small, 1)].into();
    blobs
        .expect(&fits)
        .expect("there is a byte, and the reserve");
    let too_large = [(small, 1), (large, u64::MAX)].into();
    let error = blobs.expect(&too_large).expect_err("refused");
    assert!(error.is_full());
    let said = crate::pull::chain(&error);
    assert!(
        said.contains("No space left: ") && said.contains("1 MiB stay free"),
        "{said}"
    );
    // what came takes no more, as far as it came
    assert_eq!(blobs.missing(&[(small, 11)].into(), 4), (3, 1));
    let mut partial = blobs.partial(&small).expect("a file");
    partial.append(b"sm").expect("written");
    assert_eq!(blobs.missing(&[(small, 11)].into(), 4), (2, 0));
    partial.append(b"all").expect("written");
    partial.finish().expect("kept").expect("as it should be");
    assert_eq!(blobs.missing(&[(small, 11), (large, 8)].into(), 4), (2, 1));
    let mut disk = rustix::fs::statvfs(state.path()).expect("a disk");
    (disk.f_blocks, disk.f_bavail, disk.f_frsize) = (1000, 300, 4096);
    (disk.f_files, disk.f_favail) = (1000, 20);
    for (blocks, inodes, lacks_what) in [
        (44, 4, None),
        (45, 4, Some("1 MiB are to come, 1 MiB are free")),
        (44, 5, Some("5 files are to come, and too few inodes")),
        (u64::MAX, 0, Some("No space left: ")),
        (0, 0, None),
    ] {
        let said = lacks(&disk, (blocks, inodes));
        assert_eq!(said.is_some(), lacks_what.is_some(), "{said:?}");
        let named = lacks_what.is_none_or(|what| said.as_ref().is_some_and(|s| s.contains(what)));
        assert!(named, "{said:?}");
    }
    (disk.f_bavail, disk.f_favail) = (0, 0);
    assert_eq!(lacks(&disk, (0, 0)), None, "nothing is to come");
    (disk.f_blocks, disk.f_files) = (0, 0);
    assert_eq!(lacks(&disk, (45, 5)), None, "who does not say is not asked");
}
