//! The state file: how the agent is now, for `flotta-agent status`.

use std::path::{Path, PathBuf};

use flotta_bundle::{DeviceName, FleetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::durable;
use crate::identity::Joined;
use crate::pull::LinkState;
use crate::report::Live;

/// Longest state file: a report and a little more.
const MAX_BYTES: usize = 2 << 20;

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent that runs.
    pub agent: String,
    /// When this was written, by the agent's clock.
    pub time: Timestamp,
    /// The device.
    pub device: DeviceName,
    /// Its fleet.
    pub fleet: FleetName,
    /// URL of the edge API.
    pub server: String,
    /// The connection.
    pub link: LinkState,
    /// The machine.
    #[serde(flatten)]
    pub live: Live,
}

impl Status {
    /// The state file at `path`; none when no agent runs.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        durable::read(path, MAX_BYTES)?
            .map(|bytes| serde_json::from_slice(&bytes).map_err(std::io::Error::other))
            .transpose()
    }
}

/// Writes the state file with every change, until the agent ends.
pub async fn keep(
    path: PathBuf,
    joined: Joined,
    mut live: watch::Receiver<Live>,
    mut link: watch::Receiver<LinkState>,
    clock: Clock,
) {
    loop {
        let link_state = link.borrow_and_update().clone();
        let status = Status {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            time: clock.now(),
            device: joined.device.clone(),
            fleet: joined.fleet.clone(),
            server: link_state.server.clone(),
            link: link_state,
            live: live.borrow_and_update().clone(),
        };
        let written = serde_json::to_vec(&status)
            .map_err(std::io::Error::other)
            .and_then(|json| durable::write(&path, &json, 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "state file not written");
        }
        let changed = tokio::select! {
            changed = live.changed() => changed,
            changed = link.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
