//! Work on the store's files without a server: copying them, also while one writes them, and preparing them after a restore.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use flotta_bundle::DeviceName;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::value::millis;
use super::{StoreError, connection, devices, requests, revoked};

/// The content of a copy, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Devices that have joined and were not revoked.
    pub(crate) devices: u64,
    /// Pending requests.
    pub(crate) requests: u64,
}

/// Copies both files from `data` to `to`, each as a consistent snapshot, even while a server writes them.
pub(crate) fn snapshot(data: &Path, to: &Path) -> Result<Counts, StoreError> {
    for name in ["fleet.db", "status.db"] {
        let path = data.join(name);
        // for another user's files `SQLite` would only say that it cannot open them
        std::fs::metadata(&path).map_err(|error| StoreError::Io(path.clone(), Arc::new(error)))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let from = Connection::open_with_flags(&path, flags)?;
        from.busy_timeout(connection::BUSY)?;
        // this includes what is still in the write-ahead log
        from.execute("VACUUM INTO ?1", [to.join(name).to_string_lossy()])?;
    }
    let copy = connection::open(&to.join("fleet.db"), connection::FLEET)?;
    let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, u64>(0));
    let counts = Counts {
        devices: count("SELECT count(*) FROM devices WHERE revoked_at IS NULL")?,
        requests: count("SELECT count(*) FROM requests WHERE state = 'pending'")?,
    };
    close(copy)?;
    Ok(counts)
}

/// The changes to a restored store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The devices to revoke that the store knows; the others are barred by name.
    pub(crate) revoked: BTreeSet<DeviceName>,
    /// Number of tokens that were closed.
    pub(crate) tokens: usize,
}

/// Prepares the store in `folder` after a restore: checks its files, revokes the devices that were revoked since, and closes
/// tokens that may have been used since.
pub(crate) fn restored(
    folder: &Path,
    revoked: &BTreeSet<DeviceName>,
    now: Timestamp,
) -> Result<Changed, StoreError> {
    let mut fleet = connection::open(&folder.join("fleet.db"), connection::FLEET)?;
    let status = connection::open(&folder.join("status.db"), connection::STATUS)?;
    for (name, file) in [("fleet.db", &fleet), ("status.db", &status)] {
        let found: String = file.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Malformed(format!("{name}: {found}")));
        }
    }
    let mut known = BTreeSet::new();
    let transaction = fleet.transaction()?;
    for name in revoked {
        match devices::find(&transaction, name)? {
            Some(mut device) => {
                device.revoked_at.get_or_insert(now);
                devices::put(&transaction, &device)?;
                revoked::add(&transaction, name, &device.key, now)?;
                requests::remove(&transaction, &device.key)?;
                known.insert(name.clone());
            }
            // it joined after the backup was made, so its key is not known
            None => {
                revoked::bar(&transaction, name, now)?;
            }
        }
    }
    let tokens = transaction.execute(
        "UPDATE tokens SET expires_at = ?1 WHERE used_at IS NULL AND expires_at > ?1",
        [millis(now)],
    )?;
    // when the lost machine's clock was right says nothing about this machine's; the times of signatures still count
    transaction.execute("DELETE FROM meta WHERE key = ?1", [crate::clock::KEPT])?;
    transaction.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        (super::RESTORED, millis(now).to_string()),
    )?;
    transaction.commit()?;
    close(fleet)?;
    close(status)?;
    Ok(Changed {
        revoked: known,
        tokens,
    })
}

/// Closes the database with its write-ahead log merged, so that one file can be moved.
fn close(connection: Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error.into())
}
