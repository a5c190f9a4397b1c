//! When a container starts, stops and is started again.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::PodSpec;

use super::asked::{Asked, SPEC};
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Restart, Service};

pub(super) const FIELDS: &[Field] = &[
    Field::carried("restartPolicy", "`Restart=`"),
    Field::carried("terminationGracePeriodSeconds", "`StopTimeout=`"),
    Field::refused("ephemeralContainers", "they are for debugging in a cluster"),
    Field::refused(
        "containers[].restartPolicy",
        "sidecars as init containers are not supported: make it a container",
    ),
];

/// Whether the restart policy is one: Kubernetes' schema does not say.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) {
    let policy = spec.restart_policy.as_deref();
    if let Some(other) = policy.filter(|word| !["Always", "OnFailure", "Never"].contains(word)) {
        let message = format!("`{other}`: use Always, OnFailure or Never");
        job.refuse(code::SCHEMA, &format!("{SPEC}/restartPolicy"), message);
    }
}

/// A container that is done stays "active (exited)", and is not started again for being done, unless it is to run always.
pub(super) fn service(asked: Asked<'_>) -> Service {
    let (restart, remains) = match asked.spec.restart_policy.as_deref() {
        _ if asked.init => (Restart::OnFailure, true),
        Some("OnFailure") => (Restart::OnFailure, true),
        Some("Never") => (Restart::Never, true),
        _ => (Restart::Always, false),
    };
    let seconds = asked.spec.termination_grace_period_seconds;
    let seconds = seconds.map(|seconds| seconds.clamp(0, 86_400));
    Service {
        restart,
        oneshot: asked.init,
        remains,
        stop_seconds: seconds.and_then(|seconds| u32::try_from(seconds).ok()),
    }
}
