//! The store of the control plane: devices, tokens, requests, releases; reports and events.
//!
//! It has two `SQLite` files, because a file has one level of durability:
//! `fleet.db` (devices, tokens, requests, releases) is synced at every commit; `status.db` (reports, events, last seen) is not:
//! a power cut may lose its last seconds, which the next report of each device restores.
//! Each has one writer thread, which commits everything that was queued during its last commit: group commits without a timer.
//!
//! Joined devices are also kept in memory ([`Member`]), so that a device's request needs no query.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use flotta_bundle::DeviceName;
use flotta_bundle::code::{self, Code};
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::watch;

use crate::failures::Failures;

mod connection;
mod decisions;
pub mod devices;
pub mod events;
mod member;
pub(crate) mod offline;
mod proofs;
pub mod releases;
pub mod reports;
pub mod requests;
pub(crate) mod revoked;
mod senders;
pub mod tokens;
mod value;

use connection::{Readers, Writer};
pub use devices::{Device, DeviceRecord};
pub use events::{EventFilter, FleetEvent};
pub use member::Member;
pub use proofs::Proof;
pub use releases::{NewRelease, ReleaseRecord};
pub use requests::{JoinRequest, RequestState};
use revoked::Revoked;
pub use senders::Clones;
pub use tokens::{NewToken, TokenRecord};

#[cfg(test)]
mod tests;

/// The key of the note that this data was restored from a backup, and that it was said who was revoked since.
const RESTORED: &str = "restored";

/// Errors of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error("{}: cannot be used", .0.display())]
    Io(PathBuf, #[source] Arc<std::io::Error>),
    /// Another process has the store open.
    #[error("{}: another flotta serve uses this data directory", .0.display())]
    InUse(PathBuf),
    /// The database failed.
    #[error("the store failed")]
    Database(#[source] Arc<rusqlite::Error>),
    /// The store was made by a newer version.
    #[error("{file} has version {found}, this program knows {known}: use the newer flotta")]
    Newer {
        /// The file.
        file: &'static str,
        /// Its version.
        found: usize,
        /// The newest version known here.
        known: usize,
    },
    /// The store has a value that this program did not write.
    #[error("the store holds something unreadable: {0}")]
    Malformed(String),
    /// The writer thread has ended.
    #[error("the store no longer writes")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl StoreError {
    /// The stable code.
    pub fn code(&self) -> Code {
        code::STORE
    }
}

/// The store. Cheap to clone. One process at a time has it open.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fleet: Writer,
    status: Writer,
    readers: Readers,
    members: RwLock<HashMap<DeviceName, Arc<Member>>>,
    inventory: watch::Sender<u64>,
    revocations: watch::Sender<u64>,
    changes: watch::Sender<u64>,
    failures: Failures,
    proofs: watch::Sender<Option<Proof>>,
    revoked: RwLock<Revoked>,
    /// The lock that keeps other processes out.
    _lock: Lock,
}

impl Store {
    /// Opens the store in `directory`, which must exist, and creates it if there is none.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = lock(&directory.join("store.lock"))?;
        let (fleet, status) = (directory.join("fleet.db"), directory.join("status.db"));
        let fleet_connection = connection::open(&fleet, connection::FLEET)?;
        let status_connection = connection::open(&status, connection::STATUS)?;
        let members = member::load(&fleet_connection, &status_connection)?;
        let failures = Failures::default();
        let proof = proofs::load(&fleet_connection)?;
        let revoked = revoked::load(&fleet_connection)?;
        Ok(Self(Arc::new(Inner {
            fleet: Writer::start("fleet.db", fleet_connection, failures.clone())?,
            status: Writer::start("status.db", status_connection, failures.clone())?,
            readers: Readers::new(fleet, status),
            members: RwLock::new(members),
            inventory: watch::Sender::new(0),
            revocations: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            failures,
            proofs: watch::Sender::new(proof),
            revoked: RwLock::new(revoked),
            _lock: lock,
        })))
    }

    /// The device as the edge API needs it: its key, and whether that is still in force.
    pub fn member(&self, device: &DeviceName) -> Option<Arc<Member>> {
        let members = self.0.members.read();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        members.get(device).cloned()
    }

    fn replace_member(&self, device: &DeviceName, member: Option<Arc<Member>>) {
        let members = self.0.members.write();
        let mut members = members.unwrap_or_else(PoisonError::into_inner);
        let before = match member {
            Some(member) => members.insert(device.clone(), member),
            None => members.remove(device),
        };
        drop(members);
        if let Some(before) = before {
            before.end();
            self.0.revocations.send_modify(|count| *count += 1);
        }
        self.inventory_changed();
    }

    /// Wakes the follower, after the commit of the change.
    pub(crate) fn inventory_changed(&self) {
        self.0.inventory.send_modify(|count| *count += 1);
    }

    fn all_members(&self) -> Vec<(DeviceName, Arc<Member>)> {
        let members = self.0.members.read();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        let pair = |(name, member): (&DeviceName, &Arc<Member>)| (name.clone(), member.clone());
        members.iter().map(pair).collect()
    }

    /// The failures of the server, its store included. They are here because every part of the server has the store.
    pub fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Changes when a device joins, leaves, or changes its set, because the inventory is an input of the next release.
    pub fn inventory_changes(&self) -> watch::Receiver<u64> {
        self.0.inventory.subscribe()
    }

    /// Changes when an identity is revoked or replaced.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.subscribe()
    }

    /// Changes with every write except last-seen times; `flotta get -w` waits for it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Runs `then` and notifies watchers, also when the caller of the write has gone away.
    fn telling<T, F: FnOnce(&T)>(&self, then: F) -> impl FnOnce(&T) + use<T, F> {
        let changes = self.0.changes.clone();
        move |value| {
            then(value);
            changes.send_modify(|count| *count += 1);
        }
    }

    /// Runs `work` as one durable transaction. After its commit, `then` runs before any later transaction.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.0.fleet.run(work, self.telling(then)).await
    }

    async fn write_status<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.status.run(work, self.telling(then)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.0.readers.with(work))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// The value saved under `key` by [`Self::set_meta`].
    pub async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        self.read(move |connection| find_meta(connection, key))
            .await
    }

    /// Saves a small value under `key`.
    pub async fn set_meta(&self, key: &'static str, value: String) -> Result<(), StoreError> {
        self.write(
            move |connection| {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                    .execute((key, value))?;
                Ok(())
            },
            |()| {},
        )
        .await
    }

    /// Whether this data was restored from a backup with `flotta restore`.
    pub async fn is_restored(&self) -> Result<bool, StoreError> {
        self.read(is_restored).await
    }

    /// Deletes old tokens and requests, and the oldest events.
    pub async fn purge(&self, now: Timestamp) -> Result<(), StoreError> {
        let events = self.0.status.run(events::purge, |()| {}).await;
        self.write(
            move |connection| {
                tokens::purge(connection, now)?;
                requests::purge(connection, now)
            },
            |()| {},
        )
        .await?;
        events
    }
}

fn find_meta(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    let mut rows = query.query([key])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// Whether this data was restored from a backup.
pub(crate) fn is_restored(connection: &Connection) -> Result<bool, StoreError> {
    Ok(find_meta(connection, RESTORED)?.is_some())
}

/// The lock of a data directory. It is released when dropped, even if a process that is being started has inherited the file and
/// not closed it yet.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // closing the file releases it as well, later
        let _ = self.0.unlock();
    }
}

fn lock(path: &Path) -> Result<Lock, StoreError> {
    let io = |error| StoreError::Io(path.to_owned(), Arc::new(error));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}
