//! The resource limits of a container.

use std::collections::BTreeMap;

use flotta_bundle::code;
use k8s_openapi::apimachinery::pkg::api::resource;

use super::context::ContainerContext;
use super::field::Field;
use super::quantity::Quantity;
use crate::compile::job::Job;
use crate::compile::unit::Limits;
use crate::pointer::step;

pub(super) const FIELDS: &[Field] = &[
    Field::supported(
        "containers[].resources.limits",
        "`PodmanArgs=--cpus`, `--memory` and `--device`",
    ),
    Field::supported(
        "containers[].resources.requests",
        "`PodmanArgs=--memory-reservation`",
    ),
    Field::refused(
        "containers[].resources.claims",
        "a device has no drivers for them",
    ),
    Field::no_effect(
        "containers[].resizePolicy",
        "a container restarts when its limits change",
    ),
    Field::refused("resources", "set the limits of each container"),
    Field::refused(
        "resourceClaims",
        "a device has no scheduler that allocates them",
    ),
    Field::refused("overhead", "a device has no runtime classes"),
];

/// The smallest CPU limit, in thousandths.
const LEAST_CPU: u64 = 10;

type Given = BTreeMap<String, resource::Quantity>;

pub(super) fn limits(job: &mut Job<'_>, context: ContainerContext<'_>) -> Limits {
    let resources = context.container.resources.clone().unwrap_or_default();
    let limits = amounts(job, resources.limits, &context.at("resources/limits"));
    let requests = amounts(job, resources.requests, &context.at("resources/requests"));
    let mut out = Limits::default();
    for (name, amount) in &limits {
        let pointer = context.at(&format!("resources/limits/{}", step(name)));
        match name.as_str() {
            // As in Kubernetes, zero is no limit.
            "cpu" => {
                let cpu = Some(amount.thousandths()).filter(|amount| *amount > 0);
                // Linux accepts no quota below 1 ms in 100 ms; kubelet raises it as well.
                out.cpu = cpu.map(|amount| amount.max(LEAST_CPU));
            }
            "memory" => out.memory = Some(amount.units()).filter(|amount| *amount > 0),
            _ => out.devices.extend(device(job, name, &pointer)),
        }
    }
    for (name, amount) in &requests {
        let pointer = context.at(&format!("resources/requests/{}", step(name)));
        if limits.get(name).is_some_and(|limit| limit < amount) {
            let message = format!("the request for {name} is greater than its limit");
            job.refuse(code::SCHEMA, &pointer, message);
        }
        match name.as_str() {
            "memory" => out.reserved = Some(amount.units()).filter(|amount| *amount > 0),
            "cpu" | "ephemeral-storage" => {
                let why = "a device has no scheduler that reserves it";
                job.note(
                    &pointer,
                    format!("the request for `{name}` has no effect: {why}"),
                );
            }
            _ if limits.contains_key(name) => {} // The limit adds it.
            _ => out.devices.extend(device(job, name, &pointer)),
        }
    }
    out
}

fn amounts(job: &mut Job<'_>, given: Option<Given>, pointer: &str) -> BTreeMap<String, Quantity> {
    let mut amounts = BTreeMap::new();
    for (name, resource::Quantity(text)) in given.into_iter().flatten() {
        if let Some(amount) = Quantity::parse(&text) {
            amounts.insert(name, amount);
        } else {
            let message = format!("`{text}` is not a quantity");
            job.refuse(code::SCHEMA, &format!("{pointer}/{}", step(&name)), message);
        }
    }
    amounts
}

/// Returns a device of the host as `podman kube play` accepts it: `podman.io/device=/dev/video0`, or a name of the Container
/// Device Interface.
fn device(job: &mut Job<'_>, name: &str, pointer: &str) -> Option<String> {
    if name.contains('=') && name.contains('/') {
        let path = name.strip_prefix("podman.io/device=").unwrap_or(name);
        return job.plain_word(path, pointer).then(|| path.to_owned());
    }
    let why = match name {
        "ephemeral-storage" => "Podman cannot limit the storage of a container".to_owned(),
        _ if name.starts_with("hugepages-") => "Podman cannot allocate huge pages".to_owned(),
        _ => "a device has no device plugins; mount its node with a hostPath volume, or use \
              `podman.io/device=PATH`"
            .to_owned(),
    };
    let message = format!("`{name}` is not supported on devices: {why}");
    job.refuse(code::UNSUPPORTED_FIELD, pointer, message);
    None
}
