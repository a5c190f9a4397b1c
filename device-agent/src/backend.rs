//! The machine: systemd, Podman and files. Each as a trait, the real thing, and a fake with a state of its own.

mod error;
#[cfg(test)]
pub mod fake;
pub mod files;
pub mod podman;
pub(crate) mod prose;
#[cfg(test)]
mod script;
pub mod systemd;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use flotta_bundle::DevicePath;
use flotta_bundle::Digest;
use flotta_bundle::Owner;
use flotta_bundle::manifest::File;
use jiff::Timestamp;

pub use error::BackendError;

/// A unit as systemd has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// The finer state: `running`, `exited`, `auto-restart`, `start`.
    pub sub: String,
    /// `success`, or why it failed: `exit-code`, `signal`, `timeout`, …
    pub result: String,
    /// The file it was generated from.
    pub source: String,
    /// The unit file itself.
    pub fragment: String,
    /// Whether its `[Install]` is in force: `enabled`, `disabled`, `static` (it has none), `generated`; empty without a file.
    pub file_state: String,
    /// Which run it is: changes with every start.
    pub invocation: String,
    /// Exit status, or signal, of its last main process.
    pub exit_status: i32,
    /// Whether that was a signal.
    pub killed: bool,
    /// Automatic restarts since it was started.
    pub restarts: u32,
    /// Its `Restart=`.
    pub restart: String,
    /// When it came into its state, by the machine's clock.
    pub since: Option<Timestamp>,
    /// How long it has been active.
    pub active_for: Option<Duration>,
}

impl UnitState {
    /// Whether systemd has its definition.
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }

    /// Whether somebody forbade it to start.
    pub fn is_masked(&self) -> bool {
        self.load == "masked"
    }

    /// Whether it runs, or is done and stays so.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// Whether it runs, is about to, or is about to end: anything but at rest.
    pub fn is_up(&self) -> bool {
        self.is_active() || matches!(self.active.as_str(), "activating" | "deactivating")
    }

    /// Whether it failed, or goes round in restarts.
    pub fn is_failed(&self) -> bool {
        self.active == "failed" || self.awaits_restart()
    }

    /// Whether systemd will start it again in a while: `auto-restart`, `auto-restart-queued`.
    pub fn awaits_restart(&self) -> bool {
        self.sub.starts_with("auto-restart")
    }
}

/// What a job does to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it; start it when it does not run.
    Restart,
}

/// systemd.
pub trait Systemd {
    /// Reads all unit files again and runs the generators, Quadlet among them.
    fn reload(&mut self) -> impl Future<Output = Result<(), BackendError>>;
    /// A unit; its `load` is `not-found` when there is none.
    fn unit(&mut self, name: &str) -> impl Future<Output = Result<UnitState, BackendError>>;
    /// Starts jobs together, so that systemd can order them, and waits until they are done or `limit` has passed.
    fn jobs(
        &mut self,
        jobs: &[(Verb, String)],
        limit: Duration,
    ) -> impl Future<Output = Vec<(String, BackendError)>>;
    /// Puts a unit's `[Install]` in force, and takes back what it said before. It holds after the next reload.
    fn enable(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Takes it back.
    fn disable(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Forgets that a unit failed.
    fn reset_failed(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// The last lines that a unit wrote to the journal.
    fn journal(&mut self, name: &str) -> impl Future<Output = Vec<String>>;
    /// Waits until a unit of ours may have changed its state, or the time given to [`Systemd::look_again`] has come.
    fn changed(&mut self) -> impl Future<Output = ()>;
    /// Has [`Systemd::changed`] return after this time even if nothing changes; none: not.
    fn look_again(&mut self, after: Option<Duration>);
    /// Whether the machine itself may write at a path, as systemd sees its mounts: the agent has mounts of its own. None when
    /// systemd does not say.
    fn is_writable(&mut self, path: &str) -> impl Future<Output = Option<bool>>;
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Which it is: another one of the same name has another.
    pub id: String,
    /// Its address, or that of its pod; none where its network is the device's.
    pub address: Option<IpAddr>,
}

/// Podman.
pub trait Podman {
    /// Whether an image is in the store.
    fn has_image(&self, reference: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Pulls an image.
    fn pull(&self, reference: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Removes what a workload left behind: its pod, and containers that carry its label.
    fn sweep(&self, workload: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// The container of this name; none when none runs.
    fn container(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Container>, BackendError>>;
    /// Stops a container, by its id, within its grace period; false when it does not run.
    fn stop(&self, id: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Prepares a command in a container, by its id; a name for it.
    fn prepare(
        &self,
        id: &str,
        command: &[String],
    ) -> impl Future<Output = Result<String, BackendError>>;
    /// Runs a command that was prepared, to its end; the exit code. Whoever stops waiting leaves it running.
    fn run(&self, command: &str) -> impl Future<Output = Result<i32, BackendError>>;
    /// Whether such a command has not ended yet.
    fn is_running(&self, command: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Why Podman will not use its storage until the next boot, whatever has become of the cause; none when it will.
    fn remembers(&self) -> Option<String>;
    /// Has it look again.
    fn forget(&self) -> Result<(), BackendError>;
}

/// A file as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A plain file.
    File {
        /// Of its content.
        digest: Digest,
        /// Whether mode and owner are as wanted.
        fits: bool,
    },
    /// A folder, a link, a device: not ours to touch.
    Other,
}

/// Told of a file that bears the mark: its path, whose it is if that is noted, and its content.
pub type Tell<'a> = dyn FnMut(DevicePath, Option<Owner>, &[u8]) + 'a;

/// The file system.
pub trait Files {
    /// What is at the path of a file that is wanted.
    fn look(&mut self, file: &File) -> Result<Found, BackendError>;
    /// Writes a file whole, with its mode and owner.
    fn write(&mut self, file: &File, content: &[u8]) -> Result<(), BackendError>;
    /// When a file was written, if it is as an agent wrote it: it bears a mark of that, which outlives the agent's own state.
    /// Whoever changes the file spoils the mark, and a copy or another file in its place has none.
    fn written(&mut self, _path: &DevicePath) -> Option<Timestamp> {
        None
    }
    /// Tells every file that bears the mark, where a release may have files.
    fn each_written(&mut self, _tell: &mut Tell<'_>) {}
    /// Removes a file if it is there, what a write of it left half-done, and folders of workloads that are empty then.
    fn remove(&mut self, path: &DevicePath) -> Result<(), BackendError>;
    /// Whether a file could be written at a path, as the agent sees the machine's mounts.
    fn is_writable(&self, path: &DevicePath) -> bool;
    /// From now on [`Files::changed`] tells of these files and no others.
    fn watch(&mut self, paths: BTreeSet<DevicePath>);
    /// Waits until one of the watched files may have been changed, removed or hidden.
    fn changed(&mut self) -> impl Future<Output = ()>;
}
