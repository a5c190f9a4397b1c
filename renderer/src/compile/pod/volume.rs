//! A pod's volumes, and a container's mounts of them.

mod files;
mod mount;
mod source;

use std::collections::BTreeMap;

use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::PodSpec;

use super::asked::{Asked, SPEC};
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Before, Memory, Mounts};
use crate::compile::writer::fits_a_line;

const ON_DEVICE: &str =
    "mount it on the device, and use a hostPath volume of the folder that it is mounted on";
const NO_CLUSTER: &str = "only a cluster has what it names";

pub(super) const FIELDS: &[Field] = &[
    Field::supported("volumes[].name", "names of volumes and folders"),
    Field::supported(
        "volumes[].configMap",
        "files, mounted read-only by `Volume=`",
    ),
    Field::supported(
        "volumes[].downwardAPI.items[].fieldRef",
        "a file, mounted read-only by `Volume=`: `metadata.name`, `metadata.namespace`, labels and annotations",
    ),
    Field::supported("volumes[].downwardAPI.items[].path", "the file's name"),
    Field::supported("volumes[].downwardAPI.items[].mode", "the file's mode"),
    Field::supported(
        "volumes[].downwardAPI.items[].resourceFieldRef",
        "a file with the amount",
    ),
    Field::supported("volumes[].downwardAPI.defaultMode", "the files' mode"),
    Field::supported(
        "volumes[].projected.defaultMode",
        "the mode of files that have none",
    ),
    Field::supported(
        "volumes[].projected.sources[].configMap",
        "files of one folder",
    ),
    Field::supported(
        "volumes[].projected.sources[].downwardAPI.items[].fieldRef",
        "files of one folder",
    ),
    Field::supported(
        "volumes[].projected.sources[].downwardAPI.items[].path",
        "the file's name",
    ),
    Field::supported(
        "volumes[].projected.sources[].downwardAPI.items[].mode",
        "the file's mode",
    ),
    Field::supported(
        "volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef",
        "a file with the amount",
    ),
    Field::refused(
        "volumes[].projected.sources[].serviceAccountToken",
        "a device has no service accounts",
    ),
    Field::refused(
        "volumes[].projected.sources[].clusterTrustBundle",
        NO_CLUSTER,
    ),
    Field::refused("volumes[].projected.sources[].podCertificate", NO_CLUSTER),
    Field::refused(
        "volumes[].projected.sources[].secret",
        "secrets come in a later version",
    ),
    Field::supported(
        "volumes[].hostPath.path",
        "`Volume=` or `AddDevice=`; it must be there, unless `type` says to make it",
    ),
    Field::supported(
        "volumes[].hostPath.type",
        "looked at before the container starts, by test(1), where `File` is anything but a folder; folders and files are made by mkdir(1) and touch(1)",
    ),
    Field::supported(
        "volumes[].emptyDir.medium",
        "a volume of Podman's, which outlives restarts and which everybody may write to, where Podman's storage is at its usual place; `Memory`: `Tmpfs=`, or one tmpfs for the pod",
    ),
    Field::supported(
        "volumes[].emptyDir.sizeLimit",
        "the size of the tmpfs; a lint for one on disk, which has no limit",
    ),
    Field::supported(
        "volumes[].persistentVolumeClaim.claimName",
        "`Volume=`: the volume of Podman's of this name, made if it is not there",
    ),
    Field::supported(
        "volumes[].persistentVolumeClaim.readOnly",
        "`ro` of all its mounts",
    ),
    Field::supported("volumes[].image", "`--mount type=image`, read-only"),
    Field::refused("volumes[].secret", "secrets come in a later version"),
    Field::refused(
        "volumes[].ephemeral",
        "nothing on a device provisions it: use emptyDir",
    ),
    Field::refused("volumes[].csi", "a device has no CSI drivers"),
    Field::refused("volumes[].nfs", ON_DEVICE),
    Field::refused("volumes[].iscsi", ON_DEVICE),
    Field::refused("volumes[].fc", ON_DEVICE),
    Field::refused("volumes[].cephfs", ON_DEVICE),
    Field::refused("volumes[].rbd", ON_DEVICE),
    Field::refused("volumes[].glusterfs", ON_DEVICE),
    Field::refused("volumes[].flexVolume", "a device has no kubelet plugins"),
    Field::refused("volumes[].flocker", NO_CLUSTER),
    Field::refused("volumes[].portworxVolume", NO_CLUSTER),
    Field::refused("volumes[].quobyte", NO_CLUSTER),
    Field::refused("volumes[].scaleIO", NO_CLUSTER),
    Field::refused("volumes[].storageos", NO_CLUSTER),
    Field::refused("volumes[].awsElasticBlockStore", NO_CLUSTER),
    Field::refused("volumes[].azureDisk", NO_CLUSTER),
    Field::refused("volumes[].azureFile", NO_CLUSTER),
    Field::refused("volumes[].cinder", NO_CLUSTER),
    Field::refused("volumes[].gcePersistentDisk", NO_CLUSTER),
    Field::refused("volumes[].photonPersistentDisk", NO_CLUSTER),
    Field::refused("volumes[].vsphereVolume", NO_CLUSTER),
    Field::refused(
        "volumes[].gitRepo",
        "Kubernetes removed it: clone in an init container, into an emptyDir",
    ),
    Field::supported("containers[].volumeMounts[].name", "`Volume=`"),
    Field::supported(
        "containers[].volumeMounts[].mountPath",
        "`Volume=`; `:z` or `:Z` at its end relabels for SELinux, as in `podman kube play`",
    ),
    Field::supported("containers[].volumeMounts[].readOnly", "`ro`"),
    Field::supported(
        "containers[].volumeMounts[].recursiveReadOnly",
        "`IfPossible` is `readOnly`; `Enabled` is an error, because Podman cannot do it",
    ),
    Field::supported(
        "containers[].volumeMounts[].mountPropagation",
        "`rslave` or `rshared`",
    ),
    Field::supported(
        "containers[].volumeMounts[].subPath",
        "a path below the volume, made as a folder if it is not there; of a volume of Podman's `subpath=`",
    ),
    Field::supported(
        "containers[].volumeMounts[].subPathExpr",
        "the same, with the container's variables in it",
    ),
    Field::refused(
        "containers[].volumeDevices",
        "use a hostPath volume of type BlockDevice",
    ),
];

/// The volumes of a pod, by name.
pub(super) struct Volumes(BTreeMap<String, Kind>);

enum Kind {
    /// Files made here, in a folder of the device.
    Files {
        folder: String,
        files: Vec<DevicePath>,
    },
    /// A path of the device, and what is done before.
    Host { path: String, before: Vec<Before> },
    /// A device node, and what is done before.
    Node { path: String, before: Before },
    /// A named Podman volume: it keeps its content until somebody removes it.
    Named {
        name: String,
        read_only: bool,
        /// Who may do what in it, when it is new; the first container's user when absent.
        access: Option<Access>,
    },
    /// Memory of one mount alone.
    Memory { size: Option<u64> },
    /// Memory of several mounts: a folder that the pod mounts, and the name of a volume of Podman's for it.
    Shared { name: String, memory: Memory },
    /// An image's content.
    Image { reference: String },
    /// Already reported.
    Refused,
}

/// The group and the mode of a volume's folder.
#[derive(Clone, Copy)]
struct Access {
    group: u32,
    mode: &'static str,
}

impl Volumes {
    pub(super) fn resolve(job: &mut Job<'_>, spec: &PodSpec) -> Self {
        let mut volumes = BTreeMap::new();
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            let pointer = format!("{SPEC}/volumes/{index}");
            let kind = source::kind(job, spec, volume, &pointer);
            volumes.insert(volume.name.clone(), kind);
        }
        Self(volumes)
    }

    /// Memory that is mounted for the pod as a whole.
    pub(super) fn memory(&self) -> Vec<Memory> {
        let shared = self.0.values().filter_map(|kind| match kind {
            Kind::Shared { memory, .. } => Some(memory.clone()),
            _ => None,
        });
        shared.collect()
    }

    /// The container's mounts.
    pub(super) fn mount(
        &self,
        job: &mut Job<'_>,
        asked: Asked<'_>,
        variables: &[(String, String)],
    ) -> Mounts {
        let mut mounts = Mounts::default();
        for (index, mount) in asked.container.volume_mounts.iter().flatten().enumerate() {
            let pointer = asked.at(&format!("volumeMounts/{index}"));
            let Some(kind) = self.0.get(&mount.name) else {
                let message = format!("the pod has no volume `{}`", mount.name);
                job.refuse(code::MISSING_REFERENCE, &format!("{pointer}/name"), message);
                continue;
            };
            mount::add(job, asked, mount, kind, variables, &pointer, &mut mounts);
        }
        mounts.restart_on.sort();
        mounts.restart_on.dedup();
        mounts
    }
}

/// A relative path that stays below where it starts, in its shortest form.
fn inner_path(path: &str) -> Option<String> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !["", "."].contains(part))
        .collect();
    let good = fits_a_line(path)
        && !path.starts_with('/')
        && !path.contains([':', ','])
        && !parts.is_empty()
        && !parts.contains(&"..");
    good.then(|| parts.join("/"))
}
