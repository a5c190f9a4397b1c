//! Adds typed units to the manifest: each becomes a Quadlet file and a unit that should run.

use flotta_bundle::manifest::{FileKind, Unit, Wanted};
use flotta_bundle::{DevicePath, Owner};

use super::job::Job;
use super::unit::{ContainerUnit, PodUnit};
use super::{QUADLET_FOLDER, quadlet};

/// Adds a container; `pointer` is its place in the workload.
pub(super) fn container(job: &mut Job<'_>, unit: ContainerUnit, pointer: &str) {
    let bytes = quadlet::container(&unit);
    let name = format!("{}.container", unit.name);
    let mut restart_on = unit.mounts.restart_on;
    restart_on.extend(file(job, &name, bytes, pointer));
    want(job, format!("{}.service", unit.name), restart_on);
}

/// Adds a pod.
pub(super) fn pod(job: &mut Job<'_>, unit: &PodUnit) {
    let name = format!("{}.pod", unit.name);
    let path = file(job, &name, quadlet::pod(unit), "/metadata/name");
    let service = format!("{}-pod.service", unit.name);
    want(job, service, path.into_iter().collect());
}

fn file(job: &mut Job<'_>, name: &str, bytes: Vec<u8>, pointer: &str) -> Option<DevicePath> {
    job.put(
        QUADLET_FOLDER,
        name,
        bytes,
        FileKind::Quadlet,
        0o644,
        pointer,
    )
}

fn want(job: &mut Job<'_>, name: String, restart_on: Vec<DevicePath>) {
    job.out.units.push(Unit {
        name,
        workload: Owner::workload(job.name),
        wanted: Wanted::Active,
        restart_on,
    });
}
