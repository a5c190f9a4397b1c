//! Revoked identities: by key, and after a restore also by name, when the key is not known (a barred name). A device can join
//! under a barred name only with a token; the name stays barred, because the key that it was meant for is still not known.
//!
//! They are also kept in memory, like members, because the edge API answers the holder of a certificate by them.

use std::collections::HashSet;
use std::sync::PoisonError;

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;
use rusqlite::Connection;

use super::value::{digest, millis, name};
use super::{Store, StoreError, requests};

/// The revoked keys and barred names.
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

    /// Whether this key was revoked, or this name is barred.
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

/// Whether this key was revoked, or this name is barred.
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

/// Whether certificates for `device` are refused, whatever their key.
pub(crate) fn is_barred(connection: &Connection, device: &DeviceName) -> Result<bool, StoreError> {
    let mut query = connection.prepare_cached("SELECT 1 FROM barred WHERE device = ?1")?;
    Ok(query.exists([device.to_string()])?)
}

/// Revokes the key of `device`.
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

/// Bars the name `device`: certificates for it are refused, whatever their key, and requests for it are deleted. Returns
/// whether that is new.
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

/// Removes a key from the revoked ones, because a person has approved it again.
pub(crate) fn forgive(connection: &Connection, key: &Digest) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM revoked WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(())
}

impl Store {
    /// Whether this key was revoked, or this name is barred.
    pub(crate) fn is_revoked(&self, device: &DeviceName, key: &Digest) -> bool {
        let revoked = self.0.revoked.read();
        let revoked = revoked.unwrap_or_else(PoisonError::into_inner);
        revoked.has(device, key)
    }

    /// Updates the memory after a commit: `key` was replaced by another one.
    pub(crate) fn was_replaced(&self, key: Digest) {
        self.change_revoked(|revoked| revoked.add(key));
    }

    /// Updates the memory after a commit: the name `device` is barred.
    pub(crate) fn was_barred(&self, device: DeviceName) {
        self.change_revoked(|revoked| revoked.bar(device));
    }

    /// Updates the memory after a commit.
    pub(super) fn change_revoked(&self, change: impl FnOnce(&mut Revoked)) {
        let revoked = self.0.revoked.write();
        change(&mut revoked.unwrap_or_else(PoisonError::into_inner));
    }
}
