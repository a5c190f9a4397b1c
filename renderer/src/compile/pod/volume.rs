//! A pod's volumes, and a container's mounts of them.

use std::collections::BTreeMap;

use flotta_bundle::manifest::FileKind;
use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, PodSpec, Volume, VolumeMount};

use super::asked::{Asked, SPEC};
use super::field::Field;
use crate::compile::DATA_FOLDER;
use crate::compile::job::Job;
use crate::compile::unit::{Mount, Mounts};
use crate::compile::writer::fits_a_line;

pub(super) const FIELDS: &[Field] = &[
    Field::carried("volumes[].name", "names of volumes and folders"),
    Field::carried("volumes[].configMap", "files, mounted by `Volume=`"),
    Field::carried("volumes[].hostPath", "`Volume=` or `AddDevice=`"),
    Field::carried("volumes[].emptyDir.medium", "`Volume=` or `Tmpfs=`"),
    Field::carried("volumes[].persistentVolumeClaim.claimName", "`Volume=`"),
    // the volume is refused, and says so where it stands
    Field::carried("volumes[].secret", "an error"),
    Field::carried("containers[].volumeMounts[].name", "`Volume=`"),
    Field::carried("containers[].volumeMounts[].mountPath", "`Volume=`"),
    Field::carried("containers[].volumeMounts[].readOnly", "`Volume=`"),
    Field::carried("containers[].volumeMounts[].subPath", "`Volume=`"),
    Field::refused(
        "containers[].volumeDevices",
        "use a hostPath volume of type BlockDevice",
    ),
];

/// The volumes of a pod, by name.
pub(super) struct Volumes(BTreeMap<String, Kind>);

enum Kind {
    /// Files of a `ConfigMap`, in a folder of the device.
    Files {
        folder: String,
        files: Vec<DevicePath>,
    },
    /// A path of the device.
    Host { path: String, make_folder: bool },
    /// A device node.
    Node { path: String },
    /// A named Podman volume: it keeps its content until somebody removes it.
    Named { name: String },
    /// Memory, gone with the container.
    Memory,
    /// Already reported.
    Refused,
}

impl Volumes {
    pub(super) fn resolve(job: &mut Job<'_>, spec: &PodSpec) -> Self {
        let mut volumes = BTreeMap::new();
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            let pointer = format!("{SPEC}/volumes/{index}");
            let kind = kind(job, volume, &pointer);
            volumes.insert(volume.name.clone(), kind);
        }
        Self(volumes)
    }

    /// The container's mounts.
    pub(super) fn mount(&self, job: &mut Job<'_>, asked: Asked<'_>) -> Mounts {
        let mut mounts = Mounts::default();
        for (index, mount) in asked.container.volume_mounts.iter().flatten().enumerate() {
            let pointer = asked.at(&format!("volumeMounts/{index}"));
            if let Some(kind) = self.check(job, mount, &pointer) {
                add(job, &mut mounts, kind, mount, &pointer);
            }
        }
        mounts.restart_on.sort();
        mounts.restart_on.dedup();
        mounts
    }

    /// The volume of a mount whose fields are good.
    fn check(&self, job: &mut Job<'_>, mount: &VolumeMount, pointer: &str) -> Option<&Kind> {
        let inside = &mount.mount_path;
        if !inside.starts_with('/') || inside.contains([':', ',']) || !fits_a_line(inside) {
            let message =
                "mountPath must be an absolute path without `:`, `,` or control characters";
            job.refuse(code::SCHEMA, &format!("{pointer}/mountPath"), message);
            return None;
        }
        let Some(kind) = self.0.get(&mount.name) else {
            let message = format!("the pod has no volume `{}`", mount.name);
            job.refuse(code::MISSING_REFERENCE, &format!("{pointer}/name"), message);
            return None;
        };
        if sub_path(mount).is_some_and(|sub| !is_inner_path(sub)) {
            let message = "subPath must stay below the volume";
            job.refuse(code::SCHEMA, &format!("{pointer}/subPath"), message);
            return None;
        }
        Some(kind)
    }
}

fn sub_path(mount: &VolumeMount) -> Option<&str> {
    mount.sub_path.as_deref().filter(|sub| !sub.is_empty())
}

fn add(job: &mut Job<'_>, mounts: &mut Mounts, kind: &Kind, mount: &VolumeMount, pointer: &str) {
    let sub = sub_path(mount);
    let below = |root: &str| sub.map_or(root.to_owned(), |sub| format!("{root}/{sub}"));
    let inside = mount.mount_path.clone();
    let read_only = mount.read_only == Some(true);
    let volume = |source, read_only, shared_label| Mount::Volume {
        source,
        inside: inside.clone(),
        read_only,
        shared_label,
    };
    mounts.all.push(match kind {
        Kind::Files { folder, files } => {
            let source = below(folder);
            let mounted = |path: &&DevicePath| sub.is_none() || path.as_str() == source;
            mounts
                .restart_on
                .extend(files.iter().filter(mounted).cloned());
            // on hosts with SELinux the content must carry a label that containers may read
            volume(source, true, true)
        }
        Kind::Host { path, make_folder } => {
            if *make_folder {
                mounts.folders.push(path.clone());
            }
            volume(below(path), read_only, false)
        }
        Kind::Node { path } => Mount::Device {
            path: path.clone(),
            inside,
        },
        Kind::Named { .. } if sub.is_some() => {
            let message = "subPath works with configMap and hostPath volumes only";
            job.refuse(
                code::UNSUPPORTED_FIELD,
                &format!("{pointer}/subPath"),
                message,
            );
            return;
        }
        Kind::Named { name } => volume(name.clone(), read_only, false),
        Kind::Memory => Mount::Tmpfs { inside },
        Kind::Refused => return,
    });
}

fn kind(job: &mut Job<'_>, volume: &Volume, pointer: &str) -> Kind {
    if let Some(source) = &volume.config_map {
        return config_map(job, &volume.name, source, &format!("{pointer}/configMap"));
    }
    if let Some(source) = &volume.host_path {
        let path = &source.path;
        if !path.starts_with('/')
            || path.contains([':', ','])
            || !fits_a_line(path)
            || !is_inner_path(path.trim_start_matches('/')) && path != "/"
        {
            job.refuse(
                code::SCHEMA,
                &format!("{pointer}/hostPath/path"),
                "hostPath must be an absolute, normalised path without `:` or `,`",
            );
            return Kind::Refused;
        }
        return match source.type_.as_deref().unwrap_or_default() {
            "BlockDevice" | "CharDevice" => Kind::Node { path: path.clone() },
            kind => {
                let pointer = format!("{pointer}/hostPath/type");
                match kind {
                    "" | "Directory" | "DirectoryOrCreate" | "File" | "Socket" => {}
                    "FileOrCreate" => {
                        let place = job.workload.document.place(&pointer);
                        let message = "`FileOrCreate` is not acted on yet: the file must be there";
                        job.warn(code::NOT_ACTED_ON, place, message);
                    }
                    other => {
                        let message = format!("`{other}` is not a type of hostPath");
                        job.refuse(code::SCHEMA, &pointer, message);
                    }
                }
                Kind::Host {
                    path: path.clone(),
                    make_folder: kind == "DirectoryOrCreate",
                }
            }
        };
    }
    if let Some(source) = &volume.empty_dir {
        if source.medium.as_deref() == Some("Memory") {
            return Kind::Memory;
        }
        return Kind::Named {
            name: format!("{}-{}", job.name, volume.name),
        };
    }
    if let Some(source) = &volume.persistent_volume_claim {
        if job.plain_word(
            &source.claim_name,
            &format!("{pointer}/persistentVolumeClaim/claimName"),
        ) {
            return Kind::Named {
                name: source.claim_name.clone(),
            };
        }
        return Kind::Refused;
    }
    let what = if volume.secret.is_some() {
        "secrets come in a later version"
    } else {
        "use configMap, hostPath, emptyDir or persistentVolumeClaim"
    };
    job.refuse(
        code::UNSUPPORTED_FIELD,
        pointer,
        format!(
            "volume `{}` is not supported on devices: {what}",
            volume.name
        ),
    );
    Kind::Refused
}

fn config_map(
    job: &mut Job<'_>,
    volume: &str,
    source: &ConfigMapVolumeSource,
    pointer: &str,
) -> Kind {
    let folder = format!("{DATA_FOLDER}/{}/{volume}", job.name);
    let optional = source.optional == Some(true);
    let text = job.config_map(&source.name, optional, &format!("{pointer}/name"));
    let binary = job
        .config_maps
        .get(&(job.namespace, source.name.as_str()))
        .and_then(|found| found.object.binary_data.clone());
    let mut entries: BTreeMap<String, Vec<u8>> = text
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()))
        .collect();
    entries.extend(
        binary
            .into_iter()
            .flatten()
            .map(|(key, bytes)| (key, bytes.0)),
    );
    let default_mode = source.default_mode.unwrap_or(0o644);
    let mut files = Vec::new();
    let mut put = |job: &mut Job<'_>, name: &str, content: Vec<u8>, mode: i32, pointer: &str| {
        if !is_inner_path(name) {
            job.refuse(
                code::BAD_NAME,
                pointer,
                format!("{name:?} is not a file name"),
            );
            return;
        }
        let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
        files.extend(job.put(&folder, name, content, FileKind::Data, mode, pointer));
    };
    match &source.items {
        None => {
            for (key, content) in entries {
                put(job, &key, content, default_mode, &format!("{pointer}/name"));
            }
        }
        Some(items) => {
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/items/{index}");
                match entries.get(&item.key) {
                    Some(content) => put(
                        job,
                        &item.path,
                        content.clone(),
                        item.mode.unwrap_or(default_mode),
                        &format!("{pointer}/path"),
                    ),
                    None if optional || !job.has_config_map(&source.name) => {}
                    None => job.miss(
                        &format!("{pointer}/key"),
                        format!("ConfigMap `{}` has no key `{}`", source.name, item.key),
                    ),
                }
            }
        }
    }
    Kind::Files { folder, files }
}

/// A relative path that stays below where it starts.
fn is_inner_path(path: &str) -> bool {
    fits_a_line(path)
        && !path.contains([':', ','])
        && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}
