//! Every event is stored once, and no device displaces the events of another.

use super::*;

#[tokio::test]
async fn no_event_is_dropped_for_its_number_and_none_is_kept_twice() {
    let data = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::open(data.path());
    let (machine, _) = join(&fixture, "a").await;
    for (boot, log, events, kept) in [
        ("b1", "l1", &[(1, "web"), (2, "db"), (3, "till")][..], 3),
        // the log was lost: a new one starts at 1
        ("b1", "l2", &[(1, "web again"), (2, "lost")], 2),
        // the answer was lost, and the machine was rebooted: the events are sent again, with one more
        ("b2", "l2", &[(1, "web again"), (2, "lost"), (3, "new")], 3),
        // a clone of that disk, which continues with the same numbers in the same log
        (
            "c1",
            "l2",
            &[(3, "of the clone"), (4, "of the clone too")],
            4,
        ),
        ("b2", "l2", &[(4, "of the first")], 4),
        ("c1", "l2", &[(4, "of the clone too"), (5, "last")], 5),
    ] {
        let member = fixture.store.member(&machine.name).unwrap();
        let report = said(boot, log, events);
        let put = fixture
            .store
            .put_report(&machine.name, &member, report, HERE, Timestamp::now());
        assert_eq!(put.await.unwrap().events, kept, "{boot} {log} {events:?}");
        // the same after a restart of the server
        drop((member, fixture));
        fixture = Fixture::open(data.path());
    }
    let mut messages: Vec<_> = fixture.events().await.into_iter().collect();
    messages.retain(|event| event.0 == "Failed");
    let messages: Vec<_> = messages.iter().map(|event| event.1.as_str()).collect();
    let all = [
        "web",
        "db",
        "till",
        "web again",
        "lost",
        "new",
        "of the clone",
        "of the clone too",
        "of the first",
        "last",
    ];
    assert_eq!(messages, all);
}

#[tokio::test]
async fn both_of_two_machines_with_one_identity_are_told_and_the_fleet_once() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let put = |boot: &'static str, from: &str, seconds: i64| {
        let at = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let (store, name, member) = (&fixture.store, &machine.name, &member);
        let from = from.parse().unwrap();
        async move {
            store
                .put_report(name, member, said(boot, "l", &[]), from, at)
                .await
                .unwrap()
        }
    };
    for round in 0..2 {
        assert!(put("b1", "192.0.2.1", 20 * round).await.problems.is_empty());
        assert!(
            put("b2", "192.0.2.2", 20 * round + 10)
                .await
                .problems
                .is_empty()
        );
    }
    for (boot, from, at) in [
        ("b1", "192.0.2.1", 40),
        ("b2", "192.0.2.2", 50),
        ("b2", "192.0.2.2", 60),
    ] {
        let told = put(boot, from, at).await.problems;
        assert_eq!(told.len(), 1, "{boot}");
        assert_eq!(told[0].code, "FLT0422");
        for word in ["b1 from 192.0.2.1", "b2 from 192.0.2.2"] {
            assert!(told[0].message.contains(word), "{}", told[0].message);
        }
    }
    let events = fixture.events().await;
    assert_eq!(events.iter().filter(|event| event.0 == "Cloned").count(), 1);
    let record = fixture.store.device(&machine.name).await.unwrap().unwrap();
    assert_eq!(record.clones.unwrap().boots, ["b1", "b2"]);
    // one of them has become another device, or is off: after some time this one counts as alone again
    let told = put("b2", "192.0.2.2", 7200).await.problems;
    assert_eq!(told, []);
}

#[tokio::test]
async fn reports_that_come_together_keep_each_event_once() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let put = || {
        fixture.store.put_report(
            &machine.name,
            &member,
            with_events(1..=50),
            HERE,
            Timestamp::now(),
        )
    };
    for done in futures_util::future::join_all((0..8).map(|_| put())).await {
        assert_eq!(done.unwrap().events, 50);
    }
    let events = fixture.events().await;
    let applied = events.iter().filter(|event| event.0 == "Applied").count();
    assert_eq!(applied, 50);
}

#[tokio::test]
async fn a_device_in_a_loop_pushes_out_its_own_events_alone() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let event = |device: &str, message: String| FleetEvent {
        id: 0,
        time: Timestamp::now(),
        device: Some(name(device)),
        reason: "Restarted".to_owned(),
        message,
        warning: true,
    };
    fixture
        .store
        .add_event(event("quiet", "once".to_owned()))
        .await
        .unwrap();
    let noise =
        (0..=events::KEPT_EACH).map(|at| fixture.store.add_event(event("loud", at.to_string())));
    for done in futures_util::future::join_all(noise).await {
        done.unwrap();
    }
    let kept = fixture.events().await;
    assert_eq!(kept.len() as u64, events::KEPT_EACH + 1);
    assert_eq!(kept[0].1, "once");
    assert_eq!(kept[1].1, "1");
}

#[tokio::test]
async fn a_stranger_does_not_push_out_what_became_of_commits() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let add = |reason: &str| {
        store.add_event(FleetEvent {
            id: 0,
            time: Timestamp::now(),
            device: None,
            reason: reason.to_owned(),
            message: String::new(),
            warning: true,
        })
    };
    add("Released").await.unwrap();
    for _ in 0..=events::KEPT_EACH {
        add("JoinRefused").await.unwrap();
    }
    let filter = EventFilter {
        limit: 1000,
        ..EventFilter::default()
    };
    let kept = store.events(filter).await.unwrap();
    assert_eq!(kept.len() as u64, 1 + events::KEPT_EACH);
    assert_eq!(kept[0].reason, "Released");
}

#[tokio::test]
async fn who_uses_up_the_ids_of_events_pushes_nobody_out() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let add = async |reason: &str| {
        let event = FleetEvent {
            id: 0,
            time: Timestamp::now(),
            device: Some(name("a")),
            reason: reason.to_owned(),
            message: String::new(),
            warning: false,
        };
        store.add_event(event).await.unwrap();
    };
    add("Before").await;
    // as after a flood: few rows, with ids far apart
    let far = |connection: &rusqlite::Connection| {
        Ok(connection.execute(
            "UPDATE events SET id = id + 5000000 WHERE reason = 'Flood'",
            [],
        )?)
    };
    add("Flood").await;
    store.write_status(far, |_| {}).await.unwrap();
    add("After").await;
    store.purge(Timestamp::now()).await.unwrap();
    let filter = EventFilter {
        limit: 10,
        ..EventFilter::default()
    };
    let events = store.events(filter).await.unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["Before", "Flood", "After"]);
}
