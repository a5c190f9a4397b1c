//! Timers, the jobs that they start, and jobs that run once.

use super::*;
use crate::backend::fake::bundle::Job;

fn backup(says: &str) -> Workload {
    Workload::new("backup").job(Job::Timer).says(says)
}

fn migrate(says: &str) -> Workload {
    Workload::new("migrate").job(Job::Change).says(says)
}

/// The timer is waiting, and its job is inactive.
fn at_rest(observed: &mut Observed, _: &mut Owned) {
    for (name, unit) in &mut observed.units {
        if name.strip_suffix(".timer").is_some() {
            "enabled".clone_into(&mut unit.file_state);
        } else {
            "inactive".clone_into(&mut unit.active);
        }
    }
}

#[test]
fn a_timer_is_enabled_and_started_and_its_job_is_not() {
    let (steps_, held) = steps(&[], &[backup("")], |_, _| ());
    let expected = [
        "begin",
        "write backup.container",
        "write backup.timer",
        "enable backup.timer",
        "reload",
        "reloaded",
        "start backup.timer",
        "finish",
    ];
    assert_eq!(
        (steps_, held),
        (expected.map(str::to_owned).to_vec(), vec![])
    );
    let (steps_, _) = steps(&[backup("")], &[backup("")], at_rest);
    assert_eq!(steps_, NONE);
    let (steps, _) = steps(&[backup("")], &[backup("Environment=A=b")], at_rest);
    let expected = [
        "begin",
        "write backup.container",
        "reload",
        "reloaded",
        "finish",
    ];
    assert_eq!(steps, expected, "the new job runs when its time comes");
}

#[test]
fn a_timer_that_leaves_is_stopped_and_disabled_before_its_file_goes() {
    let (steps, _) = steps(&[backup("")], &[], at_rest);
    let expected = [
        "stop backup.timer",
        "disable backup.timer",
        "remove backup.container",
        "remove backup.timer",
        "reload",
        "reset backup.timer",
        "sweep backup",
        "finish",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_timer_that_somebody_disabled_is_enabled_again() {
    let (steps, _) = steps(&[backup("")], &[backup("")], |observed, owned| {
        at_rest(observed, owned);
        let timer = observed.units.get_mut("backup.timer").expect("a timer");
        "disabled".clone_into(&mut timer.file_state);
    });
    assert_eq!(steps, ["enable backup.timer", "reload", "finish"]);
}

#[test]
fn a_job_without_a_timer_is_started_after_a_change_and_not_again() {
    let (steps_, _) = steps(&[], &[migrate("")], |_, _| ());
    assert!(
        steps_.contains(&"start migrate.service".to_owned()),
        "{steps_:?}"
    );
    let (steps_, _) = steps(&[migrate("")], &[migrate("")], at_rest);
    assert_eq!(steps_, NONE, "it is done");
    let (steps, _) = steps(&[migrate("")], &[migrate("Environment=A=b")], at_rest);
    assert!(
        steps.contains(&"start migrate.service".to_owned()),
        "{steps:?}"
    );
}

#[test]
fn a_unit_that_the_machine_has_from_elsewhere_is_not_replaced() {
    let (steps, held) = steps(&[], &[backup("")], |observed, _| {
        let timer = observed.units.get_mut("backup.timer").expect("a timer");
        *timer = up("");
        "/usr/lib/systemd/system/backup.timer".clone_into(&mut timer.fragment);
    });
    assert_eq!(steps, NONE);
    assert_eq!(held, ["backup FLT0504"]);
}

#[test]
fn a_timer_that_leaves_is_disabled_whatever_systemd_has_cached() {
    let (steps, _) = steps(&[backup("")], &[], |observed, owned| {
        at_rest(observed, owned);
        let timer = observed.units.get_mut("backup.timer").expect("a timer");
        "disabled".clone_into(&mut timer.file_state);
    });
    let disable = "disable backup.timer".to_owned();
    assert!(steps.contains(&disable), "{steps:?}");
}

/// A job whose files are in place since a try that ended before it was settled.
fn unsettled(invocation: &str) -> Vec<String> {
    let (steps, _) = steps(&[migrate("")], &[migrate("")], |observed, owned| {
        at_rest(observed, owned);
        let job = observed.units.get_mut("migrate.service").expect("a job");
        invocation.clone_into(&mut job.invocation);
        let job = owned.units.get_mut("migrate.service").expect("a job");
        job.due = Some(Due::Since("before".to_owned()));
    });
    steps
}

#[test]
fn a_job_that_has_run_is_not_run_again_for_a_death_before_it_was_settled() {
    assert!(unsettled("before").contains(&"start migrate.service".to_owned()));
    // a boot was in between
    assert!(unsettled("").contains(&"start migrate.service".to_owned()));
    assert_eq!(unsettled("after"), ["finish"]);
}
