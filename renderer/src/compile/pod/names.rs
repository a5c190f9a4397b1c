//! Names of containers and volumes.

use std::collections::BTreeSet;

use flotta_bundle::code;
use flotta_bundle::name::check_label;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::asked::SPEC;
use super::field::Field;
use crate::compile::job::Job;

pub(super) const FIELDS: &[Field] = &[Field::carried("containers[].name", "names of units")];

/// Whether names are what Kubernetes takes for one (they become names of units, folders and volumes), and each is there once.
/// Its schema says none of that.
pub(super) fn check(job: &mut Job<'_>, spec: &PodSpec) {
    let containers = |list: &[Container], field| -> Vec<_> {
        let names = list.iter().map(|container| container.name.clone());
        names
            .enumerate()
            .map(|(at, name)| (name, field, at))
            .collect()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
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
            } else if !seen.insert(name) {
                job.refuse(
                    code::DUPLICATE,
                    &pointer,
                    format!("`{name}` is defined twice"),
                );
            }
        }
    }
}
