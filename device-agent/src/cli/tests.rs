use clap::CommandFactory as _;
use flotta_bundle::release::Revision;
use flotta_bundle::wire::{Phase, WorkloadReport, WorkloadState};
use insta::assert_snapshot;
use jiff::Timestamp;

use super::screen::{self, View};
use super::*;
use crate::identity::Joined;
use crate::pull::LinkState;
use crate::report::Live;
use crate::status::Status;

fn at(time: &str) -> Timestamp {
    format!("2026-11-23T{time}Z").parse().expect("a time")
}

fn workload(name: &str, state: WorkloadState, since: &str) -> WorkloadReport {
    WorkloadReport {
        name: name.to_owned(),
        state,
        problem: None,
        since: Some(at(since)),
        restarts: 0,
    }
}

/// A device on which all is well.
fn view() -> View {
    let joined = Joined {
        fleet: "shops".parse().expect("a fleet"),
        device: "shop-17".parse().expect("a name"),
        server: "https://edge.example.com:7443".to_owned(),
    };
    let link = LinkState {
        connected_since: Some(at("09:02:00")),
        last_answer: Some(at("10:43:56")),
        certificate_until: Some("2027-02-21T00:00:00Z".parse().expect("a time")),
        ..LinkState::default()
    };
    let live = Live {
        release: Some(42),
        workloads: vec![
            workload("cam", WorkloadState::Running, "05:40:00"),
            workload("till", WorkloadState::Running, "05:40:00"),
            workload("web", WorkloadState::Running, "10:42:00"),
        ],
        ..Live::default()
    };
    let status = Status {
        agent: "0.1.0".to_owned(),
        time: at("10:43:56"),
        device: joined.device.clone(),
        fleet: joined.fleet.clone(),
        server: joined.server.clone(),
        link,
        live,
    };
    View {
        now: at("10:44:00"),
        status: Some(status),
        joined,
        release: Some(status::Release {
            sequence: 42,
            revision: Revision {
                source: "https://git.example/fleet.git".to_owned(),
                commit: "4f2c91a0000000000000000000000000000000000".to_owned(),
                subject: "web 2.4".to_owned(),
                inventory: None,
            },
            issued: at("10:40:00"),
            applied: Some(at("10:41:00")),
        }),
        asks: None,
        disk_used: Some(31),
        synchronised: Some(true),
    }
}

/// The same device with a change.
fn changed(change: impl FnOnce(&mut Status)) -> View {
    let mut view = view();
    view.status.as_mut().map(change).expect("a status");
    view
}

#[test]
fn a_well_device() {
    assert!(view().trouble().is_none());
    assert_snapshot!(screen::status(&view()));
}

#[test]
fn a_workload_that_does_not_stay_up() {
    let view = changed(|status| {
        status.live.workloads[2].state = WorkloadState::Failed;
        let problem = Problem::new(code::PORT_TAKEN, "web: port 8080 is in use");
        status.live.problems = vec![
            problem,
            Problem::new(code::IMAGE_PULL, "cam: no such image"),
        ];
    });
    assert_snapshot!(screen::status(&view));
}

#[test]
fn a_failed_workload_without_a_reason_says_where_to_look() {
    let view = changed(|status| status.live.workloads[2].state = WorkloadState::Failed);
    assert_eq!(
        view.trouble(),
        Some((
            "workload web does not stay up".to_owned(),
            "see: journalctl -u web.service".to_owned()
        ))
    );
}

#[test]
fn a_workload_that_runs_on_as_it_was_is_not_all_well() {
    let view = changed(|status| {
        let problem = Problem::new(code::IMAGE_SPACE, "image web: no space left on device");
        status.live.workloads[2].problem = Some(problem);
    });
    let (what, _) = view.trouble().expect("trouble");
    assert_eq!(what, "FLT0513: image web: no space left on device");
}

#[test]
fn a_device_without_its_server() {
    let view = changed(|status| {
        status.link.connected_since = None;
        status.link.attempts = 7;
        status.link.last_answer = Some(at("09:44:00"));
        status.link.failing_since = Some(at("09:46:00"));
        let why = "no connection to edge.example.com:7443: Connection refused";
        status.link.problem = Some(Problem::new(code::UNREACHABLE, why));
    });
    assert_snapshot!(screen::status(&view));
}

#[test]
fn since_when_and_why_the_server_does_not_serve_the_device_is_shown() {
    let server = |change: fn(&mut LinkState)| {
        let view = changed(|status| {
            status.link.failing_since = Some("2026-11-20T08:00:00Z".parse().expect("a time"));
            status.link.problem = Some(Problem::new(code::REVOKED, "revoked"));
            let other = Problem::new(code::IMAGE_PULL, "web: gone");
            status.live.problems = vec![other];
            change(&mut status.link);
        });
        let screen = screen::status(&view);
        assert!(screen.contains("FLT0403: revoked"), "{screen}");
        let line = screen.lines().find(|line| line.starts_with("  server "));
        line.expect("a line").to_owned()
    };
    for (change, said) in [
        (
            (|_| {}) as fn(&mut LinkState),
            "last answer 4s ago; it refuses since 2026-11-20 08:00 (FLT0403)",
        ),
        (
            |link| link.connected_since = None,
            "connecting to https://edge.example.com:7443, without it since 2026-11-20 08:00 (FLT0403)",
        ),
        (
            |link| (link.connected_since, link.attempts) = (None, 3),
            "not connected to https://edge.example.com:7443 since 2026-11-20 08:00, 3 tries (FLT0403)",
        ),
    ] {
        let line = server(change);
        assert!(line.contains(said), "{line}");
    }
}

#[test]
fn a_device_at_work() {
    let view = changed(|status| {
        status.live.phase = Phase::Applying;
        status.live.workloads[0].state = WorkloadState::Starting;
    });
    assert_snapshot!(screen::status(&view));
}

#[test]
fn a_device_whose_agent_does_not_run() {
    let mut view = view();
    view.status = None;
    assert_snapshot!(screen::status(&view));
}

#[test]
fn a_device_that_waits_for_approval() {
    assert_snapshot!(screen::waiting(Some("SHA256:0c1d2e3f40516273")));
}

#[test]
fn a_difference_is_a_unified_diff() {
    assert_eq!(diff::file_diff("/etc/a", Some(b"x\n"), b"x\n"), "");
    assert_snapshot!(diff::file_diff("/etc/a", Some(b"a\nb\n"), b"a\nc\n"));
    assert_snapshot!(diff::file_diff("/etc/a", None, b"new\n"));
    assert_snapshot!(diff::file_diff("/etc/a", Some(b"\xff"), b"new\n"));
}

#[test]
fn help_says_the_exit_codes() {
    assert_snapshot!(Cli::command().render_help().to_string());
}

#[test]
fn arguments_are_well_formed_and_times_are_read() {
    Cli::command().debug_assert();
    assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
    for wrong in ["", "m", "5", "-1s", "0s", "5é", "99999999d"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_error_ends_with_what_to_do() {
    let problem = EnrolError::NotJoined.problem();
    assert_snapshot!(error_text(&problem));
}

#[test]
fn why_there_is_no_connection_goes_before_what_only_a_connection_brings() {
    let expired = || Problem::new(code::TRUST_EXPIRED, "release 42 expired");
    let cut = |problem| {
        changed(|status| {
            status.link.connected_since = None;
            status.link.attempts = 10;
            status.link.problem = Some(problem);
            status.live.problems = vec![expired()];
        })
    };
    for refused in [code::UNTRUSTED_SERVER, code::REVOKED, code::UNREACHABLE] {
        let view = cut(Problem::new(refused, "no connection"));
        let (what, help) = view.trouble().expect("trouble");
        assert_eq!(
            (what, &*help),
            (format!("{}: no connection", refused.id), refused.help)
        );
        let screen = screen::status(&view);
        let tries = format!("10 tries ({}), last answer", refused.id);
        assert!(screen.contains(&tries), "{screen}");
        assert!(screen.contains("also       FLT0312: "), "{screen}");
    }
    // a network that is down is usual, a workload that is down is not
    let view = changed(|status| {
        status.link.connected_since = None;
        status.link.problem = Some(Problem::new(code::UNREACHABLE, "no connection"));
        status.live.problems = vec![expired(), Problem::new(code::IMAGE_PULL, "web: gone")];
    });
    assert_eq!(view.trouble().expect("trouble").0, "FLT0501: web: gone");
}
