//! When a container starts, stops and restarts.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, PodSpec};

use super::context::{ContainerContext, SPEC};
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Hook, Restart, Service};

/// The default grace period of Kubernetes, in seconds.
const GRACE_SECONDS: i64 = 30;
/// The longest grace period, in seconds: a day.
const MAX_GRACE_SECONDS: i64 = 86_400;

const NO_HTTP: &str = "use `exec`, with a program that the image has";

pub(super) const FIELDS: &[Field] = &[
    Field::supported(
        "restartPolicy",
        "`Restart=`; whatever it says, a container that was done runs again when the device boots",
    ),
    Field::supported(
        "terminationGracePeriodSeconds",
        "`StopTimeout=`, 30 when absent, and a `TimeoutStopSec=` above it",
    ),
    Field::supported(
        "activeDeadlineSeconds",
        "`RuntimeMaxSec=`, from the start of each container; only with `restartPolicy: Never`, because systemd would otherwise start it again",
    ),
    Field::refused("ephemeralContainers", "they are for debugging in a cluster"),
    Field::supported(
        "containers[].restartPolicy",
        "`Always` of an init container: it starts before those that follow and keeps running; if it ends or cannot start, they are not stopped",
    ),
    Field::refused(
        "containers[].restartPolicyRules",
        "systemd has no such rules: use `restartPolicy` of the pod",
    ),
    Field::supported("containers[].lifecycle.stopSignal", "`StopSignal=`"),
    Field::supported(
        "containers[].lifecycle.postStart.exec",
        "`ExecStartPost=` with `podman exec`",
    ),
    Field::supported("containers[].lifecycle.postStart.sleep", "`ExecStartPost=`"),
    Field::refused("containers[].lifecycle.postStart.httpGet", NO_HTTP),
    Field::refused("containers[].lifecycle.postStart.tcpSocket", NO_HTTP),
    Field::supported(
        "containers[].lifecycle.preStop.exec",
        "`ExecStop=` with `podman exec`, for at most the grace period; the container's own grace period begins after it. systemd runs it after a crash as well, and not where a failed check stops the container",
    ),
    Field::supported("containers[].lifecycle.preStop.sleep", "`ExecStop=`"),
    Field::refused("containers[].lifecycle.preStop.httpGet", NO_HTTP),
    Field::refused("containers[].lifecycle.preStop.tcpSocket", NO_HTTP),
    Field::supported(
        "containers[].terminationMessagePath",
        "nothing: a device does not read the message, but the container may write it",
    ),
    Field::supported(
        "containers[].terminationMessagePolicy",
        "nothing: the container's log is in the journal",
    ),
];

/// Whether an init container keeps running next to those that follow it.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Checks the values that Kubernetes' schema does not restrict.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) {
    let policy = spec.restart_policy.as_deref();
    if let Some(other) = policy.filter(|word| !["Always", "OnFailure", "Never"].contains(word)) {
        let message = format!("`{other}`: use Always, OnFailure or Never");
        job.refuse(code::SCHEMA, &format!("{SPEC}/restartPolicy"), message);
    }
    let mut init = spec.init_containers.iter().flatten();
    if policy == Some("Never") && init.any(|container| !is_sidecar(container)) {
        let message = "with init containers: systemd would start one that fails again, with those that wait for it; use Always or OnFailure";
        job.refuse(
            code::UNSUPPORTED_FIELD,
            &format!("{SPEC}/restartPolicy"),
            message,
        );
    }
    if policy == Some("Never") {
        let message =
            "it is run once for each boot of the device: Kubernetes would not run it again";
        job.note(&format!("{SPEC}/restartPolicy"), message);
    }
    let grace = spec.termination_grace_period_seconds.unwrap_or_default();
    if !(0..=MAX_GRACE_SECONDS).contains(&grace) {
        let message = format!("{grace} is not a number of seconds from 0 to {MAX_GRACE_SECONDS}");
        let pointer = format!("{SPEC}/terminationGracePeriodSeconds");
        job.refuse(code::SCHEMA, &pointer, message);
    }
    if let Some(deadline) = spec.active_deadline_seconds {
        let pointer = format!("{SPEC}/activeDeadlineSeconds");
        if policy != Some("Never") {
            let message = "systemd would start it again after its deadline: use it with `restartPolicy: Never`";
            job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
        } else if u32::try_from(deadline)
            .ok()
            .is_none_or(|seconds| seconds == 0)
        {
            let message = format!(
                "{deadline} is not a number of seconds from 1 to {}",
                u32::MAX
            );
            job.refuse(code::SCHEMA, &pointer, message);
        }
    }
    let init = spec.init_containers.iter().flatten();
    for (field, index, container) in (init.enumerate())
        .map(|(index, container)| ("initContainers", index, container))
        .chain((spec.containers.iter().enumerate()).map(|(index, c)| ("containers", index, c)))
    {
        check_container(
            job,
            container,
            field == "initContainers",
            &format!("{SPEC}/{field}/{index}"),
        );
    }
}

fn check_container(job: &mut Job<'_>, container: &Container, init: bool, pointer: &str) {
    let sidecar = init && is_sidecar(container);
    if let Some(word) = container.restart_policy.as_deref()
        && !sidecar
    {
        let message = format!(
            "`{word}`: containers use the pod's `restartPolicy`; only an init container may set `Always`"
        );
        job.refuse(
            code::UNSUPPORTED_FIELD,
            &format!("{pointer}/restartPolicy"),
            message,
        );
    }
    if !init || sidecar {
        return;
    }
    let hooks = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in hooks.iter().filter(|(_, given)| *given) {
        let message = format!("an init container that must finish cannot have a `{field}`");
        job.refuse(code::SCHEMA, &format!("{pointer}/{field}"), message);
    }
}

/// Returns how systemd runs a container. One that has finished stays "active (exited)" and is not started again, unless its
/// policy is `Always`.
pub(super) fn service(job: &mut Job<'_>, context: ContainerContext<'_>) -> Service {
    let (restart, remains) = match context.spec.restart_policy.as_deref() {
        _ if context.init => (Restart::OnFailure, true),
        _ if is_sidecar(context.container) => (Restart::Always, false),
        Some("OnFailure") => (Restart::OnFailure, true),
        Some("Never") => (Restart::Never, true),
        _ => (Restart::Always, false),
    };
    let seconds = |seconds: i64| u32::try_from(seconds).unwrap_or_default();
    let grace = context.spec.termination_grace_period_seconds;
    let deadline = context.spec.active_deadline_seconds.map(seconds);
    let own = context.container.lifecycle.clone().unwrap_or_default();
    Service {
        restart,
        oneshot: context.init,
        remains,
        stop_seconds: seconds(grace.unwrap_or(GRACE_SECONDS)),
        stop_signal: own
            .stop_signal
            .filter(|signal| is_signal(job, signal, context)),
        started: own
            .post_start
            .and_then(|hook| self::hook(job, hook, &context.at("lifecycle/postStart"))),
        stopping: own
            .pre_stop
            .and_then(|hook| self::hook(job, hook, &context.at("lifecycle/preStop"))),
        deadline: deadline.filter(|_| !context.init),
    }
}

fn is_signal(job: &mut Job<'_>, signal: &str, context: ContainerContext<'_>) -> bool {
    let name = signal.strip_prefix("SIG").unwrap_or_default();
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c);
    let good = !name.is_empty() && name.chars().all(plain);
    if !good {
        let message = format!("{signal:?} is not a signal: write it like SIGTERM or SIGUSR1");
        job.refuse(code::SCHEMA, &context.at("lifecycle/stopSignal"), message);
    }
    good
}

fn hook(job: &mut Job<'_>, hook: LifecycleHandler, pointer: &str) -> Option<Hook> {
    if let Some(sleep) = hook.sleep {
        let seconds = u32::try_from(sleep.seconds).ok();
        if seconds.is_none() {
            let message = format!("{} is not a number of seconds", sleep.seconds);
            job.refuse(code::SCHEMA, &format!("{pointer}/sleep/seconds"), message);
        }
        return seconds.map(Hook::Sleep);
    }
    let command = hook.exec.and_then(|exec| exec.command).unwrap_or_default();
    if command.is_empty() {
        job.refuse(
            code::SCHEMA,
            pointer,
            "a hook needs an `exec` with a command",
        );
        return None;
    }
    let good = job.command(&command, &format!("{pointer}/exec/command"));
    good.then_some(Hook::Command(command))
}
