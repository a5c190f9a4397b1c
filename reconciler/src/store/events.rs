//! Events, for people to read. Bounded: only the newest of each device and of the fleet are kept.

use flotta_bundle::DeviceName;
use jiff::Timestamp;
use rusqlite::Connection;

use super::value::{millis, name, time};
use super::{Store, StoreError};

#[cfg(test)]
mod tests;

/// Events kept of one device, and of each reason for the server itself. A device in a crash loop must not displace the events
/// of others, nor a stranger that is refused again and again those about commits.
pub const KEPT_EACH: u64 = 200;
/// Events kept in all: 100,000 devices with ten each, about 200 MB.
pub const KEPT: i64 = 1_000_000;
/// Longest message kept, in characters.
const MAX_MESSAGE: usize = 1024;
/// Longest reason kept, in characters.
const MAX_REASON: usize = 64;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetEvent {
    /// An increasing number; 0 before it is stored.
    pub id: i64,
    /// When it happened, by the device's clock if a device reported it.
    pub time: Timestamp,
    /// The device it is about; none for the fleet.
    pub device: Option<DeviceName>,
    /// The reason, one word in `CamelCase`.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// Whether someone should look.
    pub warning: bool,
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only of this device.
    pub device: Option<DeviceName>,
    /// Only newer than this id.
    pub after: i64,
    /// Only since this time.
    pub since: Option<Timestamp>,
    /// At most this many, the newest ones.
    pub limit: u32,
}

/// Adds an event, and deletes the oldest of the same device.
pub(super) fn insert(connection: &Connection, event: &FleetEvent) -> Result<(), StoreError> {
    let device = event.device.as_ref().map(ToString::to_string);
    let device = device.unwrap_or_default();
    let cut = |text: &str, max| text.chars().take(max).collect::<String>();
    connection
        .prepare_cached(
            "INSERT INTO events (time, device, reason, message, warning) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((
            millis(event.time),
            &device,
            cut(&event.reason, MAX_REASON),
            cut(&event.message, MAX_MESSAGE),
            event.warning,
        ))?;
    connection
        .prepare_cached(
            "DELETE FROM events WHERE device = ?1 AND (device <> '' OR reason = ?3) AND id <= (SELECT id FROM events \
             WHERE device = ?1 AND (device <> '' OR reason = ?3) ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute((&device, KEPT_EACH, cut(&event.reason, MAX_REASON)))?;
    Ok(())
}

/// Whether this event of the device is stored already.
pub(super) fn has(connection: &Connection, event: &FleetEvent) -> Result<bool, StoreError> {
    let device = event.device.as_ref().map(ToString::to_string);
    let cut = |text: &str, max| text.chars().take(max).collect::<String>();
    let mut query = connection.prepare_cached(
        "SELECT 1 FROM events WHERE device = ?1 AND time = ?2 AND reason = ?3 AND message = ?4",
    )?;
    let found = query.exists((
        device.unwrap_or_default(),
        millis(event.time),
        cut(&event.reason, MAX_REASON),
        cut(&event.message, MAX_MESSAGE),
    ))?;
    Ok(found)
}

/// Deletes the oldest events when there are too many in all. They are counted instead of comparing ids, because a device that
/// floods uses up ids and must not displace the events of others.
pub(super) fn purge(connection: &Connection) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([KEPT])?;
    Ok(())
}

impl EventFilter {
    /// The statement for each kind of query, with the index to use: without it SQLite would search for a time through all events
    /// in the order of ids.
    fn sql(&self) -> String {
        let (index, device) = match self.device {
            Some(_) => ("INDEXED BY events_by_device", "device = ?2"),
            None if self.since.is_some() => ("INDEXED BY events_by_time", "?2 IS NULL"),
            None => ("", "?2 IS NULL"),
        };
        let since = self.since.map_or("?4 IS NULL", |_| "time >= ?4");
        format!(
            "SELECT id, time, device, reason, message, warning FROM status.events {index} \
             WHERE id > ?1 AND {device} AND {since} ORDER BY id DESC LIMIT ?3"
        )
    }
}

impl Store {
    /// Adds an event.
    pub async fn add_event(&self, event: FleetEvent) -> Result<(), StoreError> {
        self.write_status(move |connection| insert(connection, &event), |()| {})
            .await
    }

    /// The newest events that match `filter`, oldest first.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<FleetEvent>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&filter.sql())?;
            let device = filter.device.as_ref().map(ToString::to_string);
            let mut rows =
                query.query((filter.after, device, filter.limit, filter.since.map(millis)))?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                let device: String = row.get(2)?;
                events.push(FleetEvent {
                    id: row.get(0)?,
                    time: time(row.get(1)?)?,
                    device: match device.as_str() {
                        "" => None,
                        text => Some(name(text)?),
                    },
                    reason: row.get(3)?,
                    message: row.get(4)?,
                    warning: row.get(5)?,
                });
            }
            events.reverse();
            Ok(events)
        })
        .await
    }
}
