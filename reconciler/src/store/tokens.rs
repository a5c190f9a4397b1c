//! One-time tokens. The store has only their hashes, so reading it does not help anyone to join.

use std::collections::BTreeMap;

use flotta_bundle::wire::Token;
use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row};

use super::value::{digest, from_json, json, maybe_time, millis, name, time};
use super::{Store, StoreError};

/// How long a token is kept after it expired: long enough to report "used" or "expired" rather than "unknown".
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The terms of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewToken {
    /// The only device that may use it; any when absent.
    pub device: Option<DeviceName>,
    /// The set that the device becomes a member of.
    pub set: Option<String>,
    /// Labels that the device gets.
    pub labels: BTreeMap<String, String>,
    /// Who made it, by the user of the admin socket.
    pub created_by: String,
}

/// A stored token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// SHA-256 of the token.
    pub hash: Digest,
    /// Its terms.
    pub token: NewToken,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When, with which key and as which device it was used.
    pub used: Option<(Timestamp, Digest, DeviceName)>,
    /// When and by whom it was revoked.
    pub revoked: Option<(Timestamp, String)>,
}

impl TokenRecord {
    /// The id of a token for people: the first digits of its hash, which do not reveal the token.
    pub fn id(&self) -> String {
        self.hash.hex()[..ID_DIGITS].to_owned()
    }

    /// Whether a device can still join with it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.used.is_none() && self.revoked.is_none() && self.expires_at > now
    }
}

/// Number of hex digits of a hash that identify a token in a fleet.
const ID_DIGITS: usize = 12;

/// The stored hash of a token. A plain hash is enough, because a token is 256 random bits.
pub(crate) fn hash(token: &Token) -> Digest {
    Digest::of(token.expose().as_bytes())
}

const COLUMNS: &str = "hash, device, device_set, labels, created_at, expires_at, used_at, used_by, used_as, \
     created_by, revoked_at, revoked_by";

fn read(row: &Row<'_>) -> Result<TokenRecord, StoreError> {
    let maybe_name = |text: Option<String>| text.map(|text| name(&text)).transpose();
    let used_by: Option<[u8; 32]> = row.get(7)?;
    let used = maybe_time(row.get(6)?)?
        .zip(used_by.map(digest))
        .zip(maybe_name(row.get(8)?)?);
    Ok(TokenRecord {
        hash: digest(row.get(0)?),
        token: NewToken {
            device: maybe_name(row.get(1)?)?,
            set: row.get(2)?,
            labels: from_json(&row.get::<_, String>(3)?)?,
            created_by: row.get(9)?,
        },
        created_at: time(row.get(4)?)?,
        expires_at: time(row.get(5)?)?,
        used: used.map(|((at, key), device)| (at, key, device)),
        revoked: maybe_time(row.get(10)?)?.zip(row.get(11)?),
    })
}

pub(crate) fn find(
    connection: &Connection,
    hash: &Digest,
) -> Result<Option<TokenRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1");
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([hash.as_bytes()])?;
    rows.next()?.map(read).transpose()
}

pub(crate) fn insert(connection: &Connection, record: &TokenRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO tokens (hash, device, device_set, labels, created_at, expires_at, created_by) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            record.hash.as_bytes(),
            record.token.device.as_ref().map(ToString::to_string),
            &record.token.set,
            json(&record.token.labels),
            millis(record.created_at),
            millis(record.expires_at),
            &record.token.created_by,
        ))?;
    Ok(())
}

/// Finds a token by its id.
pub(crate) fn find_by_id(
    connection: &Connection,
    id: &str,
) -> Result<Option<TokenRecord>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM tokens WHERE substr(hex(hash), 1, {ID_DIGITS}) = upper(?1)");
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query([id])?;
    rows.next()?.map(read).transpose()
}

/// Revokes a token.
pub(crate) fn revoke(
    connection: &Connection,
    hash: &Digest,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE tokens SET revoked_at = ?2, revoked_by = ?3 WHERE hash = ?1")?
        .execute((hash.as_bytes(), millis(now), by))?;
    Ok(())
}

pub(crate) fn use_up(
    connection: &Connection,
    hash: &Digest,
    key: &Digest,
    device: &DeviceName,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE tokens SET used_at = ?2, used_by = ?3, used_as = ?4 WHERE hash = ?1",
        )?
        .execute((
            hash.as_bytes(),
            millis(now),
            key.as_bytes(),
            device.to_string(),
        ))?;
    Ok(())
}

pub(super) fn purge(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let before = now.saturating_sub(REMEMBERED).unwrap_or(Timestamp::MIN);
    connection
        .prepare_cached("DELETE FROM tokens WHERE expires_at < ?1")?
        .execute([millis(before)])?;
    Ok(())
}

impl Store {
    /// All stored tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY created_at DESC, hash");
            let mut query = connection.prepare_cached(&sql)?;
            let mut rows = query.query([])?;
            let mut tokens = Vec::new();
            while let Some(row) = rows.next()? {
                tokens.push(read(row)?);
            }
            Ok(tokens)
        })
        .await
    }

    /// Whether a device can join with this token now.
    pub async fn is_open(&self, token: &Token, now: Timestamp) -> Result<bool, StoreError> {
        let hash = hash(token);
        self.read(move |connection| {
            let token = find(connection, &hash)?;
            Ok(token.is_some_and(|token| token.is_open(now)))
        })
        .await
    }
}
