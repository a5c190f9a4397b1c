use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

#[test]
fn a_clock_that_nothing_sets_is_never_behind_what_it_learned() {
    let ahead = Timestamp::now() + DAY;
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    assert!(clock.now() < ahead);
    clock.learn(ahead);
    assert!(clock.now() >= ahead);
    assert!(!clock.is_past(ahead), "one of two may be right");
    assert_eq!(clock.candidates().len(), 2);
}

#[test]
fn a_release_that_follows_an_earlier_time_takes_the_floor_back() {
    let right = time("2026-11-28T12:00:00Z");
    let clock = Clock::of(move || right, Timestamp::UNIX_EPOCH);
    clock.learn(time("2028-11-28T12:00:00Z"));
    assert!(clock.now() > right + DAY);
    clock.learn(right - SignedDuration::from_mins(5));
    assert_eq!(clock.now(), right);
    // an older release that reaches the device late is no sign that time went back
    clock.learn(right + DAY);
    let floor = clock.floor();
    clock.learn(right + DAY + SignedDuration::from_secs(1));
    assert!(clock.floor() >= floor);
}

#[test]
fn a_clock_that_the_network_sets_is_believed_and_a_floor_ahead_of_it_left_behind_once() {
    let right = time("2026-11-28T12:00:00Z");
    let clock = Clock::of(move || right, time("2036-01-01T00:00:00Z"));
    let mut changes = clock.changes();
    changes.mark_unchanged();
    assert!(clock.now() > right);
    clock.set_synchronised(Some(true));
    assert!(changes.has_changed().expect("it lives"));
    assert_eq!((clock.now(), clock.floor()), (right, right));
    assert!(clock.left_behind() > Some(right));
    assert_eq!(clock.left_behind(), None);
    // a clock behind a signed time is believed as well, and that time is not learned for good
    clock.learn(time("2028-01-01T00:00:00Z"));
    assert_eq!(clock.now(), right);
    clock.set_synchronised(Some(false));
    assert!(clock.now() < right + DAY);
}

#[test]
fn the_floor_is_kept_and_an_unreadable_one_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clock");
    let then = time("2040-01-02T03:04:05Z");
    Clock::new(then).save(&path).expect("written");
    assert!(Clock::load(&path).floor() >= then);
    for content in [&b"\xff"[..], b"", b"-009999-01-01T00:00:00Z", &[b'9'; 100]] {
        std::fs::write(&path, content).expect("written");
        let clock = Clock::load(&path);
        assert!(clock.floor() < then);
        assert!(clock.current_time().is_some(), "{content:?}");
    }
    // a poisoned file is corrected by the first save under a clock that the network sets
    std::fs::write(&path, "2040-01-02T03:04:05Z\n").expect("written");
    let clock = Clock::load(&path);
    clock.set_synchronised(Some(true));
    clock.save(&path).expect("written");
    assert!(Clock::load(&path).floor() < then);
}

#[tokio::test]
async fn a_mark_of_timesyncd_is_seen_when_the_clock_leaps() {
    let root = tempfile::tempdir().expect("a folder");
    let offset = Arc::new(Mutex::new(SignedDuration::ZERO));
    let set = Arc::clone(&offset);
    let machine = move || Timestamp::now() + *set.lock().expect("no panic");
    let clock = Clock::of(machine, Timestamp::UNIX_EPOCH);
    let set = async {
        let mark = root.path().join("run/systemd/timesync");
        std::fs::create_dir_all(&mark).expect("made");
        let file = std::fs::File::create(mark.join("synchronized")).expect("written");
        // an hour ago by the clock as it is about to be set; until then, in the future
        let time = Timestamp::now() + DAY - SignedDuration::from_hours(1);
        file.set_modified(time.into()).expect("set");
        *offset.lock().expect("no panic") = DAY;
        clock.now();
        let mut changes = clock.changes();
        let believed = changes.wait_for(|_| clock.is_believed());
        tokio::time::timeout(Duration::from_secs(30), believed)
            .await
            .expect("in time")
            .expect("it lives");
    };
    tokio::select! {
        () = follow(clock.clone(), root.path()) => unreachable!("it goes on"),
        () = set => {}
    }
}

#[tokio::test]
async fn an_old_mark_of_timesyncd_is_no_word_that_the_clock_is_set() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("run/systemd/timesync");
    std::fs::create_dir_all(&folder).expect("made");
    let file = std::fs::File::create(folder.join("synchronized")).expect("written");
    let right = time("2026-11-28T12:00:00Z");
    file.set_modified(right.into()).expect("set");
    // a marker that is far from the clock says nothing about it
    for (offset, is_marked) in [
        (SignedDuration::from_mins(30), true),
        (DAY, false),
        (-DAY, false),
    ] {
        let marked = source::is_marked(root.path(), right + offset);
        assert_eq!(marked, is_marked, "{offset:#}");
    }
}
