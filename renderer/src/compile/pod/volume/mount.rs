//! The mount of a volume in a container.

use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::VolumeMount;

use super::{Access, Kind, inner_path};
use crate::compile::job::Job;
use crate::compile::pod::context::ContainerContext;
use crate::compile::pod::env::expand;
use crate::compile::unit::{Label, Mount, Mounts, PreStart, Propagation, Volume};
use crate::compile::writer::fits_a_line;

/// The folder in which Podman keeps volumes by default. On a device with another storage folder, a folder that `subPath` names
/// must be created by hand, or the container does not start.
const PODMAN_VOLUMES: &str = "/var/lib/containers/storage/volumes";

/// Paths at which Podman mounts a tmpfs in a container with a read-only root file system. Podman 5.4 mounts it over one of its
/// volumes there as well, but not over a bind mount.
const PODMAN_MEMORY: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// A mount with valid fields.
struct Wanted<'a> {
    inside: String,
    /// Whether Podman would hide one of its volumes there.
    is_hidden: bool,
    sub: Option<String>,
    read_only: bool,
    label: Option<Label>,
    propagation: Option<Propagation>,
    pointer: &'a str,
}

/// Adds a mount and the steps that it needs.
pub(super) fn add(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    mount: &VolumeMount,
    kind: &Kind,
    variables: &[(String, String)],
    pointer: &str,
    mounts: &mut Mounts,
) {
    if let Some(wanted) = wanted(job, context, mount, variables, pointer)
        && let Some(mount) = made(job, mounts, kind, wanted)
    {
        mounts.all.push(mount);
    }
}

/// Checks the fields of a mount.
fn wanted<'a>(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    mount: &VolumeMount,
    variables: &[(String, String)],
    pointer: &'a str,
) -> Option<Wanted<'a>> {
    let (inside, label) = match mount.mount_path.rsplit_once(':') {
        Some((inside, "z")) => (inside, Some(Label::Shared)),
        Some((inside, "Z")) => (inside, Some(Label::Private)),
        _ => (mount.mount_path.as_str(), None),
    };
    if !inside.starts_with('/') || inside.contains([':', ',']) || !fits_a_line(inside) {
        let message = "mountPath must be an absolute path without `:` (but for `:z` or `:Z` at its end), `,`, `\\` or control characters";
        job.refuse(code::SCHEMA, &format!("{pointer}/mountPath"), message);
        return None;
    }
    let security = context.container.security_context.as_ref();
    let is_read_only = security.is_some_and(|own| own.read_only_root_filesystem == Some(true));
    Some(Wanted {
        inside: inside.to_owned(),
        is_hidden: is_read_only && PODMAN_MEMORY.contains(&inside.trim_end_matches('/')),
        sub: sub_path(job, mount, variables, pointer)?,
        read_only: read_only(job, mount, pointer),
        label,
        propagation: propagation(job, context, mount, pointer),
        pointer,
    })
}

/// Returns the path below the volume, if one is given, or reports why it is invalid.
#[expect(
    clippy::option_option,
    reason = "the outer option says whether it is valid"
)]
fn sub_path(
    job: &mut Job<'_>,
    mount: &VolumeMount,
    variables: &[(String, String)],
    pointer: &str,
) -> Option<Option<String>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (field, sub) = match (given(&mount.sub_path), given(&mount.sub_path_expr)) {
        (None, None) => return Some(None),
        (Some(sub), None) => ("subPath", sub),
        (None, Some(expression)) => ("subPathExpr", expand(&expression, variables)),
        (Some(_), Some(_)) => {
            let pointer = format!("{pointer}/subPathExpr");
            let message = "`subPath` and `subPathExpr` are both given: use one of them";
            job.refuse(code::SCHEMA, &pointer, message);
            return None;
        }
    };
    let pointer = format!("{pointer}/{field}");
    let unknown = sub
        .split_once("$(")
        .and_then(|(_, rest)| rest.split_once(')'));
    if let Some((name, _)) = unknown.filter(|_| field == "subPathExpr") {
        let message = format!("the container has no variable `{name}`");
        job.refuse(code::MISSING_REFERENCE, &pointer, message);
        return None;
    }
    let inner = inner_path(&sub);
    if inner.is_none() {
        let message = format!(
            "{sub:?} is not a relative path without `..`, `:`, `,`, `\\` or control characters"
        );
        job.refuse(code::SCHEMA, &pointer, message);
    }
    inner.map(Some)
}

fn read_only(job: &mut Job<'_>, mount: &VolumeMount, pointer: &str) -> bool {
    let read_only = mount.read_only == Some(true);
    let pointer = format!("{pointer}/recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        Some("IfPossible" | "Enabled") if !read_only => {
            job.refuse(
                code::SCHEMA,
                &pointer,
                "`recursiveReadOnly` needs `readOnly: true`",
            );
        }
        None | Some("Disabled" | "IfPossible") => {}
        Some("Enabled") => {
            let message = "Podman cannot make the mounts below a mount read-only: use `IfPossible`";
            job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
        }
        Some(other) => {
            let message = format!("`{other}`: use Disabled, IfPossible or Enabled");
            job.refuse(code::SCHEMA, &pointer, message);
        }
    }
    read_only
}

fn propagation(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    mount: &VolumeMount,
    pointer: &str,
) -> Option<Propagation> {
    let pointer = format!("{pointer}/mountPropagation");
    match mount.mount_propagation.as_deref() {
        None | Some("None") => None,
        Some("HostToContainer") => Some(Propagation::HostToContainer),
        Some("Bidirectional") => {
            let own = context.container.security_context.as_ref();
            if own.and_then(|own| own.privileged) != Some(true) {
                let message = "`Bidirectional` is for privileged containers only";
                job.refuse(code::SCHEMA, &pointer, message);
            }
            Some(Propagation::Bidirectional)
        }
        Some(other) => {
            let message = format!("`{other}`: use None, HostToContainer or Bidirectional");
            job.refuse(code::SCHEMA, &pointer, message);
            None
        }
    }
}

/// Returns the mount, and adds its steps to those of the container.
fn made(
    job: &mut Job<'_>,
    mounts: &mut Mounts,
    kind: &Kind,
    mut wanted: Wanted<'_>,
) -> Option<Mount> {
    let mount = match kind {
        Kind::Files { folder, files } => of_files(mounts, folder, files, wanted),
        Kind::Host { path, pre_start } => {
            for step in pre_start {
                first(mounts, step);
            }
            let inner = wanted.below(path);
            if let Some(inner) = &inner {
                first(mounts, &PreStart::TryFolder(inner.clone()));
            }
            wanted.bind(inner.unwrap_or_else(|| path.clone()))
        }
        Kind::Shared { name, memory } => {
            wanted.label = wanted.label.or(Some(Label::Shared));
            let folder = &memory.folder;
            if wanted.sub.is_some() {
                // Podman follows no symbolic link out of a volume, but it would out of a plain path.
                let volume = PreStart::Volume {
                    name: name.clone(),
                    folder: Some(folder.clone()),
                    group: None,
                };
                first(mounts, &volume);
                of_volume(mounts, name, folder, Some("0777"), wanted)
            } else {
                wanted.bind(folder.clone())
            }
        }
        Kind::Named {
            name,
            read_only,
            access,
        } => {
            wanted.read_only |= read_only;
            return of_named(job, mounts, name, *access, wanted);
        }
        Kind::Memory { size } => Mount::Tmpfs {
            inside: wanted.inside,
            read_only: wanted.read_only,
            size: *size,
        },
        Kind::Image { reference } => Mount::Image {
            reference: reference.clone(),
            part: wanted.sub,
            inside: wanted.inside,
        },
        Kind::Node { .. } if wanted.sub.is_some() => {
            let message = "a device node cannot have a `subPath`";
            job.refuse(
                code::SCHEMA,
                &format!("{}/subPath", wanted.pointer),
                message,
            );
            return None;
        }
        Kind::Node { path, pre_start } => {
            first(mounts, pre_start);
            Mount::Device {
                path: path.clone(),
                inside: wanted.inside,
            }
        }
        Kind::Refused => return None,
    };
    Some(mount)
}

impl Wanted<'_> {
    /// Returns the path of the `subPath` below a folder.
    fn below(&self, root: &str) -> Option<String> {
        let root = root.trim_end_matches('/');
        self.sub.as_ref().map(|sub| format!("{root}/{sub}"))
    }

    /// Returns the mount of a path of the device.
    fn bind(self, source: String) -> Mount {
        Mount::Volume(Volume {
            source,
            part: None,
            inside: self.inside,
            read_only: self.read_only,
            label: self.label,
            propagation: self.propagation,
        })
    }
}

/// Adds a step before the start, unless it is there already.
fn first(mounts: &mut Mounts, step: &PreStart) {
    if !mounts.pre_start.contains(step) {
        mounts.pre_start.push(step.clone());
    }
}

/// Returns the mount of files of the bundle, read-only as in Kubernetes.
fn of_files(
    mounts: &mut Mounts,
    folder: &str,
    files: &[DevicePath],
    mut wanted: Wanted<'_>,
) -> Mount {
    let source = wanted.below(folder).unwrap_or_else(|| folder.to_owned());
    let within = format!("{source}/");
    let is = |path: &str| path == source || path.starts_with(&within);
    let mounted: Vec<_> = files.iter().filter(|path| is(path.as_str())).collect();
    if mounted.is_empty() {
        first(mounts, &PreStart::Folder(source.clone()));
    }
    mounts.restart_on.extend(mounted.into_iter().cloned());
    wanted.read_only = true;
    // With SELinux the content needs a label that containers may read.
    wanted.label = wanted.label.or(Some(Label::Shared));
    wanted.bind(source)
}

/// Returns the mount of a Podman volume, and adds what has to be done before it.
fn of_named(
    job: &mut Job<'_>,
    mounts: &mut Mounts,
    name: &str,
    access: Option<Access>,
    wanted: Wanted<'_>,
) -> Option<Mount> {
    if wanted.is_hidden && wanted.sub.is_some() {
        let message = "with `readOnlyRootFilesystem`, Podman hides a part of a volume at this path: mount all of it";
        let pointer = format!("{}/mountPath", wanted.pointer);
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
        return None;
    }
    let folder = format!("{PODMAN_VOLUMES}/{name}/_data");
    if access.is_some() || wanted.sub.is_some() || wanted.is_hidden {
        let volume = PreStart::Volume {
            name: name.to_owned(),
            folder: None,
            group: access.map(|access| access.group),
        };
        first(mounts, &volume);
    }
    let mode = access.map(|access| access.mode);
    if let Some(mode) = mode {
        let folder = folder.clone();
        first(mounts, &PreStart::Mode { folder, mode });
    }
    if wanted.is_hidden {
        return Some(wanted.bind(folder));
    }
    Some(of_volume(mounts, name, &folder, mode, wanted))
}

/// Returns the mount of a Podman volume; `folder` contains its files. As in Kubernetes, a new folder in it gets the mode of the
/// volume.
fn of_volume(
    mounts: &mut Mounts,
    name: &str,
    folder: &str,
    mode: Option<&'static str>,
    wanted: Wanted<'_>,
) -> Mount {
    if let Some(sub) = &wanted.sub {
        let below = PreStart::Below {
            root: folder.to_owned(),
            path: sub.clone(),
            mode,
        };
        first(mounts, &below);
    }
    Mount::Volume(Volume {
        source: name.to_owned(),
        part: wanted.sub,
        inside: wanted.inside,
        read_only: wanted.read_only,
        label: wanted.label,
        propagation: wanted.propagation,
    })
}
