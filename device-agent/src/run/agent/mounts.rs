//! Folders that are mounted read-only: the agent continues as soon as it can write, and exits if a restart with a fresh view
//! of the mounts is all that it needs.

use rustix::time::{ClockId, clock_gettime};

use super::{Agent, ManagedHost, Stop};
use crate::durable;
use crate::state_machine::State;

/// Seconds before the agent exits again for a fresh view of the mounts when that did not help: each exit costs a connection.
const SHUT_OUT_AGAIN: i64 = 600;

impl<H: ManagedHost> Agent<H> {
    /// Checks whether the agent can write again, and continues if so.
    pub(super) async fn probe(&mut self) -> Result<(), Stop> {
        let Some(manifest) = self.manifest() else {
            return Ok(());
        };
        match self.machine.is_shut_out(&manifest).await {
            None if self.state == State::Waiting => self.state = self.state.begin()?,
            Some(true) if self.may_end() => return Err(Stop::ShutOut),
            _ => {}
        }
        Ok(())
    }

    /// Whether exiting now may help: not if it did not help a short time ago.
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

    /// Records that everything was written: if the agent had exited for that, it helped, and may help again.
    pub(super) fn can_write(&self) {
        if let Some(path) = &self.ended_file
            && let Err(error) = durable::remove(path)
        {
            tracing::warn!(%error, path = %path.display(), "not removed");
        }
    }
}
