//! Refusals in the log: each is logged once, and then once an hour with a count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotta_bundle::DeviceName;

/// How long a repeated refusal is only counted until it is logged again.
const AGAIN: Duration = Duration::from_secs(3600);
/// Most devices that are counted. Further devices are limited like strangers.
const MAX: usize = 4096;
/// How often a full table is searched for stale entries, which walks all of it.
const SWEEP: Duration = Duration::from_secs(60);

/// The refusals that were logged. A device that keeps asking is counted, not logged again.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The refusals of each device, by their codes, of which there are few.
    devices: HashMap<DeviceName, Vec<Entry>>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    code: &'static str,
    at: Instant,
    since: u64,
}

impl Table {
    /// Whether there is room for one more device.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.devices.len() < MAX {
            return true;
        }
        let is_due = |at| now.saturating_duration_since(at) >= SWEEP;
        if self.swept.is_none_or(is_due) {
            self.swept = Some(now);
            // stale entries would be logged again anyway
            self.devices
                .retain(|_, entries| entries.iter().any(|entry| entry.is_fresh(now)));
        }
        self.devices.len() < MAX
    }
}

impl Entry {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < AGAIN
    }
}

impl RefusalLog {
    /// Whether to log that `device` was refused with this code; if so, how often it was since the last line. When there are too
    /// many devices to count this one, `otherwise` decides.
    pub(crate) fn admit(
        &self,
        device: &DeviceName,
        code: &'static str,
        now: Instant,
        otherwise: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        let mut refusals = self.lock();
        let new = Entry {
            code,
            at: now,
            since: 0,
        };
        let Some(entries) = refusals.devices.get_mut(device) else {
            if !refusals.has_room(now) {
                return otherwise();
            }
            refusals.devices.insert(device.clone(), vec![new]);
            return Some(0);
        };
        let Some(entry) = entries.iter_mut().find(|entry| entry.code == code) else {
            entries.push(new);
            return Some(0);
        };
        if entry.is_fresh(now) {
            entry.since += 1;
            return None;
        }
        Some(std::mem::replace(entry, new).since)
    }

    /// Forgets a device that is served, so that its next refusal is logged.
    pub(crate) fn forget(&self, device: &DeviceName) {
        self.lock().devices.remove(device);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // nothing panics while it holds the lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    fn uncounted() -> Option<u64> {
        panic!("there is room")
    }

    #[test]
    fn what_goes_on_is_told_once_and_once_an_hour_with_its_count() {
        let (refusals, start) = (RefusalLog::default(), Instant::now());
        let (a, b) = (name("a"), name("b"));
        assert_eq!(refusals.admit(&a, "FLT0403", start, uncounted), Some(0));
        for second in 1..3600 {
            let now = start + Duration::from_secs(second);
            assert_eq!(refusals.admit(&a, "FLT0403", now, uncounted), None);
        }
        assert_eq!(
            refusals.admit(&a, "FLT0403", start + AGAIN, uncounted),
            Some(3599)
        );
        // another device or another code is logged separately
        assert_eq!(
            refusals.admit(&b, "FLT0403", start + AGAIN, uncounted),
            Some(0)
        );
        assert_eq!(
            refusals.admit(&a, "FLT0423", start + AGAIN, uncounted),
            Some(0)
        );
        refusals.forget(&a);
        assert_eq!(
            refusals.admit(&a, "FLT0403", start + AGAIN, uncounted),
            Some(0)
        );
        assert_eq!(
            refusals.admit(&b, "FLT0403", start + AGAIN, uncounted),
            None
        );
    }

    #[test]
    fn of_a_crowd_as_much_is_told_as_of_strangers() {
        let (refusals, start) = (RefusalLog::default(), Instant::now());
        let (mut lines, mut left) = (0, 10);
        let mut admit = |count: usize, now| {
            refusals.admit(&name(&format!("d{count}")), "FLT0403", now, || {
                lines += 1;
                let is_left = left > 0;
                left -= u64::from(is_left);
                is_left.then_some(7)
            })
        };
        for count in 0..MAX {
            assert_eq!(admit(count, start), Some(0));
        }
        let late = start + Duration::from_secs(3599);
        let more = (MAX..2 * MAX).filter(|count| admit(*count, late) == Some(7));
        assert_eq!(more.count(), 10, "what the limit admits");
        // devices that are counted stay counted
        assert_eq!(admit(0, late), None);
        // and stale entries are removed from time to time
        assert_eq!(admit(MAX, start + AGAIN), None);
        assert_eq!(admit(MAX, late + SWEEP), Some(0));
        assert_eq!(lines, MAX + 1);
        assert_eq!(refusals.lock().devices.len(), 1);
    }
}
