//! The state of a device that the edge API needs at every request, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotta_bundle::{DeviceName, Digest};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use tokio::sync::Notify;

use super::senders::{Clones, Sender, SenderState, Senders};
use super::value::{digest, millis, name};
use super::{Store, StoreError};
use crate::rate::Allowance;

/// How long a report of a device's clock counts.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// A joined device that was not revoked. It is replaced, never changed: a looked-up member is valid while
/// [`Self::in_force`].
#[derive(Debug)]
pub struct Member {
    key: Digest,
    ended: AtomicBool,
    end: Notify,
    /// When the device was last seen, in milliseconds since 1970; 0 for never.
    seen: AtomicI64,
    /// The value of `seen` on disk.
    seen_kept: AtomicI64,
    senders: Mutex<Senders>,
    /// The time by the device's clock, if that is synchronised, and when it was reported.
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
            senders: Mutex::default(),
            told: Mutex::new(None),
            content: Mutex::new(None),
            allowance: Allowance::default(),
        }
    }

    /// Fingerprint of its identity key.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// Whether this identity is still in force: false once the device is revoked or joins with another key.
    pub fn in_force(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Returns when the identity is no longer in force.
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

    /// The resources of the server that it may use.
    pub(crate) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Records that the device was seen, without a write: [`Store::keep_seen`] writes many at once.
    pub fn saw(&self, now: Timestamp) {
        // not the maximum, because a clock that was once ahead would make it look seen for ever
        self.seen.store(millis(now), Ordering::Relaxed);
    }

    /// Records the time by the device's clock; none when that is not synchronised.
    pub(super) fn tells(&self, time: Option<Timestamp>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = time.map(|time| (time, Instant::now()));
    }

    /// How far the device's clock is ahead of `now`, if it was reported recently.
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

    /// When the device was last seen.
    pub fn seen(&self) -> Option<Timestamp> {
        match self.seen.load(Ordering::Relaxed) {
            0 => None,
            at => Timestamp::from_millisecond(at).ok(),
        }
    }

    /// What is known about a machine that uses this identity.
    pub(super) fn heard(&self, sender: &Sender) -> SenderState {
        self.senders().heard(sender)
    }

    /// Whether two machines use its identity.
    pub fn clones(&self, now: Timestamp) -> Option<Clones> {
        self.senders().clones(now)
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a report has this same content.
    pub(super) fn has(&self, content: &Digest) -> bool {
        let kept = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref() == Some(content)
    }

    /// Records what was stored; without `senders` they are unchanged.
    pub(super) fn kept(&self, content: Digest, senders: Option<&Senders>, seen: i64) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Some(content);
        if let Some(senders) = senders {
            self.senders().clone_from(senders);
        }
        self.seen_kept.store(seen, Ordering::Relaxed);
    }
}

/// Loads all members from a store that was just opened.
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
            // an unreadable value is dropped: the next reports restore it
            let senders: Senders =
                serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default();
            member.kept(digest(row.get(2)?), Some(&senders), seen);
        }
    }
    Ok(members)
}

impl Store {
    /// How far the synchronised clocks of devices are ahead of `now`, from recent reports.
    pub fn told_times(&self, now: Timestamp) -> Vec<SignedDuration> {
        let members = self.0.members.read();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        let told = members.values().filter_map(|member| member.ahead(now));
        told.collect()
    }

    /// Calls `look` for all members. Nobody joins or leaves meanwhile.
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
