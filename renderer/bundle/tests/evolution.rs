//! Documents from programs that are older or newer than this one. `evolution/N/` has what version N of the project wrote, which
//! is kept for ever; `evolution/newer/` has fields and words that no version knows yet.

use flotta_bundle::Manifest;
use flotta_bundle::manifest::{SCHEMA, Wanted};
use flotta_bundle::wire::{Acknowledged, Enrolment, Failure, Phase, Report, WorkloadState};

macro_rules! read {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!("evolution/", $name, ".json")))
            .expect(concat!($name, " is read"))
    };
}

#[test]
fn what_the_first_version_sent_is_read_as_it_was_meant() {
    let report: Report = read!("1/report");
    assert_eq!(report.phase, Phase::Applying);
    assert_eq!(report.workloads[0].state, WorkloadState::Starting);
    // the first version put the detail into the message, and named no subject
    let problem = report.workloads[0].problem.as_ref().expect("one");
    assert_eq!((&*problem.subject, &*problem.text()), ("", "exited 1"));
    assert_eq!(report.manifest_schema, 1, "it reads the first schema alone");
    assert_eq!((report.clock_synchronised, report.accepted), (None, None));
    let answer: Acknowledged = read!("1/acknowledged");
    assert_eq!(
        answer,
        Acknowledged {
            events: 3,
            ..Acknowledged::default()
        }
    );
    let enrolment: Enrolment = read!("1/enrolment");
    assert!(matches!(enrolment, Enrolment::Pending { .. }));
    let failure: Failure = read!("1/failure");
    assert_eq!(failure.error.code, "FLT0403");
}

#[test]
fn words_and_fields_of_a_newer_version_cost_only_themselves() {
    let report: Report = read!("newer/report");
    assert_eq!(report.phase, Phase::Unknown);
    assert_eq!(report.workloads[0].name, "web");
    assert_eq!(report.workloads[0].state, WorkloadState::Unknown);
    let problem = &report.problems[0];
    assert_eq!(problem.to_string(), "FLT0999: new: no database");
    assert_eq!(
        (&*problem.subject, problem.class().is_none()),
        ("web.service", true)
    );
    assert_eq!(report.events[0].reason, "Migrated");
    let answer: Acknowledged = read!("newer/acknowledged");
    assert_eq!((answer.events, answer.problems.len()), (3, 1));
    let enrolment: Enrolment = read!("newer/enrolment");
    assert_eq!(enrolment, Enrolment::Unknown);
    let failure: Failure = read!("newer/failure");
    assert_eq!(failure.error.message, "new");
}

#[test]
fn a_manifest_of_the_first_schema_keeps_its_bytes_and_its_digest() {
    let bytes = include_bytes!("evolution/1/manifest.json");
    let manifest = Manifest::parse(bytes).expect("a manifest");
    assert_eq!(manifest.encode(), bytes);
}

#[test]
fn a_manifest_says_the_lowest_schema_that_has_all_it_uses() {
    let text = include_str!("evolution/1/manifest.json");
    let mut manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    manifest.settings.servers = vec!["https://edge.example:7443".to_owned()];
    let bytes = manifest.encode();
    assert!(bytes.starts_with(br#"{"schema":2,"#));
    assert_eq!(Manifest::parse(&bytes).expect("a manifest").encode(), bytes);

    // one whose servers an older agent would ignore
    let second = String::from_utf8(bytes).expect("text");
    let understated = second.replace("\"schema\":2", "\"schema\":1");
    assert!(Manifest::parse(understated.as_bytes()).is_err());
    // and one whose schema is higher than its content needs
    let overstated = text.replace("\"schema\":1", "\"schema\":2");
    assert!(Manifest::parse(overstated.as_bytes()).is_err());
    for newer in [0, SCHEMA + 1] {
        let newer = text.replace("\"schema\":1", &format!("\"schema\":{newer}"));
        let error = Manifest::parse(newer.as_bytes()).expect_err("not known");
        assert!(
            error.to_string().contains("this program knows 1 to"),
            "{error}"
        );
    }
}

#[test]
fn units_of_systemds_own_instances_and_units_that_end_need_the_third_schema() {
    let text = include_str!("evolution/1/manifest.json");
    let old = Manifest::parse(text.as_bytes()).expect("a manifest");
    let says = |manifest: Manifest| {
        let bytes = manifest.encode();
        let read = Manifest::parse(&bytes).expect("a manifest within the rules");
        assert_eq!(read.clone().encode(), bytes);
        read.schema
    };
    assert_eq!(says(old.clone()), 1);
    let mut once = old.clone();
    once.units[0].wanted = Wanted::Once;
    assert_eq!(says(once), 3);
    for name in ["model@small.service", "echo.socket", "in.path", "a.target"] {
        let mut named = old.clone();
        named.units[0].name = name.to_owned();
        assert_eq!(says(named), 3, "{name}");
    }
    let mut timer = old.clone();
    timer.files[0].path = "/etc/systemd/system/job.timer".parse().expect("a path");
    timer
        .units
        .iter_mut()
        .for_each(|unit| unit.restart_on.clear());
    assert_eq!(says(timer), 3);
    let mut template = old;
    template.units[0].name = "model@.service".to_owned();
    assert!(Manifest::parse(&template.encode()).is_err());
}

#[test]
fn checks_by_the_agent_need_the_third_schema() {
    let text = include_str!("evolution/1/manifest.json");
    let tail =
        r#","delay_seconds":0,"period_seconds":10,"timeout_seconds":1,"failures":3,"successes":1}"#;
    let http = r#"{"unit":"web.service","container":"web","purpose":"liveness","action":{"http":{"port":80,"path":"/"}}"#;
    let exec = r#"{"unit":"web.service","container":"web","purpose":"readiness","action":{"exec":{"command":["true"]}}"#;
    let section = format!("\"health\":[{http}{tail},{exec}{tail}],\"settings\"");
    let third = text.replace("\"schema\":1", "\"schema\":3");
    let bytes = third.replace("\"settings\"", &section).into_bytes();
    let manifest = Manifest::parse(&bytes).expect("a manifest");
    assert_eq!((manifest.schema, manifest.health.len()), (3, 2));
    assert_eq!(manifest.clone().encode(), bytes);
    // in any order, and each once
    let mut turned = manifest.clone();
    turned.health.reverse();
    assert_eq!(turned.encode(), bytes);
    let mut twice = manifest.clone();
    twice.health.push(manifest.health[0].clone());
    Manifest::parse(&twice.encode()).expect_err("a check that is listed twice");
    let mut other = manifest.clone();
    other.health[0].unit = "other.service".to_owned();
    Manifest::parse(&other.encode()).expect_err("a check of no unit");
    let mut bad = manifest.clone();
    bad.health[0].period_seconds = 0;
    Manifest::parse(&bad.encode()).expect_err("a check that breaks a rule");
    let mut without = manifest;
    without.health.clear();
    assert!(without.encode().starts_with(br#"{"schema":1,"#));
}
