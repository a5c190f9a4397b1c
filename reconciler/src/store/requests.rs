//! Requests to join.

use std::collections::BTreeSet;

use flotta_bundle::wire::Hardware;
use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::value::{digest, from_json, json, maybe_time, millis, name, time};
use super::{Store, StoreError};

/// How long a request is kept; a device that still wants to join asks again.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Fingerprint of its key, which a person compares with the device's screen.
    pub key: Digest,
    /// The requested name.
    pub device: DeviceName,
    /// The key, `SubjectPublicKeyInfo` (DER).
    pub spki: Vec<u8>,
    /// The X25519 key to seal secrets to, base64.
    pub sealing_key: String,
    /// The facts that the machine gives about itself.
    pub hardware: Hardware,
    /// The address of the client.
    pub address: String,
    /// When it first asked.
    pub asked_at: Timestamp,
    /// Why it waits, if there is a special reason: another device has the name.
    pub note: String,
    /// Whether the client has a certificate by this fleet's CA for this name and key, so that it has joined before.
    pub vouched: bool,
    /// Its state.
    pub state: RequestState,
}

/// The state of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestState {
    /// It waits for a person.
    Pending,
    /// The device may join.
    Approved {
        /// When it was decided.
        at: Timestamp,
        /// Who decided.
        by: String,
        /// The device's certificate, then the CA's, PEM.
        certificate: String,
    },
    /// The device may not join.
    Denied {
        /// When it was decided.
        at: Timestamp,
        /// Who decided.
        by: String,
        /// The reason that the person gave.
        reason: String,
    },
}

const COLUMNS: &str = "key, device, spki, sealing_key, hardware, address, asked_at, note, state, decided_at, decided_by, \
     reason, certificate, vouched";

fn read(row: &Row<'_>) -> Result<JoinRequest, StoreError> {
    let at = maybe_time(row.get(9)?)?.unwrap_or(Timestamp::UNIX_EPOCH);
    let by = row.get::<_, Option<String>>(10)?.unwrap_or_default();
    let state = match row.get::<_, String>(8)?.as_str() {
        "pending" => RequestState::Pending,
        "approved" => RequestState::Approved {
            at,
            by,
            certificate: row.get::<_, Option<String>>(12)?.unwrap_or_default(),
        },
        "denied" => RequestState::Denied {
            at,
            by,
            reason: row.get(11)?,
        },
        other => return Err(StoreError::Malformed(format!("request state {other:?}"))),
    };
    Ok(JoinRequest {
        key: digest(row.get(0)?),
        device: name(&row.get::<_, String>(1)?)?,
        spki: row.get(2)?,
        sealing_key: row.get(3)?,
        hardware: from_json(&row.get::<_, String>(4)?)?,
        address: row.get(5)?,
        asked_at: time(row.get(6)?)?,
        note: row.get(7)?,
        vouched: row.get(13)?,
        state,
    })
}

pub(crate) fn find(
    connection: &Connection,
    key: &Digest,
) -> Result<Option<JoinRequest>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM requests WHERE key = ?1");
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([key.as_bytes()])?;
    rows.next()?.map(read).transpose()
}

/// All requests, for one name or for all, oldest first.
pub(crate) fn list(
    connection: &Connection,
    device: Option<&DeviceName>,
) -> Result<Vec<JoinRequest>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM requests WHERE ?1 IS NULL OR device = ?1 ORDER BY asked_at, key"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([device.map(ToString::to_string)])?;
    let mut requests = Vec::new();
    while let Some(row) = rows.next()? {
        requests.push(read(row)?);
    }
    Ok(requests)
}

/// Number of pending requests of strangers: in all, and from one address.
pub(crate) fn count_pending(
    connection: &Connection,
    address: &str,
) -> Result<(u64, u64), StoreError> {
    let all = connection
        .prepare_cached("SELECT count(*) FROM requests WHERE state = 'pending' AND vouched = 0")?
        .query_row([], |row| row.get(0))?;
    let from = connection
        .prepare_cached("SELECT count(*) FROM requests WHERE state = 'pending' AND address = ?1 AND vouched = 0")?
        .query_row([address], |row| row.get(0))?;
    Ok((all, from))
}

pub(crate) fn put(connection: &Connection, request: &JoinRequest) -> Result<(), StoreError> {
    let (state, at, by, reason, certificate) = match &request.state {
        RequestState::Pending => ("pending", None, None, "", None),
        RequestState::Approved {
            at,
            by,
            certificate,
        } => ("approved", Some(at), Some(by), "", Some(certificate)),
        RequestState::Denied { at, by, reason } => {
            ("denied", Some(at), Some(by), reason.as_str(), None)
        }
    };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO requests (key, device, spki, sealing_key, hardware, address, asked_at, note, state, \
             decided_at, decided_by, reason, certificate, vouched) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
             ?13, ?14)",
        )?
        .execute((
            request.key.as_bytes(),
            request.device.to_string(),
            &request.spki,
            &request.sealing_key,
            json(&request.hardware),
            &request.address,
            millis(request.asked_at),
            &request.note,
            state,
            at.copied().map(millis),
            by,
            reason,
            certificate,
            request.vouched,
        ))?;
    Ok(())
}

pub(crate) fn remove(connection: &Connection, key: &Digest) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM requests WHERE key = ?1")?
        .execute([key.as_bytes()])?;
    Ok(())
}

/// Deletes all requests for this name.
pub(super) fn remove_all(connection: &Connection, device: &DeviceName) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM requests WHERE device = ?1")?
        .execute([device.to_string()])?;
    Ok(())
}

/// Deletes old requests. The denial of a device of this fleet is kept, or its next request would wait among those that may come
/// back.
pub(super) fn purge(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let before = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    connection
        .prepare_cached(
            "DELETE FROM requests WHERE coalesce(decided_at, asked_at) < ?1 AND NOT (vouched AND state = 'denied')",
        )?
        .execute([millis(before)])?;
    Ok(())
}

impl Store {
    /// All stored requests, including decided ones, oldest first.
    pub async fn requests(&self) -> Result<Vec<JoinRequest>, StoreError> {
        self.read(|connection| list(connection, None)).await
    }

    /// The request with this key.
    pub async fn request(&self, key: Digest) -> Result<Option<JoinRequest>, StoreError> {
        self.read(move |connection| find(connection, &key)).await
    }

    /// How many devices of this fleet ask to come back, and since when; none when there are none.
    pub async fn coming_back(&self) -> Result<Option<(u64, Timestamp)>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT count(*), min(asked_at) FROM requests WHERE state = 'pending' AND vouched",
            )?;
            let row = query.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(maybe_time(row.1)?.map(|since| (row.0, since)))
        })
        .await
    }

    /// The devices with pending requests.
    pub async fn waiting(&self) -> Result<BTreeSet<DeviceName>, StoreError> {
        self.read(|connection| {
            let mut query =
                connection.prepare_cached("SELECT device FROM requests WHERE state = 'pending'")?;
            let mut rows = query.query([])?;
            let mut waiting = BTreeSet::new();
            while let Some(row) = rows.next()? {
                waiting.insert(name(&row.get::<_, String>(0)?)?);
            }
            Ok(waiting)
        })
        .await
    }

    /// Number of pending requests.
    pub async fn pending(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let count = "SELECT count(*) FROM requests WHERE state = 'pending'";
            let row: Option<u64> = connection
                .prepare_cached(count)?
                .query_row([], |row| row.get(0))
                .optional()?;
            Ok(row.unwrap_or_default())
        })
        .await
    }
}
