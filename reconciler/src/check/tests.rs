use std::fmt::Write as _;

use flotta_bundle::Digest;
use flotta_bundle::release::Revision;
use flotta_bundle::tree::TreeHead;

use super::*;
use crate::failures::Failures;

fn now() -> Timestamp {
    "2026-11-23T10:45:00Z".parse().unwrap()
}

fn days(count: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * count)
}

fn verdict(state: &str, message: &str) -> Verdict {
    Verdict {
        state: state.to_owned(),
        since: days(-1),
        message: message.to_owned(),
    }
}

fn well() -> Situation {
    Situation {
        now: now(),
        failures: Vec::new(),
        source: SourceState {
            label: "main@4f2c91a".to_owned(),
            verdict: Some(verdict("InForce", "")),
            ..SourceState::default()
        },
        warnings: Vec::new(),
        clock: None,
        store: Ok(()),
        release: Some(Release {
            schema: flotta_bundle::release::SCHEMA,
            fleet: "shops".parse().unwrap(),
            sequence: 42,
            revision: Revision {
                source: "https://git.example/fleet.git".to_owned(),
                commit: "4f2c91a9e1d3c0ffee".to_owned(),
                subject: "web 2.4".to_owned(),
                inventory: None,
            },
            issued: days(-9),
            expires: days(81),
            tree: TreeHead {
                size: 40,
                root: Digest::of(b"tree"),
            },
        }),
        certificate: days(300),
        authority: days(3600),
        disk: Ok(Disk {
            total: 100 << 30,
            free: 62 << 30,
        }),
        devices: BTreeMap::from([("Connected".to_owned(), 39), ("Offline".to_owned(), 1)]),
    }
}

/// The facts that are not well, as `NAME GRADE CODE: MESSAGE`.
fn wrong(situation: &Situation) -> Vec<String> {
    let check = Check::of(situation);
    let worst = check.facts.iter().map(|fact| fact.grade).max();
    assert_eq!(Some(check.grade), worst);
    let all = check.facts.into_iter();
    all.filter(|fact| fact.grade != Grade::Ok)
        .map(|fact| {
            assert!(!fact.help.is_empty(), "{fact:?}");
            format!(
                "{} {:?} {}: {}",
                fact.name, fact.grade, fact.code, fact.message
            )
        })
        .collect()
}

#[test]
fn a_server_that_is_well_says_so_in_every_fact() {
    let check = Check::of(&well());
    assert_eq!(check.grade, Grade::Ok);
    let text: Vec<_> = check
        .facts
        .iter()
        .map(|fact| format!("{}: {}", fact.name, fact.message))
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    source: main@4f2c91a is in force
    release: 42 of commit 4f2c91a, valid until 2027-02-12
    store: reads and writes
    certificates: the server's until 2027-09-19, the devices' authority's until 2036-10-01
    clock: agrees with what was signed
    disk: 62 % free (63488 MiB)
    work: nothing fails
    warnings: none
    devices: 40: 39 connected, 1 offline
    ");
}

/// A change to a situation in which all is well.
type Change = fn(&mut Situation);

fn but_for(change: Change) -> Situation {
    let mut situation = well();
    change(&mut situation);
    situation
}

fn failing(what: &'static str, message: &str, hours: i64) -> Vec<Failure> {
    let failures = Failures::default();
    failures.add(what, message, now() - SignedDuration::from_hours(hours));
    failures.all()
}

fn disk_of(total: u64, free: u64) -> Disk {
    Disk { total, free }
}

fn fleet<const N: usize>(devices: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let own = |(state, count): (&str, usize)| (state.to_owned(), count);
    devices.into_iter().map(own).collect()
}

const WRONG: &[(&str, Change)] = &[
    ("the source is away", |of| {
        of.source.failure = Some(crate::server_state::Failure {
            source: true,
            since: days(-2),
            message: "git fetch: no such host".to_owned(),
        });
    }),
    ("a commit is refused", |of| {
        of.source.verdict = Some(verdict("Refused", "1 error (FLT0103 web.yaml:14)"));
    }),
    ("a commit is held", |of| {
        of.source.verdict = Some(verdict("Held", "would remove till from 40 devices"));
    }),
    ("nothing is published", |of| {
        (of.source, of.release) = (SourceState::default(), None);
    }),
    ("a release is not renewed", |of| of.now = days(53)),
    ("a release has expired", |of| of.now = days(81)),
    ("the store cannot be read", |of| {
        of.store = Err("the store failed: disk I/O error".to_owned());
    }),
    ("the store cannot be written", |of| {
        of.failures = failing("status.db", "the store failed: database or disk is full", 0);
    }),
    ("the certificate was not renewed", |of| {
        of.certificate = days(29);
    }),
    ("the certificate has ended", |of| of.certificate = days(0)),
    ("the authority ends within a year", |of| {
        of.authority = days(364);
    }),
    ("the clock is in doubt", |of| {
        let message = "the clock is two years behind what was signed";
        of.clock = Some(Problem::new(code::SERVER_CLOCK, message));
    }),
    ("a large disk fills", |of| {
        of.disk = Ok(disk_of(100 << 30, 9 << 30));
    }),
    ("a disk is full", |of| {
        of.disk = Ok(disk_of(100 << 30, 100 << 20));
    }),
    ("the disk is gone", |of| {
        of.disk = Err("Input/output error".to_owned());
    }),
    ("hooks are refused", |of| {
        of.failures = failing("checking a hook", "its token does not match the secret", 0);
    }),
    ("another part of the server warns", |of| {
        of.warnings = vec![Warning {
            since: days(-1),
            message: "the clock is two years ahead".to_owned(),
        }];
    }),
    ("most devices are away", |of| {
        of.devices = fleet([("Offline", 21), ("Connected", 19), ("Pending", 500)]);
    }),
];

#[test]
fn what_is_wrong_has_a_grade_a_code_and_what_to_do() {
    let mut report = String::new();
    for (name, change) in WRONG {
        let found = wrong(&but_for(*change));
        assert!(!found.is_empty(), "{name}");
        let _ = writeln!(report, "{name}\n  {}", found.join("\n  "));
    }
    insta::assert_snapshot!(report);
}

const NO_TROUBLE: &[(&str, Change)] = &[
    ("a small disk that is half full", |of| {
        of.disk = Ok(disk_of(8 << 30, 4 << 30));
    }),
    ("a hundredth of a huge disk", |of| {
        of.disk = Ok(disk_of(4 << 40, 40 << 30));
    }),
    ("a stranger's hook of two hours ago", |of| {
        of.failures = failing("checking a hook", "refused", 2);
    }),
    ("a fleet of one that is off", |of| {
        of.devices = fleet([("Offline", 1)]);
    }),
    ("half of the devices are off", |of| {
        of.devices = fleet([("Offline", 20), ("Connected", 20)]);
    }),
    ("no device yet", |of| of.devices.clear()),
    ("a release that is due for renewal", |of| {
        of.now = days(51);
    }),
];

#[test]
fn what_is_no_trouble_is_none() {
    for (name, change) in NO_TROUBLE {
        assert_eq!(wrong(&but_for(*change)), [""; 0], "{name}");
    }
}
