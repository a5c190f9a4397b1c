//! Writes the mounts of a container.

use crate::compile::MEMORY_FOLDER;
use crate::compile::unit::{Label, Memory, Mount, Mounts, PreStart, Propagation, Volume};
use crate::compile::writer::Writer;

pub(super) fn mounts(file: &mut Writer, mounts: &Mounts) {
    let Mounts {
        all,
        restart_on: _, // in the manifest
        pre_start: _,  // done by the service
        memory: _,     // mounted by the service
    } = mounts;
    for mount in all {
        match mount {
            Mount::Volume(mount) => volume(file, mount),
            Mount::Image {
                reference,
                part,
                inside,
            } => {
                let mut fields = vec!["type=image".to_owned()];
                fields.push(format!("source={reference}"));
                fields.push(format!("destination={inside}"));
                // Podman expects an absolute path.
                fields.extend(part.iter().map(|part| format!("subpath=/{part}")));
                mount_argument(file, &fields);
            }
            Mount::Device { path, inside } => file.value("AddDevice", &format!("{path}:{inside}")),
            Mount::Tmpfs {
                inside,
                read_only,
                size,
            } => {
                // Podman would otherwise copy the content of the image, with its owner and mode.
                let mut options = vec!["mode=0777".to_owned(), "notmpcopyup".to_owned()];
                options.extend(size.map(|bytes| format!("size={bytes}")));
                options.extend(read_only.then(|| "ro".to_owned()));
                file.value("Tmpfs", &with_options(inside, options));
            }
        }
    }
}

/// Writes a mount of a path or a volume: as `Volume=` where that key can express it.
fn volume(file: &mut Writer, mount: &Volume) {
    let Volume {
        source,
        part,
        inside,
        read_only,
        label,
        propagation,
    } = mount;
    let path = source.starts_with('/');
    let propagation = propagation.map(|propagation| match propagation {
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    });
    // `.volume` would be the name of another Quadlet file.
    if part.is_none() && !source.contains([':', ',']) && !source.ends_with(".volume") {
        let label = label.map(|label| match label {
            Label::Shared => "z",
            Label::Private => "Z",
        });
        // In Kubernetes a volume is empty, even if the image has files at its mount path.
        let options = (!path).then_some("nocopy").into_iter();
        let options = options.chain(read_only.then_some("ro"));
        let options = options.chain(label).chain(propagation).map(str::to_owned);
        let place = format!("{source}:{inside}");
        file.value("Volume", &with_options(&place, options));
        return;
    }
    // Podman copies nothing into a subpath of a volume.
    let kind = if path { "bind" } else { "volume" };
    let mut fields = vec![format!("type={kind}"), format!("source={source}")];
    fields.push(format!("destination={inside}"));
    fields.extend(part.iter().map(|part| format!("subpath={part}")));
    fields.extend(read_only.then(|| "ro=true".to_owned()));
    fields.extend(label.map(|label| match label {
        Label::Shared => "relabel=shared".to_owned(),
        Label::Private => "relabel=private".to_owned(),
    }));
    // The two types use different names for the propagation.
    let prefix = if path { "bind-propagation=" } else { "" };
    fields.extend(propagation.map(|propagation| format!("{prefix}{propagation}")));
    mount_argument(file, &fields);
}

/// Returns `PLACE[:OPTION,…]`.
fn with_options(place: &str, options: impl IntoIterator<Item = String>) -> String {
    let options: Vec<_> = options.into_iter().collect();
    let colon = if options.is_empty() { "" } else { ":" };
    format!("{place}{colon}{}", options.join(","))
}

/// Writes a `--mount` argument. Podman reads its fields as a line of CSV.
fn mount_argument(file: &mut Writer, fields: &[String]) {
    let quoted = fields.iter().map(|field| {
        if field.contains([',', '"']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    });
    let line = quoted.collect::<Vec<_>>().join(",");
    file.words("PodmanArgs", ["--mount", line.as_str()]);
}

pub(super) fn pre_start(file: &mut Writer, mounts: &Mounts) {
    const KEY: &str = "ExecStartPre";
    // The tmpfs comes first, because folders are created in it.
    memory(file, &mounts.memory);
    for step in &mounts.pre_start {
        match step {
            PreStart::Folder(path) => file.words(KEY, ["/usr/bin/mkdir", "-p", "--", path]),
            PreStart::TryFolder(path) => file.words(KEY, ["-/usr/bin/mkdir", "-p", "--", path]),
            PreStart::Below { root, path, mode } => below(file, root, path, *mode),
            PreStart::File(path) => file.words(KEY, ["/usr/bin/touch", "-a", "--", path]),
            PreStart::Volume {
                name,
                folder,
                group,
            } => {
                let mut options = Vec::new();
                if let Some(folder) = folder {
                    options = vec![
                        "type=none".into(),
                        "o=bind".into(),
                        format!("device={folder}"),
                    ];
                }
                options.extend(group.map(|group| format!("o=uid=0,gid={group}")));
                let create = ["/usr/bin/podman", "volume", "create", "--ignore"];
                let options = options.iter().flat_map(|option| ["--opt", option]);
                file.words(
                    KEY,
                    create.into_iter().chain(options).chain([name.as_str()]),
                );
            }
            PreStart::Mode { folder, mode } => {
                // This needs no shell, and it does nothing if Podman's storage is in another folder.
                let find = ["-/usr/bin/find", folder, "-maxdepth", "0", "-empty"];
                let exec = ["-exec", "/usr/bin/chmod", mode, "{}", "+"];
                file.words(KEY, find.into_iter().chain(exec));
            }
            PreStart::TestNot(letter, path) => {
                file.words(KEY, ["/usr/bin/test", "!", &format!("-{letter}"), path]);
            }
            PreStart::Test(letter, path) => {
                file.words(KEY, ["/usr/bin/test", &format!("-{letter}"), path]);
            }
        }
    }
}

/// Creates the folders of a path one by one. mkdir(1) does not follow a symbolic link at the end of a path, and the folders above
/// are checked first. A folder that exists is no failure.
fn below(file: &mut Writer, root: &str, path: &str, mode: Option<&str>) {
    let mut folder = root.to_owned();
    for part in path.split('/') {
        if folder != root {
            file.words("ExecStartPre", ["/usr/bin/test", "!", "-L", &folder]);
        }
        folder = format!("{folder}/{part}");
        let mode = mode.iter().flat_map(|mode| ["-m", mode]);
        let make = ["-/usr/bin/mkdir"].into_iter().chain(mode);
        file.words("ExecStartPre", make.chain(["--", &folder]));
    }
}

/// Mounts each tmpfs before the start, and unmounts it after the stop, however that ended. The unmount is lazy: processes that
/// still use the tmpfs keep it until they end.
pub(super) fn memory(file: &mut Writer, all: &[Memory]) {
    for Memory {
        folder,
        size,
        group,
    } in all
    {
        let mut options = match group {
            Some(group) => format!("mode=2777,gid={group},nosuid,nodev"),
            None => "mode=0777,nosuid,nodev".to_owned(),
        };
        if let Some(bytes) = size {
            options = format!("{options},size={bytes}");
        }
        let mount = [
            "/usr/bin/mount",
            "-t",
            "tmpfs",
            "-o",
            &options,
            "tmpfs",
            folder,
        ];
        // The accounts of the device have no access to it, as with Podman volumes.
        let closed = ["/usr/bin/mkdir", "-p", "-m", "0700", "--", MEMORY_FOLDER];
        file.words("ExecStartPre", closed);
        file.words("ExecStartPre", ["/usr/bin/mkdir", "-p", "--", folder]);
        file.words("ExecStartPre", mount);
        file.words("ExecStopPost", ["-/usr/bin/umount", "--lazy", "--", folder]);
    }
}
