//! Compiles a workload to the files, units and images that run it on a device.
//!
//! ```text
//! PodSpec -> pod -> typed units -> quadlet -> files
//! Quadlet files -> given ------------------> files
//! ```
//!
//! A `PodSpec` becomes Quadlet `.container` files, with a `.pod` file when it has more than one container, and must run as it
//! does with `podman kube play`. Users' own Quadlet files run as given. A workload is compiled once for all its devices, unless
//! it uses the name of the device it runs on.
//!
//! To support one more field of a `PodSpec`, add it to the list of its feature in `pod/`, add a field to the feature's type in
//! `unit.rs`, and write it in `quadlet.rs`, which does not compile otherwise.

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

/// The folder that Quadlet reads system units from.
const QUADLET_FOLDER: &str = "/etc/containers/systemd";
/// The folder of the files that workloads mount.
const DATA_FOLDER: &str = "/etc/flotta/workloads";
/// The folder in which memory that containers share is mounted.
const MEMORY_FOLDER: &str = "/run/flotta-workloads";

/// Compiles a workload for all its devices, or, when [`Compiled::per_device`] says that they differ, for the named one.
pub fn compile(
    workload: &Checked<EdgeWorkload>,
    config_maps: &ConfigMaps<'_>,
    device: Option<&str>,
) -> Compiled {
    let mut job = Job::new(workload, config_maps, device);
    if let Some(pod) = &workload.object.spec.pod {
        pod::compile(&mut job, &pod.spec);
    } else if let Some(files) = &workload.object.spec.quadlet {
        given::compile(&mut job, files);
        // of two ports that conflict, the later one in the source is reported
        job.out.ports.sort_by(|a, b| a.place.cmp(&b.place));
    }
    job.out
}
