//! The downward API: fields of a pod, and the limits and requests of its containers.

use flotta_bundle::{Code, code};
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use super::context::ContainerContext;
use super::quantity::Quantity;
use crate::compile::job::Job;

/// Why a value is not available.
pub(super) struct Unavailable(Code, String);

impl Unavailable {
    pub(super) fn at(self, pointer: &str) -> (Code, String, String) {
        (self.0, pointer.to_owned(), self.1)
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self(code::UNSUPPORTED_FIELD, message.into())
    }
}

/// Returns a field of the pod by its path.
pub(super) fn field(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    path: &str,
) -> Result<String, Unavailable> {
    let metadata = &job.workload.object.metadata;
    let key = |of: &str| {
        let key = path.strip_prefix(of)?.strip_prefix("['")?;
        key.strip_suffix("']")
    };
    // As in Kubernetes, a missing label or annotation is empty.
    if let Some(key) = key("metadata.labels") {
        let found = metadata.labels.as_ref().and_then(|all| all.get(key));
        return Ok(found.cloned().unwrap_or_default());
    }
    if let Some(key) = key("metadata.annotations") {
        let found = metadata.annotations.as_ref().and_then(|all| all.get(key));
        return Ok(found.cloned().unwrap_or_default());
    }
    let why = match path {
        "metadata.name" => return Ok(job.name.to_owned()),
        "metadata.namespace" => return Ok(job.namespace.to_owned()),
        "spec.nodeName" => return Ok(job.node_name()),
        "spec.serviceAccountName" => {
            let name = context.spec.service_account_name.clone();
            return Ok(name.unwrap_or_else(|| "default".to_owned()));
        }
        "metadata.uid" => "pods on a device have no UID",
        "status.hostIP" | "status.hostIPs" => "a device's addresses change while it runs",
        "status.podIP" | "status.podIPs" => "each start assigns a new address",
        _ => {
            let message = format!(
                "`{path}` is not available to a container: use metadata.name, metadata.namespace, \
                 metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName or spec.serviceAccountName"
            );
            return Err(Unavailable(code::SCHEMA, message));
        }
    };
    let message = format!("`{path}` is not known before the device runs the pod: {why}");
    Err(Unavailable::unknown(message))
}

/// Returns a limit or request of a container in units of the divisor, rounded up.
pub(super) fn resource(
    context: ContainerContext<'_>,
    selector: &ResourceFieldSelector,
) -> Result<String, Unavailable> {
    let container = of(context, selector.container_name.as_deref()).ok_or_else(|| {
        let name = selector.container_name.as_deref().unwrap_or_default();
        Unavailable(
            code::MISSING_REFERENCE,
            format!("the pod has no container `{name}`"),
        )
    })?;
    let name = selector.resource.as_str();
    let schema = |message| Unavailable(code::SCHEMA, message);
    let parse = |text: &str| {
        Quantity::parse(text).ok_or_else(|| schema(format!("`{text}` is not a quantity")))
    };
    let resources = container.resources.clone().unwrap_or_default();
    let limits = resources.limits.unwrap_or_default();
    let requests = resources.requests.unwrap_or_default();
    let found = match name.split_once('.') {
        Some(("limits", what @ ("cpu" | "memory"))) => {
            let found = limits.get(what).ok_or_else(|| {
                let message = format!(
                    "the container has no {what} limit, and the size of the device is not known in advance: set the limit"
                );
                Unavailable::unknown(message)
            })?;
            parse(&found.0)?
        }
        // Without a request it is the limit, or zero.
        Some(("requests", what @ ("cpu" | "memory"))) => {
            let found = requests.get(what).or_else(|| limits.get(what));
            found.map_or(Ok(Quantity::ZERO), |found| parse(&found.0))?
        }
        _ => {
            let message =
                format!("`{name}`: use limits.cpu, limits.memory, requests.cpu or requests.memory");
            return Err(Unavailable::unknown(message));
        }
    };
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => Quantity::ONE,
        Some(text) => parse(text)?,
    };
    let count = found.count(divisor);
    let count = count.ok_or_else(|| schema("the divisor must be greater than zero".to_owned()))?;
    Ok(count.to_string())
}

/// Returns the container of the pod with this name; without a name, the container itself.
fn of<'a>(context: ContainerContext<'a>, name: Option<&str>) -> Option<&'a Container> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Some(context.container);
    };
    let mut all = context
        .spec
        .containers
        .iter()
        .chain(context.spec.init_containers.iter().flatten());
    all.find(|container| container.name == name)
}
