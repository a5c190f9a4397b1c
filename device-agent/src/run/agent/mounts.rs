//! Folders that are mounted read-only: the agent goes on as soon as it can write, and ends where fresh mounts are all it lacks.

use rustix::time::{ClockId, clock_gettime};

use super::{Agent, Hands, Stop};
use crate::durable;
use crate::state_machine::State;

/// Seconds before the program ends once more to have fresh mounts, when that did not help: it only costs connections.
const SHUT_OUT_AGAIN: i64 = 600;

impl<H: Hands> Agent<H> {
    /// Goes on as soon as it can write again.
    pub(super) async fn probe(&mut self) -> Result<(), Stop> {
        let Some(manifest) = self.manifest() else {
            return Ok(());
        };
        match self.hands.is_shut_out(&manifest).await {
            None if self.state == State::Waiting => self.state = self.state.begin()?,
            Some(true) if self.may_end() => return Err(Stop::ShutOut),
            _ => {}
        }
        Ok(())
    }

    /// Whether ending now may help: not when it did not a short time ago.
    fn may_end(&self) -> bool {
        let Some(path) = &self.ended_file else {
            return false;
        };
        let now = clock_gettime(ClockId::Boottime).tv_sec;
        let last = durable::read(path, 32).ok().flatten();
        let last = last.and_then(|text| String::from_utf8(text).ok()?.parse::<i64>().ok());
        let due = last.is_none_or(|last| now - last >= SHUT_OUT_AGAIN);
        due && durable::write(path, now.to_string().as_bytes(), 0o600).is_ok()
    }

    /// Everything was written: if the program ended for that, it helped, and may help again.
    pub(super) fn can_write(&self) {
        if let Some(path) = &self.ended_file
            && let Err(error) = durable::remove(path)
        {
            tracing::warn!(%error, path = %path.display(), "not removed");
        }
    }
}
