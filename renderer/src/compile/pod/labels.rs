//! How a container is found.

use crate::compile::job::Job;
use crate::compile::unit::Labels;

/// A label by which the workload's containers are found, and those that the user passes on (`podman/`, as Project Flotta has it).
pub(super) fn labels(job: &Job<'_>) -> Labels {
    let metadata = &job.workload.object.metadata;
    let passed = |all: &Option<std::collections::BTreeMap<String, String>>| -> Vec<_> {
        let all = all.iter().flatten();
        all.filter_map(|(name, value)| {
            let name = name.strip_prefix("podman/")?;
            Some((name.to_owned(), value.clone()))
        })
        .collect()
    };
    let mut labels = vec![("flotta.workload".to_owned(), job.name.to_owned())];
    labels.extend(passed(&metadata.labels));
    Labels {
        labels,
        annotations: passed(&metadata.annotations),
    }
}
