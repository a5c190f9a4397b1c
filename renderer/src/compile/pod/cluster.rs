//! The fields of a `PodSpec` that are for a cluster: scheduling, priority and access to its API.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::PodSpec;

use super::context::SPEC;
use super::field::Field;
use crate::compile::job::Job;

/// Why hints to a scheduler have no effect. They are no errors, because nothing runs where it should not.
const CHOSEN: &str = "`device` or `deviceSelector` says where it runs";
/// Why constraints on nodes are refused: the pod would run where it should not.
const NOT_CHOSEN: &str = "say where it runs by `device` or `deviceSelector` of the workload";
const NO_API: &str = "a device has no API server of a cluster";

pub(super) const FIELDS: &[Field] = &[
    Field::refused("nodeName", NOT_CHOSEN),
    Field::refused("nodeSelector", NOT_CHOSEN),
    Field::refused("affinity", NOT_CHOSEN),
    Field::refused(
        "schedulingGates",
        "a device has no scheduler that would remove them",
    ),
    Field::no_effect("tolerations", CHOSEN),
    Field::no_effect("topologySpreadConstraints", CHOSEN),
    Field::no_effect("schedulerName", CHOSEN),
    Field::no_effect("priority", "nothing is evicted from a device"),
    Field::no_effect("priorityClassName", "nothing is evicted from a device"),
    Field::no_effect("preemptionPolicy", "nothing is evicted from a device"),
    Field::no_effect("serviceAccount", NO_API),
    Field::no_effect("serviceAccountName", NO_API),
    Field::no_effect("automountServiceAccountToken", NO_API),
    Field::no_effect(
        "enableServiceLinks",
        "a device has no Services of a cluster",
    ),
    Field::refused("readinessGates", "nothing on a device sets the conditions"),
    Field::refused("runtimeClassName", "a device has no runtime classes"),
    Field::supported("os.name", "an error unless it is `linux`"),
];

/// Checks that the pod is for Linux.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) {
    let os = spec.os.as_ref().map(|os| os.name.as_str());
    if let Some(other) = os.filter(|name| *name != "linux") {
        let message = format!("`{other}`: devices run Linux");
        job.refuse(code::SCHEMA, &format!("{SPEC}/os/name"), message);
    }
}
