//! A lost or damaged file is reported, and the memory of trust and sequence survives.

use super::*;

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
            // everything is there again, and nothing is wrong any more
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
    // if the two differ in trust, the identity's own counts, whatever the ledger remembers of the previous one
    let other = Fleet::new();
    let (away, _) = full(&other);
    fs::copy(away.path().join(TRUST[0]), state.path().join(TRUST[0])).expect("copied");
    let found = Ledger::open(state.path()).expect("a ledger");
    assert_eq!(
        found.memory().map(|memory| &memory.trust),
        Some(&other.memory().trust)
    );
}
