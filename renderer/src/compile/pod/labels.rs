//! The labels and annotations of a container.

use std::collections::BTreeMap;

use crate::compile::job::Job;
use crate::compile::unit::Labels;
use crate::pointer::step;

/// Returns the label by which the agent finds the workload's containers, and the labels and annotations that the user passes to
/// Podman with the prefix `podman/`, as in Project Flotta.
pub(super) fn labels(job: &mut Job<'_>) -> Labels {
    let metadata = &job.workload.object.metadata;
    let mut labels = vec![("flotta.workload".to_owned(), job.name.to_owned())];
    labels.extend(passed(job, metadata.labels.as_ref(), "labels"));
    Labels {
        labels,
        annotations: passed(job, metadata.annotations.as_ref(), "annotations"),
    }
}

fn passed(
    job: &mut Job<'_>,
    all: Option<&BTreeMap<String, String>>,
    field: &str,
) -> Vec<(String, String)> {
    let mut passed = Vec::new();
    for (key, value) in all.into_iter().flatten() {
        let pointer = format!("/metadata/{field}/{}", step(key));
        if let Some(name) = key.strip_prefix("podman/")
            && job.word(&format!("{name}={value}"), &pointer)
        {
            passed.push((name.to_owned(), value.clone()));
        }
    }
    passed
}
