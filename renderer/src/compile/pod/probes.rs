//! How it is seen that a container works: commands are Podman's health checks.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::Probe;

use super::asked::Asked;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Check, Health};

const NO_GRPC: &str = "use `exec`, with a program that the image has";

pub(super) const FIELDS: &[Field] = &[
    Field::carried(
        "containers[].livenessProbe.exec",
        "`--health-cmd`; a container that fails is stopped, and systemd starts it again as `restartPolicy` says",
    ),
    Field::carried(
        "containers[].livenessProbe.initialDelaySeconds",
        "`--health-start-period`: failures do not count for so long",
    ),
    Field::carried(
        "containers[].livenessProbe.periodSeconds",
        "`--health-interval`",
    ),
    Field::carried(
        "containers[].livenessProbe.timeoutSeconds",
        "`--health-timeout`",
    ),
    Field::carried(
        "containers[].livenessProbe.failureThreshold",
        "`--health-retries`",
    ),
    Field::carried(
        "containers[].livenessProbe.successThreshold",
        "1, as Kubernetes wants it",
    ),
    Field::refused("containers[].livenessProbe.grpc", NO_GRPC),
    Field::refused(
        "containers[].livenessProbe.terminationGracePeriodSeconds",
        "it is the pod's",
    ),
    Field::carried("containers[].startupProbe.exec", "`--health-startup-cmd`"),
    Field::carried(
        "containers[].startupProbe.initialDelaySeconds",
        "failures do not count for so long: more of them are let pass",
    ),
    Field::carried(
        "containers[].startupProbe.periodSeconds",
        "`--health-startup-interval`",
    ),
    Field::carried(
        "containers[].startupProbe.timeoutSeconds",
        "`--health-startup-timeout`",
    ),
    Field::carried(
        "containers[].startupProbe.failureThreshold",
        "`--health-startup-retries`",
    ),
    Field::carried(
        "containers[].startupProbe.successThreshold",
        "1, as Kubernetes wants it",
    ),
    Field::refused("containers[].startupProbe.grpc", NO_GRPC),
    Field::refused(
        "containers[].startupProbe.terminationGracePeriodSeconds",
        "it is the pod's",
    ),
    Field::no_effect(
        "containers[].readinessProbe",
        "nothing sends requests to ready containers only",
    ),
];

/// The container's health checks.
pub(super) fn health(job: &mut Job<'_>, asked: Asked<'_>) -> Health {
    let container = asked.container;
    let mut startup = check(
        job,
        container.startup_probe.as_ref(),
        &asked.at("startupProbe"),
    );
    if let Some(check) = &mut startup {
        // Podman begins at once and has no time in which failures do not count.
        check.failures = check
            .failures
            .saturating_add(check.delay.div_ceil(check.interval));
        check.delay = 0;
    }
    Health {
        check: check(
            job,
            container.liveness_probe.as_ref(),
            &asked.at("livenessProbe"),
        ),
        startup,
    }
}

/// The check of a probe with a command, with Kubernetes' defaults.
fn check(job: &mut Job<'_>, probe: Option<&Probe>, pointer: &str) -> Option<Check> {
    let probe = probe?;
    let mut number = |field: &str, given: Option<i32>, default: u32, least: u32| {
        let Some(given) = given else {
            return default;
        };
        let good = u32::try_from(given).ok().filter(|number| *number >= least);
        if good.is_none() {
            let message = format!("{given} is not a number from {least}");
            job.refuse(code::SCHEMA, &format!("{pointer}/{field}"), message);
        }
        good.unwrap_or(default)
    };
    let delay = number("initialDelaySeconds", probe.initial_delay_seconds, 0, 0);
    let interval = number("periodSeconds", probe.period_seconds, 10, 1);
    let timeout = number("timeoutSeconds", probe.timeout_seconds, 1, 1);
    let failures = number("failureThreshold", probe.failure_threshold, 3, 1);
    if let Some(other) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        let message = format!("{other}: it must be 1 here");
        job.refuse(
            code::SCHEMA,
            &format!("{pointer}/successThreshold"),
            message,
        );
    }
    let exec = probe.exec.as_ref()?;
    let command = exec.command.clone().unwrap_or_default();
    if let Some(why) = not_podmans(&command) {
        job.refuse(code::SCHEMA, &format!("{pointer}/exec/command"), why);
        return None;
    }
    let good = job.command(&command, &format!("{pointer}/exec/command"));
    good.then_some(Check {
        command,
        delay,
        interval,
        timeout,
        failures,
    })
}

/// Why Podman would not run a command as it stands.
fn not_podmans(command: &[String]) -> Option<&'static str> {
    let [program, arguments @ ..] = command else {
        return Some("a command needs a program");
    };
    if ["CMD", "CMD-SHELL", "NONE"].contains(&program.to_uppercase().as_str()) {
        return Some(
            "Podman has a meaning of its own for this word: write the path of the program",
        );
    }
    if arguments.is_empty() && (program.is_empty() || program.contains(char::is_whitespace)) {
        return Some("Podman would split the program's name at its spaces");
    }
    None
}
