//! Containers and pods as they are to run: what a workload is compiled to, whatever it was written as, and what
//! [`super::quadlet`] writes.
//!
//! Each part belongs to one feature. Values mean themselves: quoting is the writer's business.

use std::fmt;

use flotta_bundle::DevicePath;

/// One container with a unit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerUnit {
    /// Of the container, its file and its service.
    pub(super) name: String,
    /// What `systemctl status` shows.
    pub(super) description: String,
    /// The image's reference.
    pub(super) image: String,
    /// The service that must be done, or running, before.
    pub(super) after: Option<String>,
    /// Where it has its network from.
    pub(super) network: Joined,
    /// What else it shares with the device.
    pub(super) namespaces: Namespaces,
    /// Names and values, in order.
    pub(super) environment: Vec<(String, String)>,
    /// What runs in it.
    pub(super) process: Process,
    /// What it sees of the device.
    pub(super) mounts: Mounts,
    /// What it may do.
    pub(super) security: Security,
    /// How much it may use.
    pub(super) limits: Limits,
    /// How it is found.
    pub(super) labels: Labels,
    /// How systemd looks after it.
    pub(super) service: Service,
}

/// Several containers that share a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodUnit {
    /// Of the pod and its file.
    pub(super) name: String,
    /// What `systemctl status` shows.
    pub(super) description: String,
    /// The network of its containers.
    pub(super) network: Network,
    /// Whether they see each other's processes.
    pub(super) shares_processes: bool,
    /// Whether its users are others than the device's.
    pub(super) own_users: bool,
}

/// What a container shares with the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Whether it sees the device's processes.
    pub(super) host_processes: bool,
    /// Whether it talks to them: semaphores, shared memory, message queues.
    pub(super) host_ipc: bool,
    /// Whether its users are others than the device's. Those of a container in a pod are the pod's.
    pub(super) own_users: bool,
}

/// Where a container has its network from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    /// It has its own, and is started by itself.
    Alone(Box<Network>),
    /// From the pod of this name, which starts it.
    Pod(String),
}

/// The network of a pod, or of a container alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Ports of the device that lead to it.
    pub(super) ports: Vec<PublishedPort>,
    /// Whether it is the device's own, the host name too.
    pub(super) host: bool,
    /// Name servers.
    pub(super) dns: Vec<String>,
    /// Search domains.
    pub(super) dns_search: Vec<String>,
    /// Options of the resolver.
    pub(super) dns_options: Vec<String>,
    /// Host name.
    pub(super) hostname: Option<String>,
    /// Host names and their addresses, for `/etc/hosts`.
    pub(super) hosts: Vec<(String, String)>,
    /// Parameters of the kernel and their values.
    pub(super) sysctls: Vec<(String, String)>,
}

/// A port of the device that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishedPort {
    /// Address of the device; empty for all.
    pub(super) address: String,
    /// Port of the device.
    pub(super) host: u16,
    /// Port of the container.
    pub(super) container: u16,
    /// What is spoken there.
    pub(super) protocol: Protocol,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
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
    /// Instead of the image's entry point and arguments; empty: the image's.
    pub(super) entrypoint: Vec<String>,
    /// Instead of the image's arguments; empty: the image's.
    pub(super) arguments: Vec<String>,
    /// Instead of the image's working directory.
    pub(super) working_dir: Option<String>,
    /// Whether it has a terminal.
    pub(super) terminal: bool,
    /// Whether its standard input stays open.
    pub(super) input: bool,
}

/// What a container sees of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// In the order in which they are mounted.
    pub(super) all: Vec<Mount>,
    /// Files of the bundle whose change must restart it.
    pub(super) restart_on: Vec<DevicePath>,
    /// Folders of the device that are made before it starts, unless they are there.
    pub(super) folders: Vec<String>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mount {
    /// A path of the device, or a volume of Podman's.
    Volume {
        /// Absolute path, or name of the volume.
        source: String,
        /// Path in the container.
        inside: String,
        /// Whether the container cannot write to it.
        read_only: bool,
        /// Whether its content gets an SELinux label that all containers may read.
        shared_label: bool,
    },
    /// A device node.
    Device {
        /// Path on the device.
        path: String,
        /// Path in the container.
        inside: String,
    },
    /// Memory, gone with the container.
    Tmpfs {
        /// Path in the container.
        inside: String,
    },
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Security {
    /// User id; the image's when absent.
    pub(super) user: Option<u32>,
    /// Group id; the user's when absent.
    pub(super) group: Option<u32>,
    /// Groups that it is in beyond that one.
    pub(super) groups: Vec<u32>,
    /// Whether it may do all that root of the device may.
    pub(super) privileged: bool,
    /// Whether its own file system cannot be written to.
    pub(super) read_only: bool,
    /// Whether no program in it can gain rights.
    pub(super) no_new_privileges: bool,
    /// Capabilities that it has beyond the usual ones.
    pub(super) add_capabilities: Vec<String>,
    /// Capabilities that it does not have.
    pub(super) drop_capabilities: Vec<String>,
    /// What follows `--security-opt=`: profiles and labels.
    pub(super) options: Vec<String>,
}

/// How much a container may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Of a processor, in thousandths.
    pub(super) cpu: Option<u64>,
    /// In bytes.
    pub(super) memory: Option<u64>,
    /// What it keeps of that when memory is short, in bytes.
    pub(super) reserved: Option<u64>,
    /// Devices of the host: paths, or names of the Container Device Interface.
    pub(super) devices: Vec<String>,
}

/// How a container is found. Names and values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Labels.
    pub(super) labels: Vec<(String, String)>,
    /// Annotations: for the runtime below Podman.
    pub(super) annotations: Vec<(String, String)>,
}

/// How systemd looks after a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// When it is started again.
    pub(super) restart: Restart,
    /// Whether it is only started once it is done: what comes after it waits for that.
    pub(super) oneshot: bool,
    /// Whether it stays active once it is done, and is not started again for being done.
    pub(super) remains: bool,
    /// Seconds between being asked to stop and being killed; Podman's ten when absent.
    pub(super) stop_seconds: Option<u32>,
}

/// When a service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// However it ended.
    Always,
    /// When it failed.
    OnFailure,
    /// Never.
    Never,
}
