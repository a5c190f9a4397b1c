//! Compiles a `PodSpec` to one container unit, or to a pod and its containers. Each feature has a module with its fields; this
//! module combines them.

mod cluster;
mod context;
mod env;
mod field;
mod fieldref;
mod image;
mod labels;
mod lifecycle;
mod limits;
mod names;
mod namespaces;
mod network;
mod ports;
mod probes;
mod process;
mod quantity;
mod security;
mod volume;

use std::sync::LazyLock;

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::emit;
use super::job::Job;
use super::unit::{ContainerUnit, Dependency, NetworkMode, PodUnit};
use context::{ContainerContext, SPEC};
use field::Rules;
use volume::Volumes;

pub use field::{Becomes, Field};
pub(super) use image::names_registry;

/// The fields of all features.
const FEATURES: &[&[Field]] = &[
    names::FIELDS,
    image::FIELDS,
    process::FIELDS,
    env::FIELDS,
    ports::FIELDS,
    network::FIELDS,
    namespaces::FIELDS,
    cluster::FIELDS,
    volume::FIELDS,
    security::FIELDS,
    limits::FIELDS,
    lifecycle::FIELDS,
    probes::FIELDS,
];

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::of(fields()));

/// Returns the fields of a `PodSpec` that are in a list.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    FEATURES.iter().copied().flatten()
}

pub(super) fn compile(job: &mut Job<'_>, spec: &PodSpec) {
    RULES.check(job);
    let containers = &spec.containers;
    if containers.is_empty() {
        let message = "a pod needs at least one container";
        job.refuse(code::SCHEMA, &format!("{SPEC}/containers"), message);
        return;
    }
    lifecycle::check(job, spec);
    namespaces::check(job, spec);
    cluster::check(job, spec);
    // Without valid names there are no units. Everything else is checked, so that all errors are reported at once.
    if !names::check(job, spec) {
        return;
    }
    let volumes = Volumes::resolve(job, spec);
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let ports = ports::ports(job, spec);
    let mut network = network::network(job, spec, ports);
    // With a shared process namespace the container must not have process id 1, whose end stops all others.
    let shares_processes = namespaces::shares_processes(spec);
    if let ([only], [], false) = (containers.as_slice(), init, shares_processes) {
        // Podman uses the container id as the host name, but the name of a pod.
        if !network.host && network.hostname.is_none() {
            network.hostname = Some(network::host_name(job.name));
        }
        let context = ContainerContext {
            spec,
            container: only,
            pointer: &format!("{SPEC}/containers/0"),
            init: false,
        };
        let network_mode = NetworkMode::Own(Box::new(network));
        container(
            job,
            context,
            job.name.to_owned(),
            &volumes,
            network_mode,
            vec![],
        );
        return;
    }
    let unit = PodUnit {
        name: job.name.to_owned(),
        description: description(job),
        network,
        shares_processes,
        own_users: namespaces::own_users(spec),
        memory: volumes.memory(),
    };
    emit::pod(job, &unit);
    // Init containers run one after the other, and before all other containers.
    let earlier = members(job, spec, init, true, &volumes, vec![]);
    members(job, spec, containers, false, &volumes, earlier);
}

/// Adds containers of a pod, which start after the given services; init containers start one after the other. Returns the services
/// that start before whatever follows: the last init container that must finish, and those that keep running.
fn members(
    job: &mut Job<'_>,
    spec: &PodSpec,
    containers: &[Container],
    init: bool,
    volumes: &Volumes,
    mut after: Vec<Dependency>,
) -> Vec<Dependency> {
    let field = if init { "initContainers" } else { "containers" };
    for (index, item) in containers.iter().enumerate() {
        let is_done = init && !lifecycle::is_sidecar(item);
        let context = ContainerContext {
            spec,
            container: item,
            pointer: &format!("{SPEC}/{field}/{index}"),
            init: is_done,
        };
        let name = format!("{}-{}", job.name, item.name);
        let service = format!("{name}.service");
        let network_mode = NetworkMode::Pod(job.name.to_owned());
        container(job, context, name, volumes, network_mode, after.clone());
        if is_done {
            after.retain(|earlier| !earlier.is_done);
        }
        if init {
            after.push(Dependency { service, is_done });
        }
    }
    after
}

/// Adds one container; each feature adds its part.
fn container(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    name: String,
    volumes: &Volumes,
    network: NetworkMode,
    after: Vec<Dependency>,
) {
    let Some(image) = image::image(job, context) else {
        return;
    };
    let environment = env::environment(job, context);
    let mut mounts = volumes.mount(job, context, &environment);
    if let NetworkMode::Own(_) = network {
        mounts.memory = volumes.memory();
    }
    let health = probes::health(job, context, &name);
    let unit = ContainerUnit {
        name,
        description: description(job),
        image,
        after,
        network,
        namespaces: namespaces::namespaces(context.spec),
        process: process::process(job, context, &environment),
        environment,
        mounts,
        security: security::security(job, context),
        limits: limits::limits(job, context),
        labels: labels::labels(job),
        health,
        service: lifecycle::service(job, context),
    };
    emit::container(job, unit, context.pointer);
}

fn description(job: &Job<'_>) -> String {
    format!("Flotta workload {}", job.name)
}

#[cfg(test)]
mod tests;
