//! Probes. Commands become Podman's health checks, which do not need the agent; the agent runs all other probes.

mod action;

use flotta_bundle::code;
use flotta_bundle::health::{Action, HealthCheck, Purpose};
use k8s_openapi::api::core::v1::Probe;

use super::asked::Asked;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Check, Health};

const NO_GRPC: &str = "use `exec`, with a program that the image has";
const NOT_ITS_OWN: &str = "the grace period of the pod applies";
const HTTP: &str = "`health` of the manifest: the agent sends the request, as kubelet does";
const TCP: &str = "`health` of the manifest: the agent connects";
const TIMES: &str = "`health` of the manifest";
const NO_MORE: &str = "must be 1, as in Kubernetes";

pub(super) const FIELDS: &[Field] = &[
    Field::supported(
        "containers[].livenessProbe.exec",
        "`--health-cmd`; a container that fails is stopped, and systemd starts it again as `restartPolicy` says",
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
        "`--health-timeout`",
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
    Field::supported("containers[].startupProbe.exec", "`--health-startup-cmd`"),
    Field::supported(
        "containers[].startupProbe.initialDelaySeconds",
        "failures do not count during this time: the number of allowed failures grows",
    ),
    Field::supported(
        "containers[].startupProbe.periodSeconds",
        "`--health-startup-interval`",
    ),
    Field::supported(
        "containers[].startupProbe.timeoutSeconds",
        "`--health-startup-timeout`",
    ),
    Field::supported(
        "containers[].startupProbe.failureThreshold",
        "`--health-startup-retries`",
    ),
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

/// Returns the checks that Podman runs for the container of the unit `name`, and adds the others to the agent's.
pub(super) fn health(job: &mut Job<'_>, asked: Asked<'_>, name: &str) -> Health {
    let container = asked.container;
    let mut probe = |probe: &Option<Probe>, field: &str, purpose| {
        let pointer = asked.at(field);
        check(job, asked, probe.as_ref()?, &pointer, purpose)
    };
    let startup = probe(&container.startup_probe, "startupProbe", Purpose::Startup);
    let liveness = probe(
        &container.liveness_probe,
        "livenessProbe",
        Purpose::Liveness,
    );
    let readiness = probe(
        &container.readiness_probe,
        "readinessProbe",
        Purpose::Readiness,
    );
    // Whoever runs the startup check also runs the checks that wait for it, because Podman does not tell the agent that it passed.
    let is_podmans = |check: &HealthCheck| matches!(check.action, Action::Exec { .. });
    let others_are = liveness.as_ref().is_none_or(is_podmans) && readiness.is_none();
    let startup_is = startup.as_ref().is_none_or(is_podmans) && others_are;
    let liveness_is = liveness.as_ref().is_none_or(is_podmans) && (startup_is || startup.is_none());
    let mut health = Health::default();
    let podmans = [
        (startup, startup_is, &mut health.startup, "startupProbe"),
        (liveness, liveness_is, &mut health.check, "livenessProbe"),
    ];
    let mut agents: Vec<_> = readiness.into_iter().collect();
    for (check, is_podmans, out, field) in podmans {
        match check {
            Some(check) if is_podmans => *out = podmans_check(job, check, &asked.at(field)),
            other => agents.extend(other),
        }
    }
    if let Some(check) = &mut health.startup {
        // Podman starts at once and has no initial delay for startup checks.
        check.failures = check
            .failures
            .saturating_add(check.delay.div_ceil(check.interval));
        check.delay = 0;
    }
    for check in agents {
        job.out.checks.push(HealthCheck {
            unit: format!("{name}.service"),
            container: name.to_owned(),
            ..check
        });
    }
    health
}

/// Returns a probe with Kubernetes' defaults. The caller fills in unit and container.
fn check(
    job: &mut Job<'_>,
    asked: Asked<'_>,
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
    let action = action::action(job, asked, probe, pointer)?;
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
