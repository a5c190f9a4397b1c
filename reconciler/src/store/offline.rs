//! The store's files without a server: copied while one writes them, and made ready after a restore.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use flotta_bundle::DeviceName;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::value::millis;
use super::{StoreError, connection, devices, requests, revoked};

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Devices that have joined and were not revoked.
    pub(crate) devices: u64,
    /// Requests that wait.
    pub(crate) requests: u64,
}

/// Copies both files from `data` to `to`, each as it is at one moment, whether a server writes them or not.
pub(crate) fn snapshot(data: &Path, to: &Path) -> Result<Counts, StoreError> {
    for name in ["fleet.db", "status.db"] {
        let path = data.join(name);
        // of other users' files `SQLite` would say no more than that it cannot open them
        std::fs::metadata(&path).map_err(|error| StoreError::Io(path.clone(), Arc::new(error)))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let from = Connection::open_with_flags(&path, flags)?;
        from.busy_timeout(connection::BUSY)?;
        // what is still in the write-ahead log is in it, too
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

/// What was changed in a store that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Those who were to be revoked, and that it knew; the others are barred by name.
    pub(crate) revoked: BTreeSet<DeviceName>,
    /// Tokens that were open, and are no more.
    pub(crate) tokens: usize,
}

/// Makes the store in `folder` ready to be served after a restore: its files are whole, those who were revoked since are
/// revoked, and no token is open that may have been used since.
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
            // it joined after the backup was made: nobody knows its key
            None => {
                revoked::bar(&transaction, name, now)?;
            }
        }
    }
    let tokens = transaction.execute(
        "UPDATE tokens SET expires_at = ?1 WHERE used_at IS NULL AND expires_at > ?1",
        [millis(now)],
    )?;
    // when the clock of the machine that is gone was right says nothing about this one's; what was signed by then still does
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

/// With its write-ahead log in it: what is moved is one file.
fn close(connection: Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error.into())
}
