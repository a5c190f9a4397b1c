//! A device as the edge needs it at every request, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use tokio::sync::Notify;

use super::value::{digest, millis, name};
use super::voices::{Clones, Heard, Voice, Voices};
use super::{Store, StoreError};
use crate::rate::Allowance;

/// How long what a device said of its clock counts.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// A device that has joined and was not revoked. Superseded, never changed: what is looked up once is good while
/// [`Self::in_force`].
#[derive(Debug)]
pub struct Member {
    key: Digest,
    ended: AtomicBool,
    end: Notify,
    /// Milliseconds since 1970; 0: never.
    seen: AtomicI64,
    /// What of `seen` is on disk.
    seen_kept: AtomicI64,
    voices: Mutex<Voices>,
    /// The time by the device's clock, if the network sets that, and when it said so.
    told: Mutex<Option<(Timestamp, Instant)>>,
    content: Mutex<Option<Digest>>,
    allowance: Allowance,
}

impl Member {
    pub(super) fn new(key: Digest) -> Self {
        Self {
            key,
            ended: AtomicBool::new(false),
            end: Notify::new(),
            seen: AtomicI64::new(0),
            seen_kept: AtomicI64::new(0),
            voices: Mutex::default(),
            told: Mutex::new(None),
            content: Mutex::new(None),
            allowance: Allowance::default(),
        }
    }

    /// Fingerprint of its identity key.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Whether this is still who the device is: false from the moment it is revoked or joins with another key.
    pub fn in_force(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Returns when it no longer is.
    pub async fn ended(&self) {
        let notified = self.end.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.in_force() {
            notified.await;
        }
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    /// What of the server's time and memory it may use.
    pub(crate) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Remembers that the device spoke. Costs no write: [`Store::keep_seen`] writes many at once.
    pub fn saw(&self, now: Timestamp) {
        // not the latest: a clock that was ahead once would have seen it for ever
        self.seen.store(millis(now), Ordering::Relaxed);
    }

    /// Remembers what time it is by the device's clock; none when the network does not set that.
    pub(super) fn tells(&self, time: Option<Timestamp>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = time.map(|time| (time, Instant::now()));
    }

    /// How far the device's clock is ahead of `now`, if it said so of late.
    fn ahead(&self, now: Timestamp) -> Option<SignedDuration> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, at) = (*told)?;
        let passed = at.elapsed();
        if passed > FRESH {
            return None;
        }
        let theirs = time.saturating_add(passed).ok()?;
        Some(theirs.duration_since(now))
    }

    /// When the device last spoke.
    pub fn seen(&self) -> Option<Timestamp> {
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            at => Timestamp::from_millisecond(at).ok(),
        }
    }

    /// What is known of who speaks as it.
    pub(super) fn heard(&self, voice: &Voice) -> Heard {
        self.voices().heard(voice)
    }

    /// Whether two machines use its identity.
    pub fn clones(&self, now: Timestamp) -> Option<Clones> {
        self.voices().clones(now)
    }

    fn voices(&self) -> MutexGuard<'_, Voices> {
        self.voices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a report says nothing new.
    pub(super) fn has(&self, content: &Digest) -> bool {
        let kept = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref() == Some(content)
    }

    /// Remembers what was kept; without voices, that they are as they were.
    pub(super) fn kept(&self, content: Digest, voices: Option<&Voices>, seen: i64) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Some(content);
        if let Some(voices) = voices {
            self.voices().clone_from(voices);
        }
        self.seen_kept.store(seen, Ordering::Relaxed);
    }
}

/// Everyone who has joined, as a store that was just opened has them.
pub(super) fn load(
    fleet: &Connection,
    status: &Connection,
) -> Result<HashMap<DeviceName, Arc<Member>>, StoreError> {
    let mut members = HashMap::new();
    let mut query = fleet.prepare("SELECT device, key FROM devices WHERE revoked_at IS NULL")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let member = Member::new(digest(row.get(1)?));
        members.insert(name(&row.get::<_, String>(0)?)?, Arc::new(member));
    }
    let mut query = status.prepare("SELECT device, key, content, seen_at, voices FROM reports")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let device = name(&row.get::<_, String>(0)?)?;
        let Some(member) = members.get(&device) else {
            continue;
        };
        if member.key == digest(row.get(1)?) {
            let seen = row.get(3)?;
            member.seen.store(seen, Ordering::Relaxed);
            // what nobody can read tells nothing: the next reports tell it anew
            let voices: Voices =
                serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default();
            member.kept(digest(row.get(2)?), Some(&voices), seen);
        }
    }
    Ok(members)
}

impl Store {
    /// How far the clocks of devices are ahead of `now`: of those whose clocks the network sets, and that said so of late.
    pub fn told_times(&self, now: Timestamp) -> Vec<SignedDuration> {
        let members = self.0.members.read();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        let told = members.values().filter_map(|member| member.ahead(now));
        told.collect()
    }

    /// Looks at everyone who has joined. Nobody joins or leaves meanwhile.
    pub(crate) fn each_member(&self, mut look: impl FnMut(&DeviceName, &Member)) {
        let members = self.0.members.read();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        members.iter().for_each(|(name, member)| look(name, member));
    }

    /// How many devices have joined.
    pub fn count_members(&self) -> usize {
        let members = self.0.members.read();
        members.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Writes last-seen times that changed since the last call, in one transaction.
    pub async fn keep_seen(&self) -> Result<(), StoreError> {
        let changed: Vec<_> = self
            .all_members()
            .into_iter()
            .filter_map(|(device, member)| {
                let seen = member.seen.load(Ordering::Relaxed);
                let before = member.seen_kept.swap(seen, Ordering::Relaxed);
                (seen != before).then(|| (device.to_string(), seen))
            })
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.0
            .status
            .run(
                move |connection| {
                    let mut update = connection
                        .prepare_cached("UPDATE reports SET seen_at = ?2 WHERE device = ?1")?;
                    for row in &changed {
                        update.execute((&row.0, row.1))?;
                    }
                    Ok(())
                },
                |()| {},
            )
            .await
    }
}
