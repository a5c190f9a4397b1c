use super::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().unwrap()
}

/// Offsets of a clock in both directions, and whether each is more than is tolerated.
fn offsets() -> Vec<(SignedDuration, bool)> {
    let minutes = SignedDuration::from_mins(5);
    let sizes = [minutes, HOUR * 3, DAY, DAY * 100, DAY * 730, DAY * 3652];
    let both = sizes.into_iter().flat_map(|size| [size, -size]);
    both.map(|offset| (offset, offset.abs() > HOUR)).collect()
}

fn evidence(offset: SignedDuration, devices: &[SignedDuration]) -> Evidence<'_> {
    Evidence {
        now: now() + offset,
        synchronised: None,
        accepted: None,
        signed: Some(now() - DAY),
        right: Some(now()),
        devices,
        members: devices.len(),
    }
}

#[test]
fn a_clock_that_is_off_is_in_doubt_by_each_kind_of_evidence() {
    for (offset, is_off) in offsets() {
        let devices = [-offset; 5];
        let all = evidence(offset, &devices);
        let most = is_off.then_some(Doubt::Devices);
        assert_eq!(judge(all), most, "{offset:#}");
        // one contradicting device, or a minority, does not stop a fleet
        let one = Evidence {
            devices: &devices[..1],
            members: 5,
            right: None,
            signed: None,
            ..all
        };
        assert_eq!(judge(one), None, "{offset:#}");
        let in_small_fleet = Evidence { members: 1, ..one };
        assert_eq!(judge(in_small_fleet), most, "{offset:#}");

        // without devices: the time when it was last right
        let alone = evidence(offset, &[]);
        let expected = match offset {
            _ if offset > DAY * 30 => Some(Doubt::LongAfter),
            _ if offset < -HOUR => Some(Doubt::BeforeRight),
            _ => None,
        };
        assert_eq!(judge(alone), expected, "{offset:#}");
        // without that either: the last signature
        let signed = Evidence {
            right: None,
            signed: Some(now()),
            ..alone
        };
        let behind = (offset < -HOUR).then_some(Doubt::BeforeSigned);
        assert_eq!(judge(signed), behind, "{offset:#}");

        // a person, the network and most devices take precedence over all that
        for evidence in [all, alone, signed] {
            let accepted = Some(now() + offset);
            assert_eq!(
                judge(Evidence {
                    accepted,
                    ..evidence
                }),
                None
            );
            let leapt = Some(now());
            let doubt = judge(Evidence {
                accepted: leapt,
                ..evidence
            });
            assert_eq!(doubt, judge(evidence).filter(|_| is_off), "{offset:#}");
            assert_eq!(
                judge(Evidence {
                    synchronised: Some(true),
                    ..evidence
                }),
                None
            );
            let agree = [SignedDuration::ZERO, HOUR / 2, -offset];
            assert_eq!(
                judge(Evidence {
                    devices: &agree,
                    members: 3,
                    ..evidence
                }),
                None
            );
        }
    }
    println!("the server's clock: {} offsets judged", offsets().len());
}

#[test]
fn what_was_signed_by_a_clock_that_was_ahead_holds_nothing_up_once_the_clock_was_right() {
    let poisoned = Evidence {
        signed: Some(now() + DAY * 730),
        ..evidence(HOUR, &[])
    };
    assert_eq!(judge(poisoned), None);
    assert_eq!(
        judge(Evidence {
            right: None,
            ..poisoned
        }),
        Some(Doubt::BeforeSigned)
    );
}

#[test]
fn a_doubt_is_told_once_and_what_may_be_the_time_is_more_than_one() {
    let clock = Clock::default();
    assert!(clock.look(now(), &[], 0).is_none());
    let ahead = now() + DAY * 730;
    let Some(Change::Doubted(doubt)) = clock.look(ahead, &[], 0) else {
        panic!("not in doubt");
    };
    let said = doubt.problem().to_string();
    assert!(
        said.starts_with("FLT0611: the server's clock is in doubt: it says 2028-11-27T12:00:00Z"),
        "{said}"
    );
    assert!(clock.look(ahead + HOUR, &[], 0).is_none(), "once");
    assert!(clock.check().is_err());
    assert!(
        !clock.is_past(now() + DAY, ahead),
        "it may be two years earlier"
    );
    assert!(clock.is_past(now() - DAY, ahead));
    assert!(matches!(clock.look(now(), &[], 0), Some(Change::Right)));
    assert!(clock.check().is_ok() && clock.is_past(now() + DAY, ahead));
    // a person's confirmation holds until the clock jumps again
    assert!(clock.accept(now()).is_none(), "there is nothing to accept");
    assert!(clock.look(ahead, &[], 0).is_some());
    assert!(clock.accept(ahead).is_some() && clock.check().is_ok());
    let contradicted = [-DAY * 730; 5];
    assert!(clock.look(ahead, &contradicted, 5).is_none() && clock.check().is_ok());
    assert!(clock.look(now(), &[], 0).is_some() && clock.check().is_err());
}

#[tokio::test]
async fn a_restart_knows_when_the_clock_was_right() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let clock = Clock::default();
    assert!(clock.resume(&store, now(), None).await.unwrap().is_none());
    clock.keep(&store, now()).await;
    for (offset, is_doubted) in [(DAY, false), (-DAY, true), (DAY * 100, true)] {
        let again = Clock::default();
        let change = again.resume(&store, now() + offset, None).await.unwrap();
        assert_eq!(change.is_some(), is_doubted, "{offset:#}");
    }
}

#[test]
fn an_old_mark_of_timesyncd_is_no_word_that_the_clock_is_set() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run/systemd/timesync");
    std::fs::create_dir_all(&folder).unwrap();
    assert!(!source::is_marked(root.path(), now()));
    let file = std::fs::File::create(folder.join("synchronized")).unwrap();
    file.set_modified(now().into()).unwrap();
    for (offset, is_marked) in [(HOUR / 2, true), (DAY, false), (-DAY, false)] {
        let marked = source::is_marked(root.path(), now() + offset);
        assert_eq!(marked, is_marked, "{offset:#}");
    }
}

/// A clock that a person has accepted is saved as right, so that it needs to be accepted only once.
#[tokio::test]
async fn a_clock_that_was_accepted_is_right_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let long_ago = Timestamp::now() - DAY * 100;
    Clock::default().keep(&store, long_ago).await;
    let clock = Clock::default();
    let now = Timestamp::now();
    assert!(clock.resume(&store, now, None).await.unwrap().is_some());
    let (said, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let follow = clock.follow(&store, |change| {
        said.send(change.clone()).unwrap();
    });
    let accept = async {
        assert!(clock.accept(now).is_some());
        let change = changes.recv().await;
        assert!(matches!(change, Some(Change::Right)), "{change:?}");
        while store.meta(KEPT).await.unwrap() == Some(format!("{long_ago:.0}")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = follow => {}
        () = accept => {}
    }
    let again = Clock::default();
    let change = again.resume(&store, Timestamp::now(), None).await;
    assert!(change.unwrap().is_none());
}
