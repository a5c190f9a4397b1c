//! Names of containers and volumes.

use std::collections::BTreeSet;

use flotta_bundle::code;
use flotta_bundle::name::check_label;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::context::SPEC;
use super::field::Field;
use super::namespaces::shares_processes;
use crate::compile::job::Job;

pub(super) const FIELDS: &[Field] = &[Field::supported("containers[].name", "names of units")];

/// Checks that names are valid in Kubernetes (they become names of units, folders and volumes) and unique. Kubernetes' schema
/// does not say so.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) -> bool {
    let before = job.out.findings.len();
    let containers = |list: &[Container], field| -> Vec<_> {
        let names = list.iter().map(|container| container.name.clone());
        names
            .enumerate()
            .map(|(at, name)| (name, field, at))
            .collect()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    // For a pod `shop`, Quadlet creates `shop-pod.service` and Podman the container `shop-infra`.
    let pod = init.len() + spec.containers.len() > 1 || shares_processes(spec);
    let mut all = containers(init, "initContainers");
    all.extend(containers(&spec.containers, "containers"));
    let volumes = spec.volumes.iter().flatten().enumerate();
    let volumes = volumes.map(|(at, volume)| (volume.name.clone(), "volumes", at));
    for names in [all, volumes.collect()] {
        let mut seen = BTreeSet::new();
        for (name, field, at) in &names {
            let pointer = format!("{SPEC}/{field}/{at}/name");
            if let Err(error) = check_label(name) {
                job.refuse(code::BAD_NAME, &pointer, error.to_string());
            } else if pod && *field != "volumes" && ["pod", "infra"].contains(&name.as_str()) {
                let message = format!(
                    "Podman uses `{name}` for a part of the pod itself: choose another name"
                );
                job.refuse(code::BAD_NAME, &pointer, message);
            } else if !seen.insert(name) {
                job.refuse(
                    code::DUPLICATE,
                    &pointer,
                    format!("`{name}` is defined twice"),
                );
            }
        }
    }
    job.out.findings.len() == before
}
