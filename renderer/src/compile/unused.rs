//! What a `PodSpec` says that the compiler does not carry out: never silence.

use flotta_bundle::code;
use serde_json::Value;

use super::Job;
use super::pod::SPEC;
use crate::decode::step;

/// What is carried out, by place in the spec; `*` is any item of a list. A place that is not named here as a key is carried
/// out with everything in it.
const CARRIED_OUT: [(&str, &[&str]); 11] = [
    (
        "",
        &[
            "containers",
            "initContainers",
            "volumes",
            "restartPolicy",
            "hostNetwork",
            "hostname",
            "hostAliases",
            "dnsConfig",
            "securityContext",
            "terminationGracePeriodSeconds",
        ],
    ),
    ("/securityContext", &["runAsUser", "runAsGroup"]),
    ("/dnsConfig", &["nameservers", "searches"]),
    (
        "/volumes/*",
        &[
            "name",
            "configMap",
            "hostPath",
            "emptyDir",
            "persistentVolumeClaim",
            "secret",
        ],
    ),
    ("/volumes/*/emptyDir", &["medium"]),
    ("/volumes/*/persistentVolumeClaim", &["claimName"]),
    (
        "/containers/*",
        &[
            "name",
            "image",
            "imagePullPolicy",
            "command",
            "args",
            "workingDir",
            "env",
            "envFrom",
            "ports",
            "volumeMounts",
            "securityContext",
            "resources",
        ],
    ),
    (
        "/containers/*/securityContext",
        &[
            "runAsUser",
            "runAsGroup",
            "privileged",
            "readOnlyRootFilesystem",
            "allowPrivilegeEscalation",
            "capabilities",
        ],
    ),
    ("/containers/*/resources", &["limits"]),
    (
        "/containers/*/ports/*",
        &["name", "containerPort", "hostPort", "hostIP", "protocol"],
    ),
    (
        "/containers/*/volumeMounts/*",
        &["name", "mountPath", "readOnly", "subPath"],
    ),
];

/// What cannot mean on a device what it says: an error, because something else would run than was asked for.
const REFUSED: [(&str, &str, &str); 5] = [
    (
        "",
        "ephemeralContainers",
        "they are for debugging in a cluster",
    ),
    (
        "",
        "resourceClaims",
        "a device has no scheduler that could give them",
    ),
    ("", "overhead", "a device has no runtime classes"),
    (
        "/containers/*",
        "volumeDevices",
        "use a hostPath volume of type BlockDevice",
    ),
    (
        "/containers/*",
        "restartPolicy",
        "sidecars as init containers are not supported: make it a container",
    ),
];

pub(super) fn warn(job: &mut Job<'_>) {
    let Some(spec) = job.workload.document.value.pointer(SPEC).cloned() else {
        return;
    };
    walk(job, &spec, "", SPEC);
}

/// `rule` is the place with `*` for items, `pointer` the place itself.
fn walk(job: &mut Job<'_>, value: &Value, rule: &str, pointer: &str) {
    match value {
        Value::Object(map) => {
            let carried_out = CARRIED_OUT
                .iter()
                .find(|(place, _)| *place == rule)
                .map(|(_, fields)| *fields);
            for (key, value) in map {
                let pointer = format!("{pointer}/{}", step(key));
                if let Some((.., why)) = REFUSED
                    .iter()
                    .find(|(place, field, _)| *place == rule && field == key)
                {
                    job.refuse(
                        code::UNSUPPORTED_FIELD,
                        &pointer,
                        format!("`{key}` is not supported on devices: {why}"),
                    );
                } else if carried_out.is_some_and(|fields| !fields.contains(&key.as_str())) {
                    let place = job.workload.document.key_place(&pointer);
                    job.warn(
                        code::NOT_ACTED_ON,
                        place,
                        format!("`{key}` is accepted but not acted on yet"),
                    );
                } else {
                    // Init containers are containers.
                    let name = if rule.is_empty() && key == "initContainers" {
                        "containers"
                    } else {
                        key
                    };
                    walk(job, value, &format!("{rule}/{name}"), &pointer);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(
                    job,
                    item,
                    &format!("{rule}/*"),
                    &format!("{pointer}/{index}"),
                );
            }
        }
        _ => {}
    }
}
