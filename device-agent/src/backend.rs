//! The machine: systemd, Podman and files. Each as a trait, the real thing, and a fake with a state of its own.

mod error;
#[cfg(test)]
pub mod fake;
pub mod files;
pub(crate) mod messages;
pub mod podman;
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

/// The state of a unit, as systemd reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// The sub-state: `running`, `exited`, `auto-restart`, `start`.
    pub sub: String,
    /// `success`, or why it failed: `exit-code`, `signal`, `timeout`, …
    pub result: String,
    /// The file it was generated from.
    pub source: String,
    /// The unit file itself.
    pub fragment: String,
    /// Whether its `[Install]` is in effect: `enabled`, `disabled`, `static` (it has none), `generated`; empty without a file.
    pub file_state: String,
    /// The `InvocationID` of its run; it changes with every start.
    pub invocation: String,
    /// Exit status, or signal, of its last main process.
    pub exit_status: i32,
    /// Whether `exit_status` is a signal.
    pub killed: bool,
    /// Automatic restarts since it was started.
    pub restarts: u32,
    /// Its `Restart=`.
    pub restart: String,
    /// When it entered its state, by the machine's clock.
    pub since: Option<Timestamp>,
    /// How long it has been active.
    pub active_for: Option<Duration>,
}

impl UnitState {
    /// Whether systemd has loaded its definition.
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }

    /// Whether somebody masked it.
    pub fn is_masked(&self) -> bool {
        self.load == "masked"
    }

    /// Whether it is active: running, or a finished job that remains active.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// Whether it is running, starting or stopping.
    pub fn is_up(&self) -> bool {
        self.is_active() || matches!(self.active.as_str(), "activating" | "deactivating")
    }

    /// Whether it failed, or is in a restart loop.
    pub fn is_failed(&self) -> bool {
        self.active == "failed" || self.awaits_restart()
    }

    /// Whether systemd will restart it after a delay: `auto-restart`, `auto-restart-queued`.
    pub fn awaits_restart(&self) -> bool {
        self.sub.starts_with("auto-restart")
    }
}

/// The kind of a systemd job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Starts the unit.
    Start,
    /// Stops the unit.
    Stop,
    /// Stops and starts the unit; only starts one that is not running.
    Restart,
}

/// What the agent needs of systemd.
pub trait Systemd {
    /// Reloads all unit files and runs the generators, Quadlet among them.
    fn reload(&mut self) -> impl Future<Output = Result<(), BackendError>>;
    /// Returns the state of a unit; its `load` is `not-found` when there is none.
    fn unit(&mut self, name: &str) -> impl Future<Output = Result<UnitState, BackendError>>;
    /// Returns the instances of a template (`echo@.service`) that are not inactive.
    fn instances(
        &mut self,
        template: &str,
    ) -> impl Future<Output = Result<Vec<String>, BackendError>>;
    /// Starts jobs together, so that systemd can order them, and waits until they are done or `limit` has passed.
    fn jobs(
        &mut self,
        jobs: &[(Verb, String)],
        limit: Duration,
    ) -> impl Future<Output = Vec<(String, BackendError)>>;
    /// Enables a unit: its `[Install]` replaces what it said before. Takes effect at the next reload.
    fn enable(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Disables a unit.
    fn disable(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Clears the failed state of a unit.
    fn reset_failed(&mut self, name: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Returns the last lines that a unit wrote to the journal.
    fn journal(&mut self, name: &str) -> impl Future<Output = Vec<String>>;
    /// Waits until one of the agent's units may have changed its state, or the time set by [`Systemd::look_again`] has passed.
    fn changed(&mut self) -> impl Future<Output = ()>;
    /// Makes [`Systemd::changed`] return after this time even if nothing changes; `None` cancels that.
    fn look_again(&mut self, after: Option<Duration>);
    /// Whether the machine itself can write at a path, in systemd's mount namespace: the agent has a namespace of its own. None
    /// when systemd does not say.
    fn is_writable(&mut self, path: &str) -> impl Future<Output = Option<bool>>;
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id; a new container of the same name has another one.
    pub id: String,
    /// Its address, or its pod's; none when it uses the host's network.
    pub address: Option<IpAddr>,
}

/// What the agent needs of Podman.
pub trait Podman {
    /// Whether an image is in the local store.
    fn has_image(&self, reference: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Pulls an image.
    fn pull(&self, reference: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Removes what a workload left behind: its pod, and containers that carry its label.
    fn sweep(&self, workload: &str) -> impl Future<Output = Result<(), BackendError>>;
    /// Returns the running container of this name, if there is one.
    fn container(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Container>, BackendError>>;
    /// Stops a container by its id, within its grace period; false when it is not running.
    fn stop(&self, id: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Prepares a command in a container, given by its id. Returns the id of the exec session.
    fn prepare(
        &self,
        id: &str,
        command: &[String],
    ) -> impl Future<Output = Result<String, BackendError>>;
    /// Runs a prepared command and returns its exit code. A caller that stops waiting leaves it running.
    fn run(&self, command: &str) -> impl Future<Output = Result<i32, BackendError>>;
    /// Whether a prepared command is still running.
    fn is_running(&self, command: &str) -> impl Future<Output = Result<bool, BackendError>>;
    /// Why Podman refuses its storage until the next boot, even when the cause is gone; none when it does not.
    fn remembers(&self) -> Option<String>;
    /// Makes Podman try its storage again.
    fn forget(&self) -> Result<(), BackendError>;
}

/// What is found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing is there.
    Absent,
    /// A regular file.
    File {
        /// The digest of its content.
        digest: Digest,
        /// Whether its mode and owner are as wanted.
        fits: bool,
    },
    /// A folder, a link or a device, which the agent never touches.
    Other,
}

/// Called for each marked file with its path, its owner if that is recorded, and its content.
pub type Visit<'a> = dyn FnMut(DevicePath, Option<Owner>, &[u8]) + 'a;

/// What the agent needs of the file system.
pub trait Files {
    /// Returns what is at the path of a wanted file.
    fn look(&mut self, file: &File) -> Result<Found, BackendError>;
    /// Writes a file atomically, with its mode and owner.
    fn write(&mut self, file: &File, content: &[u8]) -> Result<(), BackendError>;
    /// When a file was written, if it is still as an agent wrote it. The file carries a mark that says so and outlives the
    /// agent's own state. Changing the file invalidates the mark; a copy, or another file in its place, has none.
    fn written(&mut self, _path: &DevicePath) -> Option<Timestamp> {
        None
    }
    /// Calls `tell` for every marked file, in the folders where a release may have files.
    fn each_written(&mut self, _tell: &mut Visit<'_>) {}
    /// Removes a file if it exists, its leftover temporary file, and workload folders that are empty afterwards.
    fn remove(&mut self, path: &DevicePath) -> Result<(), BackendError>;
    /// Whether a file could be written at a path, in the agent's own mount namespace.
    fn is_writable(&self, path: &DevicePath) -> bool;
    /// Sets the files that [`Files::changed`] watches.
    fn watch(&mut self, paths: BTreeSet<DevicePath>);
    /// Waits until one of the watched files may have been changed, removed or hidden.
    fn changed(&mut self) -> impl Future<Output = ()>;
}
