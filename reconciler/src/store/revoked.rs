//! Identities that were taken away: by key, and after a restore by name, when the key is not known any more. Who joins by a
//! barred name has a token for it; the bar stays, as the key that it was meant for is still not known.
//!
//! They are in memory too, as members are: what the edge tells the holder of a certificate depends on them.

use std::collections::HashSet;
use std::sync::PoisonError;

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;
use rusqlite::Connection;

use super::value::{digest, millis, name};
use super::{Store, StoreError, requests};

/// Who was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    keys: HashSet<Digest>,
    names: HashSet<DeviceName>,
}

impl Revoked {
    pub(super) fn add(&mut self, key: Digest) {
        self.keys.insert(key);
    }

    fn bar(&mut self, device: DeviceName) {
        self.names.insert(device);
    }

    pub(super) fn forgive(&mut self, key: &Digest) {
        self.keys.remove(key);
    }

    /// Whether this key lost its identity, or whoever had this name did.
    pub(crate) fn has(&self, device: &DeviceName, key: &Digest) -> bool {
        self.keys.contains(key) || self.names.contains(device)
    }
}

pub(crate) fn load(connection: &Connection) -> Result<Revoked, StoreError> {
    let mut revoked = Revoked::default();
    let mut query = connection.prepare_cached("SELECT key FROM revoked")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        revoked.keys.insert(digest(row.get(0)?));
    }
    let mut query = connection.prepare_cached("SELECT device FROM barred")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        revoked.names.insert(name(&row.get::<_, String>(0)?)?);
    }
    Ok(revoked)
}

/// Whether this key lost its identity, or whoever had this name did.
pub(crate) fn is_revoked(
    connection: &Connection,
    device: &DeviceName,
    key: &Digest,
) -> Result<bool, StoreError> {
    let by_key = connection
        .prepare_cached("SELECT 1 FROM revoked WHERE key = ?1")?
        .exists([key.as_bytes()])?;
    Ok(by_key || is_barred(connection, device)?)
}

/// Whether a certificate for `device` is worth nothing, whatever its key.
pub(crate) fn is_barred(connection: &Connection, device: &DeviceName) -> Result<bool, StoreError> {
    let mut query = connection.prepare_cached("SELECT 1 FROM barred WHERE device = ?1")?;
    Ok(query.exists([device.to_string()])?)
}

/// The key of `device` is worth nothing any more.
pub(crate) fn add(
    connection: &Connection,
    device: &DeviceName,
    key: &Digest,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO revoked (key, device, at) VALUES (?1, ?2, ?3)")?
        .execute((key.as_bytes(), device.to_string(), millis(now)))?;
    Ok(())
}

/// Whoever has a certificate for `device` is worth nothing any more, whatever its key, and who asked by this name asks no
/// more. Says whether that is new.
pub(crate) fn bar(
    connection: &Connection,
    device: &DeviceName,
    now: Timestamp,
) -> Result<bool, StoreError> {
    requests::remove_all(connection, device)?;
    let rows = connection
        .prepare_cached("INSERT OR IGNORE INTO barred (device, at) VALUES (?1, ?2)")?
        .execute((device.to_string(), millis(now)))?;
    Ok(rows > 0)
}

/// A person has let this key in.
pub(crate) fn forgive(connection: &Connection, key: &Digest) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM revoked WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(())
}

impl Store {
    /// Whether this key lost its identity, or whoever had this name did.
    pub(crate) fn is_revoked(&self, device: &DeviceName, key: &Digest) -> bool {
        let revoked = self.0.revoked.read();
        let revoked = revoked.unwrap_or_else(PoisonError::into_inner);
        revoked.has(device, key)
    }

    /// Tells the edge that `key` lost its identity to another one. After the commit that says so.
    pub(crate) fn was_replaced(&self, key: Digest) {
        self.change_revoked(|revoked| revoked.add(key));
    }

    /// Tells the edge that no certificate for `device` is worth anything. After the commit that says so.
    pub(crate) fn was_barred(&self, device: DeviceName) {
        self.change_revoked(|revoked| revoked.bar(device));
    }

    /// Remembers who was revoked, or let in again. After the commit that says so.
    pub(super) fn change_revoked(&self, change: impl FnOnce(&mut Revoked)) {
        let revoked = self.0.revoked.write();
        change(&mut revoked.unwrap_or_else(PoisonError::into_inner));
    }
}
