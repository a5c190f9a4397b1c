//! Reports. Level-triggered: the newest says everything, so one that says nothing new is not written.

use std::sync::Arc;

use flotta_bundle::wire::{Acknowledged, Event, Report};
use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::events::{self, FleetEvent};
use super::member::Member;
use super::value::{json, millis};
use super::{Store, StoreError};

/// Most events taken from one report; the device sends the rest with its next.
const MAX_EVENTS: usize = 100;

impl Store {
    /// Keeps a report of `device`, which is `member`. Says which of its events the device may forget.
    pub async fn put_report(
        &self,
        device: &DeviceName,
        member: &Arc<Member>,
        mut report: Report,
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        member.saw(now);
        let kept_before = member.last_event();
        let mut new = std::mem::take(&mut report.events);
        new.retain(|event| event.id > kept_before);
        new.sort_unstable_by_key(|event| event.id);
        new.truncate(MAX_EVENTS);
        // Only the time differs between two reports of a device at rest.
        let time = millis(std::mem::take(&mut report.time));
        let text = json(&report);
        let content = Digest::of(text.as_bytes());
        if new.is_empty() && member.has(&content) {
            return Ok(Acknowledged {
                events: kept_before,
                ..Acknowledged::default()
            });
        }
        let row = Row {
            device: device.clone(),
            key: member.key(),
            content,
            text,
            time,
            seen: millis(now),
        };
        // in the order of the writes, and even if the device has hung up: what is remembered is what is on disk
        let member = Arc::clone(member);
        let kept = move |last: &u64| member.kept(content, *last, millis(now));
        let write = move |connection: &Connection| row.write(connection, new, kept_before);
        let last = self.write_status(write, kept).await?;
        Ok(Acknowledged {
            events: last,
            ..Acknowledged::default()
        })
    }
}

struct Row {
    device: DeviceName,
    key: Digest,
    content: Digest,
    text: String,
    time: i64,
    seen: i64,
}

impl Row {
    /// Writes the report and those of the events that no other report of the device has brought meanwhile. Returns the
    /// highest event that is kept; `kept` was when the report came.
    fn write(
        &self,
        connection: &Connection,
        new: Vec<Event>,
        kept: u64,
    ) -> Result<u64, StoreError> {
        let device = self.device.to_string();
        let mut last = kept;
        if !new.is_empty() {
            let known: Option<u64> = connection
                .prepare_cached("SELECT last_event FROM reports WHERE device = ?1 AND key = ?2")?
                .query_row((&device, self.key.as_bytes()), |row| row.get(0))
                .optional()?;
            last = known.unwrap_or_default();
        }
        for event in new {
            if event.id <= last {
                continue;
            }
            last = event.id;
            let event = FleetEvent {
                id: 0,
                time: event.time,
                device: Some(self.device.clone()),
                reason: event.reason,
                message: event.message,
                warning: event.warning,
            };
            events::insert(connection, &event)?;
        }
        // `last` of a report without events may be from before one that was written meanwhile
        connection
            .prepare_cached(
                "INSERT INTO reports (device, key, content, report, time, seen_at, last_event) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (device) DO UPDATE SET \
                 key = excluded.key, content = excluded.content, report = excluded.report, \
                 time = excluded.time, seen_at = excluded.seen_at, last_event = CASE key \
                 WHEN excluded.key THEN max(last_event, excluded.last_event) ELSE excluded.last_event END",
            )?
            .execute((
                device,
                self.key.as_bytes(),
                self.content.as_bytes(),
                &self.text,
                self.time,
                self.seen,
                last,
            ))?;
        Ok(last)
    }
}
