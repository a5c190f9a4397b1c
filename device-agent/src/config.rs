//! The agent's paths and proxies.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::pull::Proxies;

/// The agent's paths and proxies. Every path can be changed, so that tests need no root.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory, which survives a reboot: identity, ledger, blobs. Mode 0700.
    pub state: PathBuf,
    /// The runtime directory, which does not: the state file that `flotta-agent status` reads.
    pub runtime: PathBuf,
    /// The root that the paths of a manifest are under: `/`.
    pub root: PathBuf,
    /// The socket of Podman's API.
    pub podman: PathBuf,
    /// Where an image, cloud-init or Ignition leaves a join file.
    pub join: PathBuf,
    /// The proxies on the way to the server.
    pub proxies: Proxies,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/flotta-agent".into(),
            runtime: "/run/flotta-agent".into(),
            root: "/".into(),
            podman: "/run/podman/podman.sock".into(),
            join: "/etc/flotta/join".into(),
            proxies: Proxies::default(),
        }
    }
}

/// A process's lock on the state directory, or on a part of it; released on drop, and when the process ends.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Config {
    /// The owner's file that says which folders a release may write.
    pub fn policy(&self) -> PathBuf {
        self.root.join("etc/flotta/policy.toml")
    }

    /// The folder with keys and certificate.
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity")
    }

    /// The folder of a new identity that is to replace the current one.
    pub fn next(&self) -> PathBuf {
        self.state.join("identity.new")
    }

    /// The folder of the previous identity, during the switch to the next one.
    pub fn last(&self) -> PathBuf {
        self.state.join("identity.old")
    }

    /// The join file of a request that is waiting for approval.
    pub fn pending(&self) -> PathBuf {
        self.state.join("join")
    }

    /// The file with the saved floor of the clock.
    pub fn clock(&self) -> PathBuf {
        self.state.join("clock")
    }

    /// The file that says since when the server has not served this device; missing while it does.
    pub fn outage(&self) -> PathBuf {
        self.state.join("outage.json")
    }

    /// The state file that `flotta-agent status` reads.
    pub fn status(&self) -> PathBuf {
        self.runtime.join("status.json")
    }

    /// The file with the time when the agent last exited to get a fresh view of the mounts.
    pub fn ended(&self) -> PathBuf {
        self.runtime.join("ended")
    }

    /// Creates the state directory, for its owner only.
    pub fn make_state(&self) -> io::Result<()> {
        make_private(&self.state)
    }

    /// Locks the state directory for this process; none when another process has it.
    pub fn hold(&self) -> io::Result<Option<Hold>> {
        self.lock("lock")
    }

    /// Locks the new identity for this process; none when another process has it. This lock is separate from that of the state
    /// directory, because the agent keeps running while a new identity is made.
    pub fn lock_next(&self) -> io::Result<Option<Hold>> {
        self.lock("lock.new")
    }

    fn lock(&self, name: &str) -> io::Result<Option<Hold>> {
        self.make_state()?;
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.state.join(name))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Hold { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Creates a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
