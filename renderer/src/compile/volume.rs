//! A pod's volumes, and a container's mounts of them.

use std::collections::BTreeMap;

use flotta_bundle::manifest::FileKind;
use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, Container, PodSpec, Volume};

use super::pod::SPEC;
use super::writer::{Writer, fits_a_line};
use super::{DATA_FOLDER, Job};

/// The volumes of a pod, by name.
pub(super) struct Volumes(BTreeMap<String, Kind>);

/// What a container mounts.
#[derive(Default)]
pub(super) struct Mounted {
    /// The files whose change must restart it.
    pub(super) restart_on: Vec<DevicePath>,
    /// Folders of the device that must be there before it starts.
    pub(super) folders: Vec<String>,
}

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

    /// Writes the container's mounts.
    pub(super) fn mount(
        &self,
        job: &mut Job<'_>,
        container: &Container,
        pointer: &str,
        file: &mut Writer,
    ) -> Mounted {
        let mut mounted = Mounted::default();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let pointer = format!("{pointer}/volumeMounts/{index}");
            let inside = &mount.mount_path;
            if !inside.starts_with('/') || inside.contains([':', ',']) || !fits_a_line(inside) {
                job.refuse(
                    code::SCHEMA,
                    &format!("{pointer}/mountPath"),
                    "mountPath must be an absolute path without `:`, `,` or control characters",
                );
                continue;
            }
            let Some(kind) = self.0.get(&mount.name) else {
                job.refuse(
                    code::MISSING_REFERENCE,
                    &format!("{pointer}/name"),
                    format!("the pod has no volume `{}`", mount.name),
                );
                continue;
            };
            let sub = mount.sub_path.as_deref().filter(|sub| !sub.is_empty());
            if sub.is_some_and(|sub| !is_inner_path(sub)) {
                job.refuse(
                    code::SCHEMA,
                    &format!("{pointer}/subPath"),
                    "subPath must stay below the volume",
                );
                continue;
            }
            let below = |root: &str| sub.map_or(root.to_owned(), |sub| format!("{root}/{sub}"));
            let read_only = mount.read_only == Some(true);
            match kind {
                Kind::Files { folder, files } => {
                    let source = below(folder);
                    mounted.restart_on.extend(
                        files
                            .iter()
                            .filter(|path| sub.is_none() || path.as_str() == source)
                            .cloned(),
                    );
                    // z: on hosts with SELinux the content must carry a label that containers may read
                    file.value("Volume", &format!("{source}:{inside}:ro,z"));
                }
                Kind::Host { path, make_folder } => {
                    if *make_folder {
                        mounted.folders.push(path.clone());
                    }
                    file.value(
                        "Volume",
                        &format!(
                            "{}:{inside}{}",
                            below(path),
                            if read_only { ":ro" } else { "" }
                        ),
                    );
                }
                Kind::Node { path } => file.value("AddDevice", &format!("{path}:{inside}")),
                Kind::Named { .. } if sub.is_some() => {
                    job.refuse(
                        code::UNSUPPORTED_FIELD,
                        &format!("{pointer}/subPath"),
                        "subPath works with configMap and hostPath volumes only",
                    );
                }
                Kind::Named { name } => {
                    file.value(
                        "Volume",
                        &format!("{name}:{inside}{}", if read_only { ":ro" } else { "" }),
                    );
                }
                Kind::Memory => file.value("Tmpfs", inside),
                Kind::Refused => {}
            }
        }
        mounted.restart_on.sort();
        mounted.restart_on.dedup();
        mounted
    }
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
