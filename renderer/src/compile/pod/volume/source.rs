//! The source of a volume.

use flotta_bundle::code;
use flotta_bundle::name::check_subdomain;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource,
    PersistentVolumeClaimVolumeSource, PodSpec, Volume,
};

use super::{Access, Kind, files};
use crate::compile::MEMORY_FOLDER;
use crate::compile::compiled;
use crate::compile::job::Job;
use crate::compile::pod::image;
use crate::compile::pod::quantity::Quantity;
use crate::compile::unit::{Memory, PreStart};
use crate::compile::writer::fits_a_line;

/// Returns the kind of a volume. Sources that are not supported are refused before.
pub(super) fn kind(job: &mut Job<'_>, spec: &PodSpec, volume: &Volume, pointer: &str) -> Kind {
    let at = |field: &str| format!("{pointer}/{field}");
    if let Some(source) = &volume.config_map {
        return files::config_map(job, spec, &volume.name, source, &at("configMap"));
    }
    if let Some(source) = &volume.downward_api {
        return files::downward(job, spec, &volume.name, source, &at("downwardAPI"));
    }
    if let Some(source) = &volume.projected {
        return files::projected(job, spec, &volume.name, source, &at("projected"));
    }
    if let Some(source) = &volume.host_path {
        return host(job, source, &at("hostPath"));
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return claim(job, spec, source, &at("persistentVolumeClaim"));
    }
    if let Some(source) = &volume.image {
        return image_volume(job, source, &at("image"));
    }
    // In Kubernetes a volume without a source is an emptyDir.
    let source = volume.empty_dir.clone().unwrap_or_default();
    empty(job, spec, &volume.name, &source, &at("emptyDir"))
}

fn host(job: &mut Job<'_>, source: &HostPathVolumeSource, pointer: &str) -> Kind {
    let Some(path) = absolute(&source.path) else {
        let message = format!(
            "{:?} is not an absolute path without `..`, `\\`, control characters, or white space or quotes at its ends",
            source.path
        );
        job.refuse(code::SCHEMA, &format!("{pointer}/path"), message);
        return Kind::Refused;
    };
    let is = |letter| PreStart::Test(letter, path.clone());
    // Project Flotta's documents mount device nodes as `File`, which `podman kube play` accepts.
    let no_folder = PreStart::TestNot('d', path.clone());
    let pre_start = match source.type_.as_deref().unwrap_or_default() {
        "" => vec![],
        "Directory" => vec![is('d')],
        "DirectoryOrCreate" => vec![PreStart::Folder(path.clone())],
        "File" => vec![no_folder],
        "FileOrCreate" => vec![PreStart::File(path.clone()), no_folder],
        "Socket" => vec![is('S')],
        node @ ("BlockDevice" | "CharDevice") => {
            if path.contains(':') {
                let message = "the path of a device node cannot contain a `:`";
                job.refuse(code::SCHEMA, &format!("{pointer}/path"), message);
                return Kind::Refused;
            }
            let pre_start = is(if node == "BlockDevice" { 'b' } else { 'c' });
            return Kind::Node { path, pre_start };
        }
        other => {
            let message = format!("`{other}` is not a type of hostPath");
            job.refuse(code::SCHEMA, &format!("{pointer}/type"), message);
            return Kind::Refused;
        }
    };
    Kind::Host { path, pre_start }
}

/// Returns an absolute path in its shortest form.
fn absolute(path: &str) -> Option<String> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !["", "."].contains(part))
        .collect();
    let good = path.starts_with('/') && fits_a_line(path) && !parts.contains(&"..");
    good.then(|| format!("/{}", parts.join("/")))
}

fn claim(
    job: &mut Job<'_>,
    spec: &PodSpec,
    source: &PersistentVolumeClaimVolumeSource,
    pointer: &str,
) -> Kind {
    let name = source.claim_name.clone();
    if let Err(error) = check_subdomain(&name) {
        let message = error.to_string();
        job.refuse(code::BAD_NAME, &format!("{pointer}/claimName"), message);
        return Kind::Refused;
    }
    let read_only = source.read_only == Some(true);
    let what = format!("claim `{name}`");
    uses(job, &name, what, false, &format!("{pointer}/claimName"));
    // Without a group, Kubernetes does not change the owner of a claim.
    let access = files_group(spec).map(|group| Access {
        group,
        mode: "2775",
    });
    Kind::Named {
        name,
        read_only,
        access,
    }
}

/// Adds a Podman volume that the workload uses.
fn uses(job: &mut Job<'_>, name: &str, what: String, is_own: bool, pointer: &str) {
    let place = job.workload.document.place(pointer);
    job.out.volumes.push(compiled::Volume {
        name: name.to_owned(),
        what,
        is_own,
        place,
    });
}

fn image_volume(job: &mut Job<'_>, source: &ImageVolumeSource, pointer: &str) -> Kind {
    let reference = source.reference.clone().unwrap_or_default();
    let policy = source.pull_policy.as_deref();
    let places = (
        format!("{pointer}/reference"),
        format!("{pointer}/pullPolicy"),
    );
    image::needed(job, reference, policy, (&places.0, &places.1))
        .map_or(Kind::Refused, |reference| Kind::Image { reference })
}

fn empty(
    job: &mut Job<'_>,
    spec: &PodSpec,
    name: &str,
    source: &EmptyDirVolumeSource,
    pointer: &str,
) -> Kind {
    let limit = format!("{pointer}/sizeLimit");
    let mut size = None;
    if let Some(quantity) = &source.size_limit {
        size = Quantity::parse(&quantity.0).map(Quantity::units);
        if size.is_none() {
            let message = format!("`{}` is not a quantity", quantity.0);
            job.refuse(code::SCHEMA, &limit, message);
        }
    }
    match source.medium.as_deref().unwrap_or_default() {
        "" => {
            if size.is_some_and(|size| size > 0) {
                let message = "`sizeLimit` has no effect: Podman cannot limit a volume on disk, only one in memory (`medium: Memory`)";
                job.note(&limit, message);
            }
            let own = format!("{}-{name}", job.name);
            let what = format!("emptyDir `{name}`");
            uses(job, &own, what, true, pointer);
            // As in Kubernetes, everybody can write to it.
            let access = match files_group(spec) {
                Some(group) => Access {
                    group,
                    mode: "2777",
                },
                None => Access {
                    group: 0,
                    mode: "0777",
                },
            };
            Kind::Named {
                name: own,
                read_only: false,
                access: Some(access),
            }
        }
        "Memory" => {
            // In Kubernetes zero means no limit.
            let size = size.filter(|size| *size > 0);
            let group = files_group(spec);
            // Podman cannot set the group of a container's own tmpfs.
            if group.is_none() && is_mounted_once(spec, name) {
                return Kind::Memory { size };
            }
            let folder = format!("{MEMORY_FOLDER}/{}/{name}", job.name);
            // Kubernetes names have no `_`, so this is the name of no other volume, nor of the same volume on disk.
            let name = format!("{}_{name}", job.name);
            let memory = Memory {
                folder,
                size,
                group,
            };
            Kind::Shared { name, memory }
        }
        other => {
            let message = format!("`{other}`: use Memory, or leave it out");
            job.refuse(
                code::UNSUPPORTED_FIELD,
                &format!("{pointer}/medium"),
                message,
            );
            Kind::Refused
        }
    }
}

/// Returns the group of the pod's volumes. An invalid id is reported with the container's groups.
pub(super) fn files_group(spec: &PodSpec) -> Option<u32> {
    let context = spec.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// Whether a volume is mounted once, as a whole, so that the mount can have its own tmpfs.
fn is_mounted_once(spec: &PodSpec, name: &str) -> bool {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mounts =
        containers.flat_map(|container: &Container| container.volume_mounts.iter().flatten());
    let mut mounts = mounts.filter(|mount| mount.name == name);
    let whole = mounts.next().is_none_or(|mount| {
        mount.sub_path.as_deref().unwrap_or_default().is_empty()
            && mount
                .sub_path_expr
                .as_deref()
                .unwrap_or_default()
                .is_empty()
    });
    whole && mounts.next().is_none()
}
