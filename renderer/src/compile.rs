//! A workload to the files, units and images that carry it out on a device.
//!
//! ```text
//! PodSpec -> pod -> typed units -> quadlet -> files
//! Quadlet files -> given ------------------> files
//! ```
//!
//! A `PodSpec` becomes Quadlet `.container` files, with a `.pod` when it has more than one container, and must mean what
//! `podman kube play` means by it. Users' own Quadlet files run as given. A workload is compiled once for all its devices, unless
//! it asks for the name of the device it runs on.
//!
//! To carry out one more field of a `PodSpec`: its entry in the list of its feature in `pod/`, a field of the feature's part in
//! `unit.rs`, and its line in `quadlet.rs`, which does not compile without.

mod compiled;
mod emit;
mod given;
mod job;
mod pod;
mod quadlet;
mod unit;
mod writer;

use flotta_api::v1alpha1::EdgeWorkload;

use crate::check::Checked;
use job::Job;

pub use compiled::{Compiled, Content, Need, Port, Volume};
pub use job::ConfigMaps;
pub use pod::{Becomes, Field, fields};
pub use unit::Protocol;

/// Where Quadlet reads system units from.
const QUADLET_FOLDER: &str = "/etc/containers/systemd";
/// Where the files that workloads mount lie.
const DATA_FOLDER: &str = "/etc/flotta/workloads";
/// Where memory that containers share is mounted.
const MEMORY_FOLDER: &str = "/run/flotta-workloads";

/// Compiles a workload: for all its devices, or, when [`Compiled::per_device`] says that this does not do, for the one named.
pub fn compile(
    workload: &Checked<EdgeWorkload>,
    config_maps: &ConfigMaps<'_>,
    device: Option<&str>,
) -> Compiled {
    let mut job = Job {
        name: workload.object.metadata.name.as_deref().unwrap_or_default(),
        namespace: workload
            .object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default(),
        workload,
        config_maps,
        device,
        out: Compiled::default(),
    };
    if let Some(pod) = &workload.object.spec.pod {
        pod::compile(&mut job, &pod.spec);
    } else if let Some(files) = &workload.object.spec.quadlet {
        given::compile(&mut job, files);
    }
    job.out
}
