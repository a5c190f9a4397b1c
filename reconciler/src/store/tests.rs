mod kept;

use flotta_bundle::release::Revision;
use flotta_bundle::wire::{Event, Report};
use futures_util::FutureExt;

use super::senders::Sender;
use super::*;
use crate::fixture::{Fixture, HERE, TestDevice, eventually, name, report};

async fn join(fixture: &Fixture, device: &str) -> (TestDevice, Arc<Member>) {
    let machine = TestDevice::new(device);
    let token = fixture.token(None).await;
    let address = "192.0.2.1".parse().unwrap();
    let request = machine.request(Some(token));
    let joined = fixture
        .enroller
        .enrol(request, None, address, Timestamp::now());
    joined.await.unwrap();
    let member = fixture.store.member(&machine.name).unwrap();
    (machine, member)
}

fn with_events(ids: impl IntoIterator<Item = u64>) -> Report {
    let event = |id| Event {
        id,
        time: Timestamp::now(),
        reason: "Applied".to_owned(),
        message: id.to_string(),
        warning: false,
    };
    Report {
        events: ids.into_iter().map(event).collect(),
        ..report()
    }
}

/// A clock that was once ahead must not make a device look seen for ever, and devices report their time.
#[tokio::test]
async fn a_device_is_seen_when_it_was_and_tells_the_time() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let now = Timestamp::now();
    let years = jiff::SignedDuration::from_hours(24 * 730);
    for (time, synchronised, told) in [
        (now + years, Some(true), Some(years)),
        (now, Some(false), None),
        (now - years, Some(true), Some(-years)),
        (now, None, None),
    ] {
        let said = Report {
            time,
            clock_synchronised: synchronised,
            ..report()
        };
        let put = fixture
            .store
            .put_report(&machine.name, &member, said, HERE, time);
        put.await.unwrap();
        assert_eq!(
            member.seen(),
            Some(Timestamp::from_millisecond(time.as_millisecond()).unwrap())
        );
        let ahead = fixture.store.told_times(now);
        let near = |ahead: jiff::SignedDuration| (ahead - told.unwrap()).as_secs() < 60;
        assert_eq!(ahead.len(), usize::from(told.is_some()), "{ahead:?}");
        assert!(ahead.into_iter().all(near));
    }
    assert_eq!(fixture.store.count_members(), 1);
}

#[tokio::test]
async fn what_is_known_of_a_device_outlives_the_process() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let at = Timestamp::now();
    let put = fixture
        .store
        .put_report(&machine.name, &member, with_events([1, 2]), HERE, at);
    assert_eq!(put.await.unwrap().events, 2);
    let later: Timestamp = at + jiff::SignedDuration::from_secs(60);
    member.saw(later);
    fixture.store.keep_seen().await.unwrap();
    let before = fixture.store.device(&machine.name).await.unwrap().unwrap();
    drop((fixture, member));

    let fixture = Fixture::open(data.path());
    let after = fixture.store.device(&machine.name).await.unwrap().unwrap();
    assert_eq!(after, before);
    assert_eq!(after.seen.unwrap().as_millisecond(), later.as_millisecond());
    let member = fixture.store.member(&machine.name).unwrap();
    assert_eq!(member.key(), machine.fingerprint());
    // an event that was stored before is not stored again
    let put = fixture
        .store
        .put_report(&machine.name, &member, with_events([2, 3]), HERE, later);
    assert_eq!(put.await.unwrap().events, 3);
    let messages = fixture.events().await;
    let times = |message: &str| messages.iter().filter(|event| event.1 == message).count();
    assert_eq!((times("1"), times("2"), times("3")), (1, 1, 1));
}

#[tokio::test]
async fn what_an_earlier_version_kept_is_taken_over() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let sent = Report {
        time: at,
        ..with_events([1, 2])
    };
    let put = fixture
        .store
        .put_report(&machine.name, &member, sent.clone(), HERE, at);
    put.await.unwrap();
    let before = fixture.store.device(&machine.name).await.unwrap().unwrap();
    drop((fixture, member));

    // as the first version wrote it
    let old = Connection::open(data.path().join("status.db")).unwrap();
    let first = include_str!("status_1.sql")
        .split("CREATE TABLE events")
        .next()
        .unwrap();
    old.execute_batch(
        "ALTER TABLE reports RENAME TO newer; DROP INDEX events_by_time; PRAGMA user_version = 1",
    )
    .unwrap();
    old.execute_batch(first).unwrap();
    let mut report = sent;
    report.events.clear();
    old.execute(
        "INSERT INTO reports SELECT device, key, content, ?1, seen_at, 2 FROM newer",
        [serde_json::to_string(&report).unwrap()],
    )
    .unwrap();
    old.execute_batch("DROP TABLE newer").unwrap();
    drop(old);

    let fixture = Fixture::open(data.path());
    let after = fixture.store.device(&machine.name).await.unwrap().unwrap();
    assert_eq!(after, before);
    let member = fixture.store.member(&machine.name).unwrap();
    let put = fixture
        .store
        .put_report(&machine.name, &member, with_events([2]), HERE, at);
    assert_eq!(put.await.unwrap().events, 2);
}

/// A report of one boot of a machine, with events of one of its logs by number and message.
fn said(boot: &str, log: &str, events: &[(u64, &str)]) -> Report {
    let event = |(id, message): &(u64, &str)| Event {
        id: *id,
        time: Timestamp::UNIX_EPOCH,
        reason: "Failed".to_owned(),
        message: (*message).to_owned(),
        warning: true,
    };
    Report {
        boot: boot.to_owned(),
        log: log.to_owned(),
        events: events.iter().map(event).collect(),
        ..report()
    }
}

#[tokio::test]
async fn a_write_that_fails_takes_no_other_with_it() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let bad = store.write(
        |connection| {
            connection.execute("INSERT INTO meta (key, value) VALUES ('half', 'x')", [])?;
            Err::<(), _>(StoreError::Malformed("on purpose".to_owned()))
        },
        |()| panic!("nothing was committed"),
    );
    let panics = store.write(
        |_| -> Result<(), StoreError> { panic!("on purpose") },
        |()| {},
    );
    let good = store.set_meta("whole", "y".to_owned());
    let (bad, panics, good) = futures_util::future::join3(bad, panics, good).await;
    assert!(bad.is_err() && panics.is_err());
    good.unwrap();
    assert_eq!(store.meta("half").await.unwrap(), None);
    assert_eq!(store.meta("whole").await.unwrap().as_deref(), Some("y"));
}

#[test]
fn one_process_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let first = Store::open(data.path()).unwrap();
    assert!(matches!(
        Store::open(data.path()),
        Err(StoreError::InUse(_))
    ));
    drop(first);
    Store::open(data.path()).unwrap();
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    drop(Store::open(data.path()).unwrap());
    let file = data.path().join("fleet.db");
    Connection::open(&file)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = Store::open(data.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_same_refusal_is_remembered_once_and_the_highest_sequence_always() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let add = |sequence: Option<u64>, commit: &str, refused: Option<&str>| {
        store.add_release(NewRelease {
            details: crate::publish::details::Details::default(),
            sequence,
            revision: Revision {
                source: "directory".to_owned(),
                commit: commit.to_owned(),
                subject: String::new(),
                inventory: None,
            },
            at: Timestamp::now(),
            refused: refused.map(str::to_owned),
            devices: 1,
            workloads: 0,
            manifests: 1,
        })
    };
    assert_eq!(store.highest_sequence().await.unwrap(), None);
    add(Some(7), "one", None).await.unwrap();
    add(None, "two", Some("1 error")).await.unwrap();
    add(None, "two", Some("1 error")).await.unwrap();
    add(None, "two", Some("2 errors")).await.unwrap();
    assert_eq!(store.releases(10).await.unwrap().len(), 3);
    assert_eq!(store.highest_sequence().await.unwrap(), Some(7));
}

#[tokio::test]
async fn tokens_are_stored_as_hashes_and_forgotten_in_the_end() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let token = fixture.token(Some("a")).await;
    fixture.store.purge(Timestamp::now()).await.unwrap();
    assert_eq!(fixture.store.tokens().await.unwrap().len(), 1);
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 31);
    for file in ["fleet.db", "fleet.db-wal"] {
        let bytes = std::fs::read(data.path().join(file)).unwrap();
        let secret = token.expose().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    fixture.store.purge(later).await.unwrap();
    assert!(fixture.store.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_report_is_remembered_even_if_the_device_hangs_up() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let (machine, member) = join(&fixture, "a").await;
    let mut changes = fixture.store.changes();
    let (open, gate) = std::sync::mpsc::channel();
    let wait = move |_: &_| {
        gate.recv().unwrap();
        Ok(())
    };
    let before = fixture.store.write_status(wait, |()| {});
    assert!(before.now_or_never().is_none());
    let put = fixture.store.put_report(
        &machine.name,
        &member,
        with_events([1]),
        HERE,
        Timestamp::now(),
    );
    // the write is dropped before it is done: the writer is still busy with the one before
    assert!(put.now_or_never().is_none());
    changes.mark_unchanged();
    open.send(()).unwrap();
    eventually("the report", async || {
        (member.heard(&Sender::of(&report(), HERE)).last == 1).then_some(())
    })
    .await;
    changes.changed().await.unwrap();
}

#[tokio::test]
async fn a_report_that_cannot_be_read_costs_its_own_row_what_it_said() {
    let data = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(data.path());
    let at = Timestamp::now();
    for device in ["a", "b"] {
        let (machine, member) = join(&fixture, device).await;
        let put = fixture
            .store
            .put_report(&machine.name, &member, report(), HERE, at);
        put.await.unwrap();
    }
    drop(fixture);
    let connection = Connection::open(data.path().join("status.db")).unwrap();
    connection
        .execute(
            "UPDATE reports SET report = '{' WHERE device = 'default/a'",
            [],
        )
        .unwrap();
    drop(connection);

    let fixture = Fixture::open(data.path());
    let devices = fixture.store.devices().await.unwrap();
    let read: Vec<_> = devices
        .iter()
        .map(|record| (record.report.is_some(), record.unreadable.is_some()))
        .collect();
    assert_eq!(read, [(false, true), (true, false)]);
}

/// A process that is being started has a copy of every file for a moment.
#[test]
fn a_copy_of_its_file_does_not_keep_a_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.lock");
    let first = lock(&path).expect("nobody else");
    let copy = first.0.try_clone().expect("a copy");
    assert!(matches!(lock(&path), Err(StoreError::InUse(_))));
    drop(first);
    lock(&path).expect("it is released");
    drop(copy);
}
