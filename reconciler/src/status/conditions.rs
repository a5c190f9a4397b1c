//! The conditions of a device.

use flotta_api::condition::{ConditionStatus, ConditionType, Reason};
use flotta_api::v1alpha1::Condition;
use flotta_bundle::wire::{WorkloadReport, WorkloadState};

use super::{Facts, State, Verdict, describe, is_drifted, is_not_ready, of_state};

/// All six conditions, in the order of [`ConditionType::ALL`]. `ready` is the current state; `progress` is the state at the last
/// report, even if the device is offline now.
pub(super) fn all(
    facts: &Facts<'_>,
    in_sync: Option<bool>,
    connected: bool,
    ready: &Verdict,
    progress: &Verdict,
) -> Vec<Condition> {
    let drifted = facts
        .report
        .and_then(|report| report.workloads.iter().find(|w| is_drifted(w)));
    let is_ready = ConditionStatus::from(ready.state == State::Ready);
    vec![
        Condition::new(ConditionType::Ready, is_ready, ready.reason, &ready.message),
        is_connected(facts, connected, ready),
        is_in_sync(facts, in_sync, drifted.is_some(), progress),
        is_updating(progress),
        is_healthy(facts),
        has_drifted(facts, drifted),
    ]
}

fn is_connected(facts: &Facts<'_>, connected: bool, ready: &Verdict) -> Condition {
    let (status, reason, message) = match (connected, facts.seen) {
        (true, _) => (ConditionStatus::True, Reason::Reporting, ""),
        (false, Some(_)) => (
            ConditionStatus::False,
            Reason::NotReporting,
            ready.message.as_str(),
        ),
        (false, None) => (ConditionStatus::False, Reason::NeverSeen, ""),
    };
    Condition::new(ConditionType::Connected, status, reason, message)
}

fn is_in_sync(
    facts: &Facts<'_>,
    in_sync: Option<bool>,
    is_drifted: bool,
    progress: &Verdict,
) -> Condition {
    let why = progress.message.as_str();
    let (status, reason, message) = match (facts.report, facts.offered, in_sync) {
        (None, ..) => (ConditionStatus::Unknown, Reason::NoReport, ""),
        (_, None, _) => (ConditionStatus::Unknown, Reason::NoRelease, ""),
        (.., Some(true)) if is_drifted => (ConditionStatus::False, Reason::FilesChanged, why),
        (.., Some(true)) => (ConditionStatus::True, Reason::UpToDate, ""),
        _ => (ConditionStatus::False, progress.reason, why),
    };
    Condition::new(ConditionType::InSync, status, reason, message)
}

fn is_updating(progress: &Verdict) -> Condition {
    let (status, reason, message) = if progress.state == State::Updating {
        let message = progress.message.as_str();
        (ConditionStatus::True, progress.reason, message)
    } else {
        (ConditionStatus::False, Reason::Idle, "")
    };
    Condition::new(ConditionType::Updating, status, reason, message)
}

fn is_healthy(facts: &Facts<'_>) -> Condition {
    let failed = facts
        .report
        .and_then(|report| of_state(report, WorkloadState::Failed).next());
    let mut workloads = facts.report.iter().flat_map(|report| &report.workloads);
    let unready = workloads.find(|workload| is_not_ready(workload));
    let (status, reason, message) = match (facts.report, failed, unready) {
        (None, ..) => (ConditionStatus::Unknown, Reason::NoReport, String::new()),
        (_, Some(workload), _) => (
            ConditionStatus::False,
            Reason::WorkloadFailed,
            describe(workload),
        ),
        (_, _, Some(workload)) => (ConditionStatus::False, Reason::NotReady, describe(workload)),
        (Some(_), None, None) => (ConditionStatus::True, Reason::AllHealthy, String::new()),
    };
    Condition::new(ConditionType::Healthy, status, reason, &message)
}

fn has_drifted(facts: &Facts<'_>, drifted: Option<&WorkloadReport>) -> Condition {
    let (status, reason, message) = match (facts.report, drifted) {
        (None, _) => (ConditionStatus::Unknown, Reason::NoReport, String::new()),
        (_, Some(workload)) => (
            ConditionStatus::True,
            Reason::FilesChanged,
            describe(workload),
        ),
        (Some(_), None) => (
            ConditionStatus::False,
            Reason::FilesUnchanged,
            String::new(),
        ),
    };
    Condition::new(ConditionType::Drifted, status, reason, &message)
}
