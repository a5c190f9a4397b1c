//! The namespaces that a container shares with the device and with the other containers of its pod.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::PodSpec;

use super::context::SPEC;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Namespaces;

pub(super) const FIELDS: &[Field] = &[
    Field::supported("hostPID", "`PodmanArgs=--pid=host`"),
    Field::supported("hostIPC", "`PodmanArgs=--ipc=host`"),
    Field::supported(
        "shareProcessNamespace",
        "a pod with `PodmanArgs=--share=+pid`",
    ),
    Field::supported("hostUsers", "`PodmanArgs=--userns=auto`"),
];

/// Reports fields that Kubernetes does not accept together.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) {
    let host = [
        (spec.host_network, "hostNetwork"),
        (spec.host_pid, "hostPID"),
        (spec.host_ipc, "hostIPC"),
    ];
    let mut host = host.iter().filter(|(on, _)| *on == Some(true));
    if spec.host_users == Some(false)
        && let Some((_, field)) = host.next()
    {
        let message = format!("`hostUsers` cannot be false with {field}");
        job.refuse(code::SCHEMA, &format!("{SPEC}/hostUsers"), message);
    }
    if shares_processes(spec) && spec.host_pid == Some(true) {
        let pointer = format!("{SPEC}/shareProcessNamespace");
        job.refuse(
            code::SCHEMA,
            &pointer,
            "`shareProcessNamespace` cannot be true with hostPID",
        );
    }
}

/// Whether the containers see each other's processes. None of them then has process id 1.
pub(super) fn shares_processes(spec: &PodSpec) -> bool {
    spec.share_process_namespace == Some(true)
}

/// Whether the pod has its own user namespace.
pub(super) fn own_users(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

/// Returns the namespaces of each container.
pub(super) fn namespaces(spec: &PodSpec) -> Namespaces {
    Namespaces {
        host_processes: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        own_users: own_users(spec),
    }
}
