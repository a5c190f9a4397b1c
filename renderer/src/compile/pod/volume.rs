//! The volumes of a pod, and the mounts of its containers.

mod files;
mod mount;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::PodSpec;

use super::context::{ContainerContext, SPEC};
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Memory, Mounts, PreStart};
use crate::compile::writer::fits_a_line;

const ON_DEVICE: &str = "mount it on the device, and use a hostPath volume for the mount point";
const NO_CLUSTER: &str = "it needs a cluster";

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
        "secrets are not supported yet",
    ),
    Field::supported(
        "volumes[].hostPath.path",
        "`Volume=` or `AddDevice=`; the path must exist, unless `type` creates it",
    ),
    Field::supported(
        "volumes[].hostPath.type",
        "checked before the container starts, with test(1), where `File` is anything but a folder; folders and files are created with mkdir(1) and touch(1)",
    ),
    Field::supported(
        "volumes[].emptyDir.medium",
        "a Podman volume, which survives restarts and which everybody may write to, where Podman's storage is at its usual place; `Memory`: `Tmpfs=`, or one tmpfs for the pod",
    ),
    Field::supported(
        "volumes[].emptyDir.sizeLimit",
        "the size of the tmpfs; a warning for a volume on disk, which has no limit",
    ),
    Field::supported(
        "volumes[].persistentVolumeClaim.claimName",
        "`Volume=`: the Podman volume of this name, created if it does not exist",
    ),
    Field::supported(
        "volumes[].persistentVolumeClaim.readOnly",
        "`ro` of all its mounts",
    ),
    Field::supported("volumes[].image", "`--mount type=image`, read-only"),
    Field::refused("volumes[].secret", "secrets are not supported yet"),
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
        "a path below the volume, created as a folder if it does not exist; `subpath=` for a Podman volume",
    ),
    Field::supported(
        "containers[].volumeMounts[].subPathExpr",
        "the same, with the container's variables expanded",
    ),
    Field::refused(
        "containers[].volumeDevices",
        "use a hostPath volume of type BlockDevice",
    ),
];

/// The volumes of a pod, by name.
pub(super) struct Volumes(BTreeMap<String, Kind>);

enum Kind {
    /// Files of the bundle, in a folder of the device.
    Files {
        folder: String,
        files: Vec<DevicePath>,
    },
    /// A path of the device, and the steps before the start.
    Host {
        path: String,
        pre_start: Vec<PreStart>,
    },
    /// A device node, and the step before the start.
    Node { path: String, pre_start: PreStart },
    /// A Podman volume, which keeps its content until somebody removes it.
    Named {
        name: String,
        read_only: bool,
        /// The permissions of a new volume; it belongs to the first container's user when absent.
        access: Option<Access>,
    },
    /// A tmpfs for one mount.
    Memory { size: Option<u64> },
    /// A tmpfs for several mounts, on a folder of the device, and the name of a Podman volume for that folder.
    Shared { name: String, memory: Memory },
    /// The content of an image.
    Image { reference: String },
    /// A volume with an error that is already reported.
    Refused,
}

/// The group and the mode of the folder of a volume.
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

    /// Returns the tmpfs mounts that the containers of the pod share.
    pub(super) fn memory(&self) -> Vec<Memory> {
        let shared = self.0.values().filter_map(|kind| match kind {
            Kind::Shared { memory, .. } => Some(memory.clone()),
            _ => None,
        });
        shared.collect()
    }

    /// Returns the mounts of a container.
    pub(super) fn mount(
        &self,
        job: &mut Job<'_>,
        context: ContainerContext<'_>,
        variables: &[(String, String)],
    ) -> Mounts {
        let mut mounts = Mounts::default();
        let mut places = BTreeSet::new();
        for (index, mount) in context.container.volume_mounts.iter().flatten().enumerate() {
            let pointer = context.at(&format!("volumeMounts/{index}"));
            if !places.insert(mount.mount_path.trim_end_matches('/')) {
                let message = format!("`{}` is mounted twice", mount.mount_path);
                job.refuse(code::DUPLICATE, &format!("{pointer}/mountPath"), message);
                continue;
            }
            let Some(kind) = self.0.get(&mount.name) else {
                let message = format!("the pod has no volume `{}`", mount.name);
                job.refuse(code::MISSING_REFERENCE, &format!("{pointer}/name"), message);
                continue;
            };
            mount::add(job, context, mount, kind, variables, &pointer, &mut mounts);
        }
        mounts.restart_on.sort();
        mounts.restart_on.dedup();
        mounts
    }
}

/// Returns a relative path in its shortest form, if it has no `..`.
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
