//! Refusals in the log: each is told once, and once an hour how often it came again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotta_bundle::DeviceName;

/// How long a refusal that goes on is counted until it is told again.
const AGAIN: Duration = Duration::from_secs(3600);
/// Devices that are counted. Of more, the one that was told of longest ago is told of anew.
const MAX: usize = 4096;

/// What was told. One who goes on asking is counted, not told of again.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<(DeviceName, &'static str), Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Instant,
    since: u64,
}

impl Told {
    /// Whether to tell that `device` was refused with this code: then, how often it was since it was told last.
    pub(crate) fn tell(
        &self,
        device: &DeviceName,
        code: &'static str,
        now: Instant,
    ) -> Option<u64> {
        let mut told = self.lock();
        if let Some(entry) = told.get_mut(&(device.clone(), code)) {
            if now.saturating_duration_since(entry.at) < AGAIN {
                entry.since += 1;
                return None;
            }
            let since = entry.since;
            *entry = Entry { at: now, since: 0 };
            return Some(since);
        }
        if told.len() >= MAX {
            let oldest = told.iter().min_by_key(|(_, entry)| entry.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                told.remove(&oldest);
            }
        }
        told.insert((device.clone(), code), Entry { at: now, since: 0 });
        Some(0)
    }

    /// The device is served: the next refusal is a new one.
    pub(crate) fn forget(&self, device: &DeviceName) {
        let mut told = self.lock();
        if !told.is_empty() {
            told.retain(|(known, _), _| known != device);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(DeviceName, &'static str), Entry>> {
        // nothing panics while it holds the lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    #[test]
    fn what_goes_on_is_told_once_and_once_an_hour_with_its_count() {
        let (told, start) = (Told::default(), Instant::now());
        let (a, b) = (name("a"), name("b"));
        assert_eq!(told.tell(&a, "FLT0403", start), Some(0));
        for second in 1..3600 {
            let now = start + Duration::from_secs(second);
            assert_eq!(told.tell(&a, "FLT0403", now), None);
        }
        assert_eq!(told.tell(&a, "FLT0403", start + AGAIN), Some(3599));
        // another device, and another reason, are news of their own
        assert_eq!(told.tell(&b, "FLT0403", start + AGAIN), Some(0));
        assert_eq!(told.tell(&a, "FLT0423", start + AGAIN), Some(0));
        told.forget(&a);
        assert_eq!(told.tell(&a, "FLT0403", start + AGAIN), Some(0));
        assert_eq!(told.tell(&b, "FLT0403", start + AGAIN), None);
    }

    #[test]
    fn a_crowd_takes_bounded_memory() {
        let (told, start) = (Told::default(), Instant::now());
        for count in 0..2 * MAX {
            let now = start + Duration::from_millis(count as u64);
            assert_eq!(
                told.tell(&name(&format!("d{count}")), "FLT0403", now),
                Some(0)
            );
        }
        assert_eq!(told.lock().len(), MAX);
        let newest = name(&format!("d{}", 2 * MAX - 1));
        assert_eq!(told.tell(&newest, "FLT0403", start), None);
    }
}
