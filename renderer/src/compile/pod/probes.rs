//! Probes. A liveness command becomes Podman's health check, which does not need the agent; the agent runs all other probes. It
//! also runs a liveness command that waits for a startup probe: when a startup check of Podman's fails, Podman restarts the
//! container itself instead of leaving that to systemd.

mod action;

use flotta_bundle::code;
use flotta_bundle::health::{Action, HealthCheck, Purpose};
use k8s_openapi::api::core::v1::Probe;

use super::context::ContainerContext;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::pod::lifecycle::is_sidecar;
use crate::compile::unit::Check;

const NO_GRPC: &str = "use `exec`, with a program that the image has";
const NOT_ITS_OWN: &str = "the grace period of the pod applies";
const HTTP: &str = "`health` of the manifest: the agent sends the request, as kubelet does";
const TCP: &str = "`health` of the manifest: the agent connects";
const EXEC: &str = "`health` of the manifest: the agent has Podman run it";
const TIMES: &str = "`health` of the manifest";
const NO_MORE: &str = "must be 1, as in Kubernetes";

pub(super) const FIELDS: &[Field] = &[
    Field::supported(
        "containers[].livenessProbe.exec",
        "`--health-cmd`; a container that fails is stopped, and systemd starts it again as `restartPolicy` says. With a `startupProbe`, `health` of the manifest",
    ),
    Field::supported(
        "containers[].livenessProbe.initialDelaySeconds",
        "`--health-start-period`: failures do not count during this time",
    ),
    Field::supported(
        "containers[].livenessProbe.periodSeconds",
        "`--health-interval`",
    ),
    Field::supported(
        "containers[].livenessProbe.timeoutSeconds",
        "`--health-timeout`: Podman 5.4 looks at the time when the command has ended; one that never ends does not fail, so give it a limit of its own (`timeout 5 …`, `curl --max-time`)",
    ),
    Field::supported(
        "containers[].livenessProbe.failureThreshold",
        "`--health-retries`",
    ),
    Field::supported("containers[].livenessProbe.successThreshold", NO_MORE),
    Field::supported("containers[].livenessProbe.httpGet", HTTP),
    Field::supported("containers[].livenessProbe.tcpSocket", TCP),
    Field::refused("containers[].livenessProbe.grpc", NO_GRPC),
    Field::refused(
        "containers[].livenessProbe.terminationGracePeriodSeconds",
        NOT_ITS_OWN,
    ),
    Field::supported("containers[].startupProbe.exec", EXEC),
    Field::supported("containers[].startupProbe.initialDelaySeconds", TIMES),
    Field::supported("containers[].startupProbe.periodSeconds", TIMES),
    Field::supported("containers[].startupProbe.timeoutSeconds", TIMES),
    Field::supported("containers[].startupProbe.failureThreshold", TIMES),
    Field::supported("containers[].startupProbe.successThreshold", NO_MORE),
    Field::supported("containers[].startupProbe.httpGet", HTTP),
    Field::supported("containers[].startupProbe.tcpSocket", TCP),
    Field::refused("containers[].startupProbe.grpc", NO_GRPC),
    Field::refused(
        "containers[].startupProbe.terminationGracePeriodSeconds",
        NOT_ITS_OWN,
    ),
    Field::supported(
        "containers[].readinessProbe.exec",
        "`health` of the manifest: the agent runs it with Podman. A failure does not stop the container, but while it is not ready, the device is reported as not healthy",
    ),
    Field::supported("containers[].readinessProbe.httpGet", HTTP),
    Field::supported("containers[].readinessProbe.tcpSocket", TCP),
    Field::supported("containers[].readinessProbe.initialDelaySeconds", TIMES),
    Field::supported("containers[].readinessProbe.periodSeconds", TIMES),
    Field::supported("containers[].readinessProbe.timeoutSeconds", TIMES),
    Field::supported("containers[].readinessProbe.failureThreshold", TIMES),
    Field::supported("containers[].readinessProbe.successThreshold", TIMES),
    Field::refused("containers[].readinessProbe.grpc", NO_GRPC),
    Field::refused(
        "containers[].readinessProbe.terminationGracePeriodSeconds",
        NOT_ITS_OWN,
    ),
];

/// Returns the check that Podman runs for the container of the unit `name`, if any, and adds the others to the agent's.
pub(super) fn health(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    name: &str,
) -> Option<Check> {
    let container = context.container;
    let probes = [
        ("startupProbe", &container.startup_probe, Purpose::Startup),
        (
            "livenessProbe",
            &container.liveness_probe,
            Purpose::Liveness,
        ),
        (
            "readinessProbe",
            &container.readiness_probe,
            Purpose::Readiness,
        ),
    ];
    let mut podmans = None;
    for (field, probe, purpose) in probes {
        let Some(probe) = probe else { continue };
        let pointer = context.at(field);
        if let Some(why) = not_supported(context, purpose) {
            job.refuse(code::UNSUPPORTED_FIELD, &pointer, why);
            continue;
        }
        let Some(check) = check(job, context, probe, &pointer, purpose) else {
            continue;
        };
        let is_command = matches!(check.action, Action::Exec { .. });
        if is_command && purpose == Purpose::Liveness && container.startup_probe.is_none() {
            podmans = podmans_check(job, check, &pointer);
        } else {
            job.out.checks.push(HealthCheck {
                unit: format!("{name}.service"),
                container: name.to_owned(),
                ..check
            });
        }
    }
    podmans
}

/// Returns why a check for this purpose would not mean what it means in Kubernetes, if so.
fn not_supported(context: ContainerContext<'_>, purpose: Purpose) -> Option<&'static str> {
    let is_on_failure = context.spec.restart_policy.as_deref() == Some("OnFailure");
    if purpose == Purpose::Startup && is_sidecar(context.container) {
        return Some("what follows a sidecar on a device does not wait for its startup check");
    }
    if purpose != Purpose::Readiness && is_on_failure && !is_sidecar(context.container) {
        return Some(
            "with `restartPolicy: OnFailure`, a container that was stopped for its check and ends well would stay stopped: use Always",
        );
    }
    None
}

/// Returns a probe with Kubernetes' defaults. The caller fills in unit and container.
fn check(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    probe: &Probe,
    pointer: &str,
    purpose: Purpose,
) -> Option<HealthCheck> {
    let mut number = |field: &str, given: Option<i32>, default: u32, least: u32| {
        let Some(given) = given else {
            return default;
        };
        let good = u32::try_from(given).ok().filter(|number| *number >= least);
        if good.is_none() {
            let message = format!("`{field}` must be at least {least}, not {given}");
            job.refuse(code::SCHEMA, &format!("{pointer}/{field}"), message);
        }
        good.unwrap_or(default)
    };
    let delay_seconds = number("initialDelaySeconds", probe.initial_delay_seconds, 0, 0);
    let period_seconds = number("periodSeconds", probe.period_seconds, 10, 1);
    let timeout_seconds = number("timeoutSeconds", probe.timeout_seconds, 1, 1);
    let failures = number("failureThreshold", probe.failure_threshold, 3, 1);
    let mut successes = number("successThreshold", probe.success_threshold, 1, 1);
    if purpose != Purpose::Readiness && successes != 1 {
        let message = format!("`successThreshold` of this probe must be 1, not {successes}");
        let pointer = format!("{pointer}/successThreshold");
        job.refuse(code::SCHEMA, &pointer, message);
        successes = 1;
    }
    let action = action::action(job, context, probe, pointer)?;
    Some(HealthCheck {
        unit: String::new(),
        container: String::new(),
        purpose,
        action,
        delay_seconds,
        period_seconds,
        timeout_seconds,
        failures,
        successes,
    })
}

/// Returns a check that Podman runs.
fn podmans_check(job: &mut Job<'_>, check: HealthCheck, pointer: &str) -> Option<Check> {
    let Action::Exec { command } = check.action else {
        return None;
    };
    let pointer = format!("{pointer}/exec/command");
    if let Some(why) = not_podmans(&command) {
        job.refuse(code::SCHEMA, &pointer, why);
        return None;
    }
    job.command(&command, &pointer).then_some(Check {
        command,
        delay: check.delay_seconds,
        interval: check.period_seconds,
        timeout: check.timeout_seconds,
        failures: check.failures,
    })
}

/// Returns why Podman would not run a command as it is written.
fn not_podmans(command: &[String]) -> Option<&'static str> {
    let (program, arguments) = command.split_first()?;
    if ["CMD", "CMD-SHELL", "NONE"].contains(&program.to_uppercase().as_str()) {
        return Some("this word has a special meaning in Podman: write the path of the program");
    }
    if arguments.is_empty() && (program.is_empty() || program.contains(char::is_whitespace)) {
        return Some("Podman would split the program's name at its spaces");
    }
    None
}
