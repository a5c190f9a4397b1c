//! People's decisions about removals: commits whose removals are allowed, and decommissioned devices.

use std::collections::BTreeSet;

use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;

use super::value::{millis, name};
use super::{Store, StoreError};

impl Store {
    /// Allows a commit's removals.
    pub async fn allow(
        &self,
        commit: String,
        by: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(
            move |connection| {
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO allowed (revision, allowed_at, allowed_by) VALUES (?1, ?2, ?3)",
                    )?
                    .execute((commit, millis(now), by))?;
                Ok(())
            },
            |()| {},
        )
        .await
    }

    /// Who allowed the commit's removals, if anybody did.
    pub async fn allowed(&self, commit: &str) -> Result<Option<String>, StoreError> {
        let commit = commit.to_owned();
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("SELECT allowed_by FROM allowed WHERE revision = ?1")?;
            let mut rows = query.query([commit])?;
            Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
        })
        .await
    }

    /// Forgets that commits were allowed, once their removals are in force. The same removal later needs a new permission.
    pub async fn forget_allowed(&self) -> Result<(), StoreError> {
        self.write(
            |connection| {
                connection
                    .prepare_cached("DELETE FROM allowed")?
                    .execute([])?;
                Ok(())
            },
            |()| {},
        )
        .await
    }

    /// Decommissions the devices with these keys: from the next release on they have nothing to run.
    pub async fn decommission(
        &self,
        devices: Vec<(DeviceName, Digest)>,
        by: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let inventory = self.0.inventory.clone();
        self.write(
            move |connection| {
                let mut insert = connection.prepare_cached(
                    "INSERT OR REPLACE INTO decommissioned (device, key, decommissioned_at, decommissioned_by) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?;
                for (device, key) in devices {
                    insert.execute((device.to_string(), key.as_bytes(), millis(now), &by))?;
                }
                Ok(())
            },
            move |()| inventory.send_modify(|count| *count += 1),
        )
        .await
    }

    /// The decommissioned devices that still have the same key.
    pub async fn decommissioned(&self) -> Result<BTreeSet<DeviceName>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT g.device FROM decommissioned g JOIN devices d ON d.device = g.device AND d.key = g.key",
            )?;
            let mut rows = query.query([])?;
            let mut devices = BTreeSet::new();
            while let Some(row) = rows.next()? {
                devices.insert(name(&row.get::<_, String>(0)?)?);
            }
            Ok(devices)
        })
        .await
    }

    /// Removes devices from the decommissioned ones, because they are in Git again.
    pub async fn recommission(&self, devices: Vec<DeviceName>) -> Result<(), StoreError> {
        self.write(
            move |connection| {
                let mut delete =
                    connection.prepare_cached("DELETE FROM decommissioned WHERE device = ?1")?;
                for device in devices {
                    delete.execute([device.to_string()])?;
                }
                Ok(())
            },
            |()| {},
        )
        .await
    }
}
