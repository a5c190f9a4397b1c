use flotta_api::condition::{ConditionStatus, ConditionType};
use flotta_bundle::wire::Applied;
use flotta_bundle::{Digest, Problem};

use super::*;
use crate::fixture::report;

const NOW: &str = "2026-11-23T10:45:12Z";

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn runs(name: &str, state: WorkloadState, why: Option<&str>) -> WorkloadReport {
    WorkloadReport {
        name: name.to_owned(),
        state,
        problem: why.map(|why| Problem::new(code::UNIT_FAILED, why)),
        since: None,
        restarts: 0,
    }
}

/// A device that has applied release 42, with everything running.
fn good() -> Report {
    Report {
        wanted: Some(digest("new")),
        applied: Some(Applied {
            manifest: digest("new"),
            release: 41,
        }),
        workloads: vec![
            runs("till", WorkloadState::Running, None),
            runs("web", WorkloadState::Running, None),
        ],
        ..report()
    }
}

/// The same before it has applied that release.
fn behind() -> Report {
    let mut report = good();
    report.applied = Some(Applied {
        manifest: digest("old"),
        release: 41,
    });
    report
}

struct Case {
    report: Option<Report>,
    unreadable: Option<&'static str>,
    seen_ago: Option<i64>,
    offered: bool,
    schema: u32,
    revoked: bool,
    clones: Option<Clones>,
}

impl From<Report> for Case {
    fn from(report: Report) -> Self {
        Self {
            report: Some(report),
            unreadable: None,
            seen_ago: Some(4),
            offered: true,
            schema: 1,
            revoked: false,
            clones: None,
        }
    }
}

impl Case {
    fn status(&self) -> Assessment {
        let now: Timestamp = NOW.parse().unwrap();
        assess(Facts {
            report: self.report.as_ref(),
            unreadable: self.unreadable,
            seen: self
                .seen_ago
                .map(|ago| now - SignedDuration::from_secs(ago)),
            now,
            offered: self.offered.then(|| Offered {
                sequence: 42,
                manifest: digest("new"),
            }),
            schema: self.schema,
            heartbeat_seconds: 60,
            revoked: self.revoked,
            clones: self.clones.as_ref(),
        })
    }

    fn is(&self, state: State, reason: Reason, message: &str) {
        let status = self.status();
        let ready = &status.conditions[0];
        assert_eq!(
            (
                status.state,
                ready.reason.as_deref(),
                status.message.as_str()
            ),
            (state, Some(reason.as_str()), message)
        );
        let types = status.conditions.iter().map(|found| found.type_.as_str());
        let all = ConditionType::ALL.iter().map(|of| of.as_str());
        assert!(types.eq(all), "{status:?}");
        let is_ready = ready.status == ConditionStatus::True.as_str();
        assert_eq!(is_ready, state == State::Ready);
    }
}

fn found(status: &Assessment, of: ConditionType) -> &Condition {
    let condition = status.conditions.iter().find(|found| found.is(of));
    condition.unwrap()
}

fn truth(status: &Assessment, of: ConditionType) -> &str {
    &found(status, of).status
}

#[test]
fn ready_is_to_have_what_is_wanted_and_run_it() {
    let case = Case::from(good());
    case.is(State::Ready, Reason::UpToDate, "");
    let status = case.status();
    // the manifest came with release 41 and is also that of 42
    assert_eq!((status.release, status.wanted), (Some(42), None));
    assert_eq!((status.running, status.workloads), (2, 2));
}

#[test]
fn a_device_on_its_way_says_with_what() {
    let mut report = behind();
    report.phase = Phase::Fetching;
    Case::from(report.clone()).is(State::Updating, Reason::Fetching, "fetching release 42");
    report.workloads[1] = runs("web", WorkloadState::Pulling, Some("38 MiB of 112 MiB"));
    let case = Case::from(report.clone());
    case.is(
        State::Updating,
        Reason::Fetching,
        "pulling web (38 MiB of 112 MiB)",
    );
    assert_eq!(
        (case.status().release, case.status().wanted),
        (Some(41), Some(42))
    );
    report.phase = Phase::Applying;
    report.workloads[1] = runs("web", WorkloadState::Starting, None);
    Case::from(report).is(State::Updating, Reason::Applying, "starting web");
    Case::from(behind()).is(
        State::Updating,
        Reason::NotStarted,
        "has not started with release 42",
    );
}

#[test]
fn a_device_that_cannot_get_there_says_why() {
    let mut report = behind();
    report.problems = vec![Problem::new(code::IMAGE_PULL, "no such image")];
    Case::from(report.clone()).is(State::Failed, Reason::ApplyFailed, "no such image");
    // its old version keeps running, but that does not make the device ready
    let mut held = behind();
    held.workloads[1] = runs("web", WorkloadState::Running, Some("no such image"));
    Case::from(held).is(State::Failed, Reason::WorkloadFailed, "web: no such image");
    // a problem with an older release is ignored
    report.wanted = Some(digest("older"));
    Case::from(report.clone()).is(
        State::Updating,
        Reason::NotStarted,
        "has not started with release 42",
    );
    // but a refusal counts, whatever was offered
    report.problems = vec![Problem::new(code::SIGNATURE, "too few signatures")];
    Case::from(report.clone()).is(State::Failed, Reason::ReleaseRefused, "too few signatures");
    // and so does a ledger that cannot be written
    report.problems = vec![Problem::new(code::LEDGER, "no space")];
    Case::from(report).is(State::Failed, Reason::ApplyFailed, "no space");
}

#[test]
fn a_workload_that_does_not_run_fails_the_device_and_names_itself() {
    let mut report = good();
    report.workloads[1] = runs("web", WorkloadState::Failed, Some("exited 1 after 2s"));
    let case = Case::from(report.clone());
    case.is(
        State::Failed,
        Reason::WorkloadFailed,
        "web: exited 1 after 2s",
    );
    assert_eq!(truth(&case.status(), ConditionType::Healthy), "False");
    assert_eq!(truth(&case.status(), ConditionType::InSync), "True");
    assert_eq!(case.status().running, 1);
    report.workloads[0] = runs("till", WorkloadState::Failed, None);
    Case::from(report.clone()).is(
        State::Failed,
        Reason::WorkloadFailed,
        "till: failed (and 1 more)",
    );
    report.workloads = vec![runs("web", WorkloadState::Stopped, None)];
    Case::from(report).is(State::Updating, Reason::Starting, "web: stopped");
}

#[test]
fn a_workload_that_is_not_ready_is_not_healthy_until_it_is() {
    let mut report = good();
    let why = "not ready: GET http://10.88.0.7:8080/healthz: answered 503";
    report.workloads[1].problem = Some(Problem::new(code::NOT_READY, why));
    let case = Case::from(report.clone());
    case.is(State::Failed, Reason::NotReady, &format!("web: {why}"));
    let status = case.status();
    assert_eq!(truth(&status, ConditionType::Healthy), "False");
    assert_eq!(truth(&status, ConditionType::InSync), "True");
    assert_eq!(status.running, 1, "it does not count as running");
    // a workload that does not run at all is worse
    report.workloads[0] = runs("till", WorkloadState::Failed, Some("exited 1"));
    Case::from(report).is(State::Failed, Reason::WorkloadFailed, "till: exited 1");
    assert_eq!(
        truth(&Case::from(good()).status(), ConditionType::Healthy),
        "True"
    );
}

#[test]
fn a_wrong_time_is_told_and_fails_nothing() {
    let mut report = good();
    for code in [code::TRUST_EXPIRED, code::TIME_AHEAD, code::CLOCK_UNSURE] {
        report.problems = vec![Problem::new(code, code.title)];
        Case::from(report.clone()).is(State::Ready, Reason::UpToDate, code.title);
    }
    report
        .problems
        .push(Problem::new(code::FILE_FAILED, "disk full"));
    Case::from(report).is(State::Failed, Reason::DeviceProblem, "disk full");
}

#[test]
fn who_is_silent_for_three_heartbeats_is_offline() {
    let mut case = Case::from(good());
    case.seen_ago = Some(3 * 60 + 30);
    case.is(State::Ready, Reason::UpToDate, "");
    case.seen_ago = Some(3 * 60 + 31);
    case.is(
        State::Offline,
        Reason::NotReporting,
        "last seen 2026-11-23T10:41:41Z",
    );
    let status = case.status();
    // seen by a clock that was two years ahead
    case.seen_ago = Some(-730 * 86_400);
    let later = case.status();
    assert_eq!(later.state, State::Offline, "{}", later.message);
    // the last known state stays visible
    assert_eq!(truth(&status, ConditionType::Connected), "False");
    assert_eq!(truth(&status, ConditionType::InSync), "True");
}

#[test]
fn before_the_first_report_and_without_a_release_it_is_pending() {
    let mut case = Case::from(good());
    case.offered = false;
    case.is(
        State::Pending,
        Reason::NoRelease,
        "no release names it: it keeps what it has",
    );
    case.report = None;
    case.seen_ago = None;
    case.is(
        State::Pending,
        Reason::NoReport,
        "has joined, has not reported yet",
    );
    assert_eq!(truth(&case.status(), ConditionType::Healthy), "Unknown");
    case.revoked = true;
    case.is(State::Revoked, Reason::Revoked, "its identity was revoked");
}

#[test]
fn an_agent_that_is_too_old_and_a_report_that_cannot_be_read_are_said() {
    let mut report = behind();
    report.manifest_schema = 1;
    let old = Case {
        schema: 2,
        ..report.into()
    };
    old.is(
        State::Failed,
        Reason::AgentTooOld,
        "keeps what it has: release 42 needs manifest schema 2, its agent 0.1.0 reads 1; update flotta-agent",
    );
    let damaged = Case {
        report: None,
        unreadable: Some("expected value at line 1 column 1"),
        ..good().into()
    };
    damaged.is(
        State::Pending,
        Reason::ReportUnreadable,
        "its last report cannot be read, until the next one comes: expected value at line 1 column 1",
    );
}

#[test]
fn a_device_that_is_two_machines_says_so_until_it_is_away_or_revoked() {
    let clones = Clones {
        boots: ["a1b2c3d4e5".to_owned(), "f6".to_owned()],
        from: ["192.0.2.1".to_owned(), "192.0.2.2".to_owned()],
        until: NOW.parse().unwrap(),
    };
    let said =
        "two machines use this identity: boot a1b2c3d4 from 192.0.2.1, and boot f6 from 192.0.2.2";
    let two = || Case {
        clones: Some(clones.clone()),
        ..good().into()
    };
    two().is(State::Failed, Reason::Cloned, said);
    let revoked = Case {
        revoked: true,
        ..two()
    };
    revoked.is(State::Revoked, Reason::Revoked, "its identity was revoked");
}

#[test]
fn a_file_changed_on_the_device_is_drift_and_no_failure() {
    let mut report = good();
    assert_eq!(
        truth(&Case::from(report.clone()).status(), ConditionType::Drifted),
        "False"
    );
    let why = "/etc/containers/systemd/web.container was changed or removed on the device";
    report.workloads[1].problem = Some(Problem::new(code::DRIFTED, why));
    let case = Case::from(report.clone());
    case.is(
        State::Updating,
        Reason::FilesChanged,
        &format!("web: {why}"),
    );
    let status = case.status();
    assert_eq!(truth(&status, ConditionType::Drifted), "True");
    assert_eq!(truth(&status, ConditionType::InSync), "False");
    assert_eq!(truth(&status, ConditionType::Healthy), "True");

    // a failed workload is worse
    report.workloads[0] = runs("till", WorkloadState::Failed, Some("till exited 1"));
    let case = Case::from(report);
    case.is(State::Failed, Reason::WorkloadFailed, "till: till exited 1");
    assert_eq!(truth(&case.status(), ConditionType::Drifted), "True");
    let nobody = Case {
        report: None,
        ..Case::from(good())
    };
    assert_eq!(truth(&nobody.status(), ConditionType::Drifted), "Unknown");
}
