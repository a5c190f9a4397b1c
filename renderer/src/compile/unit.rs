//! Containers and pods as they should run: what a `PodSpec` is compiled to, and what [`super::quadlet`] writes.
//!
//! Each type belongs to one feature. Values are not quoted: that is the task of the writer.

use std::fmt;

use flotta_bundle::DevicePath;

/// A container with its own unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerUnit {
    /// The name of the container, of its file and of its service.
    pub(super) name: String,
    /// What `systemctl status` shows.
    pub(super) description: String,
    /// The reference of the image.
    pub(super) image: String,
    /// The services that start before it.
    pub(super) after: Vec<Dependency>,
    /// Its own network, or that of its pod.
    pub(super) network: NetworkMode,
    /// The other namespaces that it shares with the device.
    pub(super) namespaces: Namespaces,
    /// The names and values of its environment variables, in order.
    pub(super) environment: Vec<(String, String)>,
    /// What runs in it.
    pub(super) process: Process,
    /// Its mounts.
    pub(super) mounts: Mounts,
    /// What it may do.
    pub(super) security: Security,
    /// How much it may use.
    pub(super) limits: Limits,
    /// Its labels and annotations.
    pub(super) labels: Labels,
    /// Its health checks.
    /// The health check that Podman runs.
    pub(super) health: Option<Check>,
    /// How systemd runs it: restarts and timeouts.
    pub(super) service: Service,
}

/// A service that starts before another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    /// The name of its unit.
    pub(super) service: String,
    /// Whether it must have finished successfully before the other starts. Otherwise it keeps running, and may restart on its own.
    pub(super) is_done: bool,
}

/// Several containers that share a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodUnit {
    /// The name of the pod and its file.
    pub(super) name: String,
    /// What `systemctl status` shows.
    pub(super) description: String,
    /// The network of its containers.
    pub(super) network: Network,
    /// Whether they see each other's processes.
    pub(super) shares_processes: bool,
    /// Whether it has its own user namespace.
    pub(super) own_users: bool,
    /// The tmpfs mounts that its containers share. They are gone when the pod stops.
    pub(super) memory: Vec<Memory>,
}

/// The namespaces that a container shares with the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Whether it sees the device's processes.
    pub(super) host_processes: bool,
    /// Whether it uses the device's IPC: semaphores, shared memory, message queues.
    pub(super) host_ipc: bool,
    /// Whether it has its own user namespace. A container in a pod uses the pod's.
    pub(super) own_users: bool,
}

/// The network that a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkMode {
    /// The container has its own network and is started on its own.
    Own(Box<Network>),
    /// The container uses the network of the pod with this name, which starts it.
    Pod(String),
}

/// The network of a pod, or of a container without a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// The published ports.
    pub(super) ports: Vec<PublishedPort>,
    /// Whether it uses the device's network and host name.
    pub(super) host: bool,
    /// Name servers.
    pub(super) dns: Vec<String>,
    /// Search domains.
    pub(super) dns_search: Vec<String>,
    /// Resolver options.
    pub(super) dns_options: Vec<String>,
    /// The host name.
    pub(super) hostname: Option<String>,
    /// Host names and their addresses for `/etc/hosts`.
    pub(super) hosts: Vec<(String, String)>,
    /// Kernel parameters and their values.
    pub(super) sysctls: Vec<(String, String)>,
}

/// A port of the device that is forwarded to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishedPort {
    /// The address on the device; empty for all addresses.
    pub(super) address: String,
    /// The port of the device.
    pub(super) host: u16,
    /// The port of the container.
    pub(super) container: u16,
    /// The protocol.
    pub(super) protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Returns the protocol with this name, in upper or lower case, or TCP for any other name.
    pub(super) fn of(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// What runs in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Replaces the image's entry point and arguments; empty to keep them.
    pub(super) entrypoint: Vec<String>,
    /// Replaces the image's arguments; empty to keep them.
    pub(super) arguments: Vec<String>,
    /// Replaces the image's working directory.
    pub(super) working_dir: Option<String>,
    /// Whether it has a terminal.
    pub(super) terminal: bool,
    /// Whether its standard input stays open.
    pub(super) input: bool,
}

/// The mounts of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// The mounts, in the order in which they are mounted.
    pub(super) all: Vec<Mount>,
    /// Files of the bundle; the container restarts when one of them changes.
    pub(super) restart_on: Vec<DevicePath>,
    /// The steps before it starts, in order.
    pub(super) pre_start: Vec<PreStart>,
    /// The tmpfs mounts that it uses in more than one place. They are gone when it stops.
    pub(super) memory: Vec<Memory>,
}

/// A step on the device before a container starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PreStart {
    /// Creates a folder unless it exists.
    Folder(String),
    /// Creates a folder unless it exists; a failure is ignored, because the path may be a file that can be mounted.
    TryFolder(String),
    /// Creates a folder below a volume that containers write to, without following symbolic links that they left there.
    Below {
        /// The folder.
        root: String,
        /// The path below it, which may also be an existing file that can be mounted.
        path: String,
        /// The mode of new folders; the default one when absent.
        mode: Option<&'static str>,
    },
    /// Creates an empty file unless it exists.
    File(String),
    /// Creates a Podman volume unless it exists.
    Volume {
        /// The name of the volume.
        name: String,
        /// The folder of the device that the volume binds; one that Podman manages when absent.
        folder: Option<String>,
        /// The group of the volume, which then belongs to root; when absent, it belongs to the first container's user.
        group: Option<u32>,
    },
    /// Sets the mode of a folder while it is empty. A container may have set another one since.
    Mode {
        /// The folder.
        folder: String,
        /// The mode, as an argument of chmod(1).
        mode: &'static str,
    },
    /// Checks a path with this file test of test(1), such as `d` for a folder.
    Test(char, String),
    /// Checks that this file test of test(1) fails for a path.
    TestNot(char, String),
}

/// A tmpfs that is mounted on a folder of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    /// The folder.
    pub(super) folder: String,
    /// The size limit in bytes; half of the device's memory when absent.
    pub(super) size: Option<u64>,
    /// The group that the tmpfs and its new files belong to; root's when absent.
    pub(super) group: Option<u32>,
}

/// A mount of a path of the device, or of a Podman volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// The absolute path, or the name of the volume.
    pub(super) source: String,
    /// The path in the Podman volume that is mounted; the whole volume when absent.
    pub(super) part: Option<String>,
    /// The path in the container.
    pub(super) inside: String,
    /// Whether the container cannot write to it.
    pub(super) read_only: bool,
    /// The `SELinux` label that the content gets.
    pub(super) label: Option<Label>,
    /// The mount propagation; none when absent.
    pub(super) propagation: Option<Propagation>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mount {
    /// A path of the device, or a Podman volume.
    Volume(Volume),
    /// The content of an image, read-only.
    Image {
        /// The reference of the image.
        reference: String,
        /// The path in the image that is mounted; the whole image when absent.
        part: Option<String>,
        /// The path in the container.
        inside: String,
    },
    /// A device node.
    Device {
        /// The path on the device.
        path: String,
        /// The path in the container.
        inside: String,
    },
    /// A tmpfs, which is gone when the container stops.
    Tmpfs {
        /// The path in the container.
        inside: String,
        /// Whether the container cannot write to it.
        read_only: bool,
        /// The size limit in bytes; no limit when absent.
        size: Option<u64>,
    },
}

/// An `SELinux` label for the content of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// All containers may use the content.
    Shared,
    /// Only this container may use the content.
    Private,
}

/// The propagation of mounts below a mounted path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    /// Mounts of the device appear in the container.
    HostToContainer,
    /// Mounts of the device appear in the container, and mounts of the container on the device.
    Bidirectional,
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Security {
    /// The user id; the image's when absent.
    pub(super) user: Option<u32>,
    /// The group id; the user's when absent.
    pub(super) group: Option<u32>,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// Whether it is privileged.
    pub(super) privileged: bool,
    /// Whether its root file system is read-only.
    pub(super) read_only: bool,
    /// Whether its programs cannot gain privileges.
    pub(super) no_new_privileges: bool,
    /// Capabilities that it has in addition to the default ones.
    pub(super) add_capabilities: Vec<String>,
    /// Capabilities that it does not have.
    pub(super) drop_capabilities: Vec<String>,
    /// Values for `--security-opt=`: profiles and labels.
    pub(super) options: Vec<String>,
}

/// The resource limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// CPU time, in thousandths of one CPU.
    pub(super) cpu: Option<u64>,
    /// Memory, in bytes.
    pub(super) memory: Option<u64>,
    /// Memory that is reserved for it when memory is short, in bytes.
    pub(super) reserved: Option<u64>,
    /// Devices of the host: paths, or names of the Container Device Interface.
    pub(super) devices: Vec<String>,
}

/// Labels and annotations of a container: names and values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Labels.
    pub(super) labels: Vec<(String, String)>,
    /// Annotations, which Podman passes to the OCI runtime.
    pub(super) annotations: Vec<(String, String)>,
}

/// A command whose exit code says whether a container is healthy. When it fails, the container is stopped, and systemd decides
/// whether to restart it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// The program and its arguments, without a shell.
    pub(super) command: Vec<String>,
    /// Seconds in which failures do not count.
    pub(super) delay: u32,
    /// Seconds between two runs.
    pub(super) interval: u32,
    /// The timeout of one run, in seconds.
    pub(super) timeout: u32,
    /// The number of failures in a row after which the check has failed.
    pub(super) failures: u32,
}

/// How systemd runs a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// When it is restarted.
    pub(super) restart: Restart,
    /// Whether it counts as started only when it has finished, so that the services after it wait.
    pub(super) oneshot: bool,
    /// Whether it stays active when it has finished, and is not started again.
    pub(super) remains: bool,
    /// Seconds between the stop signal and the kill signal.
    pub(super) stop_seconds: u32,
    /// The stop signal; the image's or SIGTERM when absent.
    pub(super) stop_signal: Option<String>,
    /// The hook after the start. When the hook fails, the start fails.
    pub(super) started: Option<Hook>,
    /// The hook before the stop signal.
    pub(super) stopping: Option<Hook>,
    /// Seconds after which it is stopped.
    pub(super) deadline: Option<u32>,
}

/// A hook in the life cycle of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    /// Runs a command in the container: a program and its arguments.
    Command(Vec<String>),
    /// Waits for this number of seconds.
    Sleep(u32),
}

/// When a service is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// However the service ended.
    Always,
    /// When the service failed.
    OnFailure,
    /// Never.
    Never,
}
