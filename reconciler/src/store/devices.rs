//! Joined devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotta_bundle::wire::{Hardware, Report};
use flotta_bundle::{DeviceName, Digest};
use flotta_renderer::InventoryDevice;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};

use super::member::Member;
use super::value::{digest, from_json, json, maybe_time, millis, name, time};
use super::{Clones, Store, StoreError};
use crate::keys::Issued;

/// A joined device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub device: DeviceName,
    /// Fingerprint of its identity key.
    pub key: Digest,
    /// The identity key, `SubjectPublicKeyInfo` (DER).
    pub spki: Vec<u8>,
    /// X25519 key that secrets are sealed to, base64.
    pub sealing_key: String,
    /// The facts that the machine gave about itself when it joined.
    pub hardware: Hardware,
    /// The set its token or approval put it in.
    pub set: Option<String>,
    /// The labels its token or approval gave it.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub joined_at: Timestamp,
    /// Serial number of its newest certificate, hex.
    pub certificate_serial: String,
    /// When that certificate expires.
    pub certificate_not_after: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A device with its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The device.
    pub device: Device,
    /// Its newest report; its events are stored separately.
    pub report: Option<Report>,
    /// Why the stored report cannot be read: another version of this program wrote it, or the disk is bad.
    pub unreadable: Option<String>,
    /// When the server last heard from it.
    pub seen: Option<Timestamp>,
    /// Set if two machines use its identity.
    pub clones: Option<Clones>,
}

const COLUMNS: &str = "d.device, d.key, d.spki, d.sealing_key, d.hardware, d.device_set, d.labels, d.joined_at, \
     d.certificate_serial, d.certificate_not_after, d.revoked_at";

fn read(row: &Row<'_>) -> Result<Device, StoreError> {
    Ok(Device {
        device: name(&row.get::<_, String>(0)?)?,
        key: digest(row.get(1)?),
        spki: row.get(2)?,
        sealing_key: row.get(3)?,
        hardware: from_json(&row.get::<_, String>(4)?)?,
        set: row.get(5)?,
        labels: from_json(&row.get::<_, String>(6)?)?,
        joined_at: time(row.get(7)?)?,
        certificate_serial: row.get(8)?,
        certificate_not_after: time(row.get(9)?)?,
        revoked_at: maybe_time(row.get(10)?)?,
    })
}

pub(crate) fn find(
    connection: &Connection,
    device: &DeviceName,
) -> Result<Option<Device>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM devices d WHERE d.device = ?1");
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([device.to_string()])?;
    rows.next()?.map(read).transpose()
}

/// The name of the device that has joined with this key and was not revoked.
pub(crate) fn name_of_key(
    connection: &Connection,
    key: &Digest,
) -> Result<Option<DeviceName>, StoreError> {
    connection
        .prepare_cached("SELECT device FROM devices WHERE key = ?1 AND revoked_at IS NULL")?
        .query_row([key.as_bytes()], |row| row.get::<_, String>(0))
        .optional()?
        .map(|text| name(&text))
        .transpose()
}

pub(crate) fn put(connection: &Connection, device: &Device) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO devices (device, key, spki, sealing_key, hardware, device_set, labels, joined_at, \
             certificate_serial, certificate_not_after, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute((
            device.device.to_string(),
            device.key.as_bytes(),
            &device.spki,
            &device.sealing_key,
            json(&device.hardware),
            &device.set,
            json(&device.labels),
            millis(device.joined_at),
            &device.certificate_serial,
            millis(device.certificate_not_after),
            device.revoked_at.map(millis),
        ))?;
    Ok(())
}

pub(crate) fn put_certificate(
    connection: &Connection,
    device: &DeviceName,
    issued: &Issued,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE devices SET certificate_serial = ?2, certificate_not_after = ?3 WHERE device = ?1",
        )?
        .execute((
            device.to_string(),
            &issued.serial,
            millis(issued.not_after),
        ))?;
    Ok(())
}

impl Store {
    /// The revoked devices.
    pub async fn revoked(&self) -> Result<BTreeSet<DeviceName>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT device FROM devices INDEXED BY devices_revoked WHERE revoked_at IS NOT NULL",
            )?;
            let mut rows = query.query([])?;
            let mut revoked = BTreeSet::new();
            while let Some(row) = rows.next()? {
                revoked.insert(name(&row.get::<_, String>(0)?)?);
            }
            Ok(revoked)
        })
        .await
    }

    /// Updates the members in memory after a commit: `device` has joined with `key`.
    pub(crate) fn has_joined(&self, device: &DeviceName, key: Digest) {
        self.change_revoked(|revoked| revoked.forgive(&key));
        if self.member(device).is_none_or(|member| member.key() != key) {
            self.replace_member(device, Some(Arc::new(Member::new(key))));
        }
    }

    /// Updates the members in memory after a commit: `device`, which had `key`, is no longer a member.
    pub(crate) fn has_left(&self, device: &DeviceName, key: Digest) {
        self.change_revoked(|revoked| revoked.add(key));
        self.replace_member(device, None);
    }

    /// All joined devices, including revoked ones, sorted by name.
    pub async fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        self.records(String::new(), None).await
    }

    /// One device.
    pub async fn device(&self, device: &DeviceName) -> Result<Option<DeviceRecord>, StoreError> {
        let records = self.records("WHERE d.device = ?1".to_owned(), Some(device.to_string()));
        Ok(records.await?.pop())
    }

    async fn records(
        &self,
        filter: String,
        device: Option<String>,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let mut records = self
            .read(move |connection| {
                let sql = format!(
                    "SELECT {COLUMNS}, r.report, r.time, r.seen_at FROM devices d LEFT JOIN status.reports r \
                     ON r.device = d.device AND r.key = d.key {filter} ORDER BY d.device"
                );
                let mut query = connection.prepare_cached(&sql)?;
                let mut rows = query.query(rusqlite::params_from_iter(device))?;
                let mut records = Vec::new();
                while let Some(row) = rows.next()? {
                    let report: Option<String> = row.get(11)?;
                    let report = report.map(|text| serde_json::from_str::<Report>(&text));
                    // an unreadable report affects only its own row
                    let (mut report, unreadable) = match report.transpose() {
                        Ok(report) => (report, None),
                        Err(error) => (None, Some(error.to_string())),
                    };
                    if let (Some(report), Some(time)) = (&mut report, maybe_time(row.get(12)?)?) {
                        report.time = time;
                    }
                    records.push(DeviceRecord {
                        device: read(row)?,
                        report,
                        unreadable,
                        seen: maybe_time(row.get(13)?)?,
                        clones: None,
                    });
                }
                Ok(records)
            })
            .await?;
        let now = Timestamp::now();
        for record in &mut records {
            if let Some(member) = self.member(&record.device.device) {
                record.seen = record.seen.max(member.seen());
                record.clones = member.clones(now);
            }
        }
        Ok(records)
    }

    /// The joined devices, for the renderer, which leaves out those that are in Git.
    pub async fn inventory(&self) -> Result<Vec<InventoryDevice>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT device, device_set, labels FROM devices WHERE revoked_at IS NULL ORDER BY device",
            )?;
            let mut rows = query.query([])?;
            let mut devices = Vec::new();
            while let Some(row) = rows.next()? {
                devices.push(InventoryDevice {
                    device: name(&row.get::<_, String>(0)?)?,
                    set: row.get(1)?,
                    labels: from_json(&row.get::<_, String>(2)?)?,
                });
            }
            Ok(devices)
        })
        .await
    }
}
