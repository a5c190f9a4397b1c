//! The state file: the agent's current state, for `flotta-agent status`.

use std::path::{Path, PathBuf};

use flotta_bundle::{DeviceName, FleetName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::durable;
use crate::identity::Joined;
use crate::pull::{LinkState, Outage};
use crate::report::Live;

/// Longest state file: a report and a little more.
const MAX_BYTES: usize = 2 << 20;
/// Longest note of an outage: a problem and a time.
const MAX_OUTAGE: usize = 64 << 10;

/// The agent's current state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running agent.
    pub agent: String,
    /// When this was written, by the agent's clock.
    pub time: Timestamp,
    /// The device's name.
    pub device: DeviceName,
    /// The fleet's name.
    pub fleet: FleetName,
    /// URL of the edge API.
    pub server: String,
    /// The state of the connection.
    pub link: LinkState,
    /// The state of the machine.
    #[serde(flatten)]
    pub live: Live,
}

impl Status {
    /// Reads the state file at `path`; none when no agent is running.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        durable::read(path, MAX_BYTES)?
            .map(|bytes| serde_json::from_slice(&bytes).map_err(std::io::Error::other))
            .transpose()
    }
}

/// Reads the outage that the previous agent recorded. It is only shown to people, so an unreadable file counts as missing.
pub fn outage(path: &Path) -> Option<Outage> {
    let bytes = durable::read(path, MAX_OUTAGE).ok()??;
    serde_json::from_slice(&bytes).ok()
}

fn keep_outage(path: &Path, outage: Option<&Outage>) -> std::io::Result<()> {
    let Some(outage) = outage else {
        return durable::remove(path);
    };
    let json = serde_json::to_vec(outage).map_err(std::io::Error::other)?;
    durable::write(path, &json, 0o600)
}

/// Writes the state file with every change, until the agent exits.
pub async fn keep(
    path: PathBuf,
    outage: PathBuf,
    joined: Joined,
    mut live: watch::Receiver<Live>,
    mut link: watch::Receiver<LinkState>,
    clock: Clock,
) {
    let mut kept = link.borrow().failing_since;
    loop {
        let link_state = link.borrow_and_update().clone();
        // written when an outage begins and ends, not with every try
        if link_state.failing_since != kept {
            match keep_outage(&outage, link_state.outage().as_ref()) {
                Ok(()) => kept = link_state.failing_since,
                Err(error) => {
                    tracing::warn!(%error, path = %outage.display(), "outage not noted");
                }
            }
        }
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
