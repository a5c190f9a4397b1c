//! Where the agent keeps and finds things.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::pull::Proxies;

/// Where the agent keeps and finds things. Every path can be moved, so that tests need no root.
#[derive(Debug, Clone)]
pub struct Config {
    /// What must outlive a reboot: identity, ledger, blobs. 0700.
    pub state: PathBuf,
    /// What need not: the state file that `flotta-agent status` reads.
    pub runtime: PathBuf,
    /// What paths of a manifest are under: `/`.
    pub root: PathBuf,
    /// Podman's API.
    pub podman: PathBuf,
    /// Where an image, cloud-init or Ignition leaves a join file.
    pub join: PathBuf,
    /// The way to the server.
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

/// A process's hold on the state directory, or on a part of it; it ends when this is dropped, and with the process.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Config {
    /// Keys and certificate.
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity")
    }

    /// An identity that is to take over from that one.
    pub fn next(&self) -> PathBuf {
        self.state.join("identity.new")
    }

    /// The identity before, while the next one takes its place.
    pub fn last(&self) -> PathBuf {
        self.state.join("identity.old")
    }

    /// The join file of a request that waits for approval.
    pub fn pending(&self) -> PathBuf {
        self.state.join("join")
    }

    /// The newest time that the agent has reason to believe in.
    pub fn clock(&self) -> PathBuf {
        self.state.join("clock")
    }

    /// Since when the server has not served this device; there is none while it does.
    pub fn outage(&self) -> PathBuf {
        self.state.join("outage.json")
    }

    /// What `flotta-agent status` reads.
    pub fn status(&self) -> PathBuf {
        self.runtime.join("status.json")
    }

    /// When the agent last ended to have fresh mounts.
    pub fn ended(&self) -> PathBuf {
        self.runtime.join("ended")
    }

    /// Makes the state directory, readable by its owner alone.
    pub fn make_state(&self) -> io::Result<()> {
        make_private(&self.state)
    }

    /// Takes the state directory for this process; none when another one has it.
    pub fn hold(&self) -> io::Result<Option<Hold>> {
        self.lock("lock")
    }

    /// Takes the identity that is to take over, for this process; none when another one has it. It is another lock than that
    /// of the state directory: the agent works on while a new identity is made.
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

/// Makes a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
