//! Containers and pods as they are to run: what a workload is compiled to, whatever it was written as, and what
//! [`super::quadlet`] writes.
//!
//! Each part belongs to one feature. Values mean themselves: quoting is the writer's business.

use std::fmt;

use flotta_bundle::DevicePath;

/// One container with a unit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerUnit {
    /// The name of the container, its file and its service.
    pub(super) name: String,
    /// What `systemctl status` shows.
    pub(super) description: String,
    /// The image's reference.
    pub(super) image: String,
    /// The services that come before it.
    pub(super) after: Vec<Earlier>,
    /// Its network: one of its own, or that of its pod.
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
    /// Its labels and annotations.
    pub(super) labels: Labels,
    /// Its health checks.
    pub(super) health: Health,
    /// How systemd runs it: restarts and limits of time.
    pub(super) service: Service,
}

/// A service that comes before another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Its unit.
    pub(super) service: String,
    /// Whether it is done then. Nothing that follows it runs without it; one that goes on may end and start again alone.
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
    /// Whether it has a user namespace of its own.
    pub(super) own_users: bool,
    /// Memory that its containers share, gone with it.
    pub(super) memory: Vec<Memory>,
}

/// What a container shares with the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Whether it sees the device's processes.
    pub(super) host_processes: bool,
    /// Whether it talks to them: semaphores, shared memory, message queues.
    pub(super) host_ipc: bool,
    /// Whether it has a user namespace of its own. A container in a pod uses the pod's.
    pub(super) own_users: bool,
}

/// The network that a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    /// It has its own, and is started by itself.
    Alone(Box<Network>),
    /// The network of the pod of this name, which starts it.
    Pod(String),
}

/// The network of a pod, or of a container alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    /// Ports of the device that lead to it.
    pub(super) ports: Vec<PublishedPort>,
    /// Whether it uses the device's network and host name.
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
    /// The protocol.
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

impl Protocol {
    /// The protocol of this name, in upper or lower case; TCP for any other.
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
    /// Replaces the image's entry point and arguments, unless it is empty.
    pub(super) entrypoint: Vec<String>,
    /// Replaces the image's arguments, unless it is empty.
    pub(super) arguments: Vec<String>,
    /// Replaces the image's working directory.
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
    /// What is done before it starts, in order.
    pub(super) before: Vec<Before>,
    /// Memory that it mounts in more than one place, gone with it.
    pub(super) memory: Vec<Memory>,
}

/// What is done on the device before a container starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// A folder is made, unless it is there.
    Folder(String),
    /// The same, unless a file is there: the mount shows whether it will do.
    Tried(String),
    /// The same below a volume that containers write to: a link that one left there is not followed.
    Below {
        /// The folder.
        root: String,
        /// The path below it. What is there may be a file as well: the mount shows whether it will do.
        path: String,
        /// The mode of folders that are made; the usual one when absent.
        mode: Option<&'static str>,
    },
    /// An empty file is made, unless it is there.
    File(String),
    /// A volume of Podman's is made, unless it is there.
    Volume {
        /// Its name.
        name: String,
        /// The folder of the device that it stands for; one of Podman's own when absent.
        folder: Option<String>,
        /// Root's, with this group; the first container's user's when absent.
        group: Option<u32>,
    },
    /// A folder gets a mode as long as it is empty: a container may have set another since.
    Mode {
        /// The folder.
        folder: String,
        /// The mode, for chmod(1).
        mode: &'static str,
    },
    /// Checks that a path is what test(1) means by this letter.
    Is(char, String),
    /// Checks that a path is not what test(1) means by this letter.
    IsNot(char, String),
}

/// A file system in memory, mounted on a folder of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    /// The folder.
    pub(super) folder: String,
    /// At most so many bytes; half of the device's memory when absent.
    pub(super) size: Option<u64>,
    /// The group that it, and what is made in it, belongs to; root's when absent.
    pub(super) group: Option<u32>,
}

/// A mount of a path of the device, or of a volume of Podman's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// Absolute path, or name of the volume.
    pub(super) source: String,
    /// What of a volume of Podman's is mounted; all of it when absent.
    pub(super) part: Option<String>,
    /// Path in the container.
    pub(super) inside: String,
    /// Whether the container cannot write to it.
    pub(super) read_only: bool,
    /// The `SELinux` label that its content gets.
    pub(super) label: Option<Label>,
    /// Which mounts below it come through; none when absent.
    pub(super) through: Option<Through>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mount {
    /// A path of the device, or a volume of Podman's.
    Volume(Volume),
    /// The content of an image, read-only.
    Image {
        /// The image's reference.
        reference: String,
        /// What of it is mounted; all of it when absent.
        part: Option<String>,
        /// Path in the container.
        inside: String,
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
        /// Whether the container cannot write to it.
        read_only: bool,
        /// At most so many bytes; no limit when absent.
        size: Option<u64>,
    },
}

/// An `SELinux` label for the content of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// All containers may use it.
    Shared,
    /// This container alone may.
    Private,
}

/// Which mounts below a mounted path come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    /// Those that the device makes.
    In,
    /// Those that the container makes, too.
    Both,
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
    /// Processor time, in thousandths of one processor.
    pub(super) cpu: Option<u64>,
    /// Memory, in bytes.
    pub(super) memory: Option<u64>,
    /// Memory that it keeps when memory is short, in bytes.
    pub(super) reserved: Option<u64>,
    /// Devices of the host: paths, or names of the Container Device Interface.
    pub(super) devices: Vec<String>,
}

/// Labels and annotations of a container: names and values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Labels.
    pub(super) labels: Vec<(String, String)>,
    /// Annotations: for the runtime below Podman.
    pub(super) annotations: Vec<(String, String)>,
}

/// The health checks of a container: commands that Podman runs in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// While it runs. When it fails, the container is stopped, and systemd goes on from there.
    pub(super) check: Option<Check>,
    /// Until it succeeds once; only then the other begins. When it fails, the container is restarted.
    pub(super) startup: Option<Check>,
}

/// A command that tells by its exit code whether a container works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Program and arguments; no shell.
    pub(super) command: Vec<String>,
    /// Seconds in which failures do not count.
    pub(super) delay: u32,
    /// Seconds between two runs.
    pub(super) interval: u32,
    /// Seconds that it may take.
    pub(super) timeout: u32,
    /// Failures in a row that count.
    pub(super) failures: u32,
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
    /// Seconds between being asked to stop and being killed.
    pub(super) stop_seconds: u32,
    /// The signal that asks it to stop; the image's, or SIGTERM, when absent.
    pub(super) stop_signal: Option<String>,
    /// What is done once it runs. When it fails, so does the start.
    pub(super) started: Option<Hook>,
    /// What is done before it is asked to stop.
    pub(super) stopping: Option<Hook>,
    /// Seconds after which it is ended.
    pub(super) deadline: Option<u32>,
}

/// What is done at a turn in a container's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    /// A command in it: program and arguments.
    Command(Vec<String>),
    /// Waiting, in seconds.
    Sleep(u32),
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
