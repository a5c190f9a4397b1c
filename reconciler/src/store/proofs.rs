//! Proofs by devices to a server that was restored from a backup: releases that the fleet has signed since.

use flotta_bundle::DeviceName;
use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::value::{from_json, json};
use super::{Store, StoreError};

/// The key of the proof in the store.
const KEY: &str = "proof";

/// A signed release that a device has accepted, and that this server does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The sequence of the release; the next release must be above it.
    pub sequence: u64,
    /// The device that proved it.
    pub device: DeviceName,
    /// When it was proven.
    pub at: Timestamp,
}

/// Loads the highest proof.
pub(super) fn load(connection: &Connection) -> Result<Option<Proof>, StoreError> {
    let mut query = connection.prepare("SELECT value FROM meta WHERE key = ?1")?;
    let mut rows = query.query([KEY])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    from_json(&row.get::<_, String>(0)?).map(Some)
}

impl Store {
    /// Saves a proof if it is the highest. It is durable when this returns, so that later releases are above it even after a
    /// crash.
    pub async fn keep_proof(&self, proof: Proof) -> Result<bool, StoreError> {
        let proofs = self.0.proofs.clone();
        let kept = proof.clone();
        self.write(
            move |connection| {
                if load(connection)?.is_some_and(|known| known.sequence >= proof.sequence) {
                    return Ok(false);
                }
                connection
                    .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                    .execute((KEY, json(&proof)))?;
                Ok(true)
            },
            move |is_new| {
                if *is_new {
                    proofs.send_replace(Some(kept));
                }
            },
        )
        .await
    }

    /// The highest proof; changes when a device proves a higher one.
    pub fn proofs(&self) -> watch::Receiver<Option<Proof>> {
        self.0.proofs.subscribe()
    }
}
