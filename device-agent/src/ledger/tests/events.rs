//! Events and history are bounded, and free of duplicates.

use flotta_bundle::code::cut;

use super::*;

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
    // two runs that cannot write, each ended by a power cut
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

    // without a power cut everything is sent in the end, once
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
    // however many workloads fail in turn, events that the server has stored are not repeated either
    let many: Vec<String> = (0..MAX_EVENTS / 2).map(|n| n.to_string()).collect();
    for (hours, is_news) in [(0, true), (1, false), (23, false), (24, true), (47, false)] {
        for what in &many {
            assert_eq!(told(&mut ledger, hours, what), is_news, "{what}, {hours} h");
        }
    }
    // events by a clock that was years ahead hide no new ones
    assert!(told(&mut ledger, -100_000, "0"));
}

#[test]
fn a_workload_that_fails_in_other_words_each_time_is_told_once() {
    let (_state, mut ledger) = bench();
    let (failed, pull) = (code::UNIT_FAILED, code::IMAGE_PULL);
    let pulls = |tag: u8, port: u16| {
        Problem::new(pull, format!("image web:{tag}"))
            .with_detail(format!("read udp 10.0.0.2:{port}->10.0.0.1:53"))
    };
    let exits = |how: &str, second: u8| {
        Problem::new(failed, format!("web.service {how}"))
            .with_detail(format!("10:00:{second} no database"))
    };
    let applied = |ledger: &mut Ledger, what: &str, workloads: &[&str]| {
        let workloads = workloads.iter().map(|name| (*name).to_owned()).collect();
        let noted = ledger.note_applied(NOW, format!("release 2: {what}"), workloads);
        noted.expect("written");
    };
    let told = |ledger: &mut Ledger, workload: &str, problem: &Problem| {
        let before = ledger.unacknowledged().len();
        let noted = ledger.note_failure(NOW, workload, problem);
        noted.expect("written");
        let is_news = ledger.unacknowledged().len() > before;
        if is_news {
            let event = ledger.unacknowledged().last().expect("an event");
            let mut message = format!("{workload}: {problem}");
            cut(&mut message, MAX_MESSAGE);
            assert_eq!(event.message, message);
            assert!(event.warning && event.reason == "Failed");
        }
        is_news
    };
    assert!(told(&mut ledger, "web", &exits("exited 1", 10)));
    assert!(!told(&mut ledger, "web", &exits("exited 1", 20)));
    assert!(told(&mut ledger, "web-1", &exits("exited 1", 20)));
    assert!(told(&mut ledger, "web", &exits("exited 2", 20)));
    assert!(
        told(
            &mut ledger,
            "web",
            &Problem::new(failed, "web.service exited 3")
        ),
        "no words"
    );
    assert!(!told(&mut ledger, "web", &exits("exited 3", 20)));
    assert!(told(&mut ledger, "web", &pulls(1, 40_001)));
    assert!(!told(&mut ledger, "web", &pulls(1, 50_001)));
    assert!(told(&mut ledger, "web", &pulls(2, 50_001)), "another image");
    let long = Problem::new(pull, "x".repeat(2 * MAX_MESSAGE));
    assert!(told(&mut ledger, "web", &long));
    assert!(!told(&mut ledger, "web", &long));

    applied(
        &mut ledger,
        "removed web-1; started db, radio",
        &["web-1", "db", "radio"],
    );
    assert!(!told(&mut ledger, "web", &exits("exited 1", 30)));
    assert!(told(&mut ledger, "web-1", &exits("exited 1", 30)));
    applied(
        &mut ledger,
        "restarted radio, web; started db",
        &["radio", "web", "db"],
    );
    assert!(told(&mut ledger, "web", &exits("exited 1", 40)));
    assert!(!told(&mut ledger, "web", &exits("exited 1", 50)));
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
