//! Reports. Level-triggered: the newest has the whole state, so one without news is not written.

use std::net::IpAddr;
use std::sync::Arc;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::wire::{Acknowledged, Event, Report};
use flotta_bundle::{DeviceName, Digest};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::events::{self, FleetEvent};
use super::member::Member;
use super::senders::{Clones, Sender, SenderState, Senders};
use super::value::{json, millis};
use super::{Store, StoreError};

/// Most events that are stored from one report; the device sends the rest with the next.
const MAX_EVENTS: usize = 100;

impl Store {
    /// Stores a report of `device`, which is `member`. Returns which events the device may delete, and problems that only the
    /// server can know.
    pub async fn put_report(
        &self,
        device: &DeviceName,
        member: &Arc<Member>,
        mut report: Report,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        member.saw(now);
        let sender = Sender::of(&report, from);
        let heard = member.heard(&sender);
        member.tells((report.clock_synchronised == Some(true)).then_some(report.time));
        let mut new = std::mem::take(&mut report.events);
        new.retain(|event| event.id > heard.last);
        new.sort_unstable_by_key(|event| event.id);
        new.truncate(MAX_EVENTS);
        // Two reports of an idle device differ only in their time.
        let time = millis(std::mem::take(&mut report.time));
        let text = json(&report);
        let content = Digest::of(text.as_bytes());
        if new.is_empty() && heard.is_newest && member.has(&content) {
            return Ok(acknowledged(heard.last, member.clones(now).as_ref()));
        }
        let row = Row {
            device: device.clone(),
            key: member.key(),
            content,
            text,
            time,
            now,
            sender,
        };
        // in the order of the writes, and even if the device has hung up, so that memory and disk agree
        let kept = Arc::clone(member);
        let kept = move |kept_now: &(u64, Option<Senders>)| {
            kept.kept(content, kept_now.1.as_ref(), millis(now));
        };
        let known = (!new.is_empty() || !heard.is_newest).then_some(heard);
        let write = move |connection: &Connection| match known {
            Some(heard) => row.write(connection, new, heard),
            None => row.write_again(connection, heard),
        };
        let (last, _) = self.write_status(write, kept).await?;
        Ok(acknowledged(last, member.clones(now).as_ref()))
    }
}

fn acknowledged(events: u64, clones: Option<&Clones>) -> Acknowledged {
    let problems = clones.map(|clones| Problem::new(code::CLONED, clones.to_string()));
    Acknowledged {
        events,
        problems: problems.into_iter().collect(),
        ..Acknowledged::default()
    }
}

struct Row {
    device: DeviceName,
    key: Digest,
    content: Digest,
    text: String,
    time: i64,
    now: Timestamp,
    sender: Sender,
}

impl Row {
    /// Writes a report without new events, by the machine that also sent the last one.
    fn write_again(
        &self,
        connection: &Connection,
        heard: SenderState,
    ) -> Result<(u64, Option<Senders>), StoreError> {
        let changed = connection
            .prepare_cached(
                "UPDATE reports SET content = ?3, report = ?4, time = ?5, seen_at = ?6 WHERE device = ?1 AND key = ?2",
            )?
            .execute((
                self.device.to_string(),
                self.key.as_bytes(),
                self.content.as_bytes(),
                &self.text,
                self.time,
                millis(self.now),
            ))?;
        if changed == 0 {
            return self.write(connection, Vec::new(), heard);
        }
        Ok((heard.last, None))
    }

    /// Writes the report, and the events that no other report has brought meanwhile. Returns the highest stored event of this
    /// sender, and the senders.
    fn write(
        &self,
        connection: &Connection,
        new: Vec<Event>,
        before: SenderState,
    ) -> Result<(u64, Option<Senders>), StoreError> {
        let device = self.device.to_string();
        let known: Option<String> = connection
            .prepare_cached("SELECT voices FROM reports WHERE device = ?1 AND key = ?2")?
            .query_row((&device, self.key.as_bytes()), |row| row.get(0))
            .optional()?;
        // an unreadable value is dropped: the next reports restore it
        let known = known.and_then(|text| serde_json::from_str(&text).ok());
        let mut senders: Senders = known.unwrap_or_default();
        let heard = senders.heard(&self.sender);
        let mut last = heard.last;
        for event in new {
            if event.id <= last {
                continue;
            }
            last = event.id;
            let is_doubtful = event.id <= heard.doubt.max(before.doubt);
            let event = FleetEvent {
                id: 0,
                time: event.time,
                device: Some(self.device.clone()),
                reason: event.reason,
                message: event.message,
                warning: event.warning,
            };
            if !is_doubtful || !events::has(connection, &event)? {
                events::insert(connection, &event)?;
            }
        }
        let were_two = senders.clones(self.now).is_some();
        senders.record(self.sender.clone(), last, self.now);
        if let Some(clones) = senders.clones(self.now).filter(|_| !were_two) {
            events::insert(connection, &self.found(&clones))?;
        }
        connection
            .prepare_cached(
                "INSERT INTO reports (device, key, content, report, time, seen_at, voices) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (device) DO UPDATE SET \
                 key = excluded.key, content = excluded.content, report = excluded.report, \
                 time = excluded.time, seen_at = excluded.seen_at, voices = excluded.voices",
            )?
            .execute((
                device,
                self.key.as_bytes(),
                self.content.as_bytes(),
                &self.text,
                self.time,
                millis(self.now),
                json(&senders),
            ))?;
        Ok((last, Some(senders)))
    }

    fn found(&self, clones: &Clones) -> FleetEvent {
        FleetEvent {
            id: 0,
            time: self.now,
            device: Some(self.device.clone()),
            reason: "Cloned".to_owned(),
            message: Problem::new(code::CLONED, clones.to_string()).to_string(),
            warning: true,
        }
    }
}
