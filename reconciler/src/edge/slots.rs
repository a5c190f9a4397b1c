//! Slots for those who have shown no certificate: strangers, who may hold them all and say nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// So many slots. When all are taken and another comes, the one who has held a slot longest must go, if that is longer
/// than `patience`: who is done within it is never sent away, however many others come.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    max: usize,
    patience: Duration,
    /// The oldest first. Some have left already.
    held: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// Dropped first: who leaves is known to have left before another can have the slot.
    lost: oneshot::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Returns when another needs it.
    pub(super) async fn lost(&mut self) {
        // never sent to: dropping the other end says it
        let _ = (&mut self.lost).await;
    }
}

impl Slots {
    pub(super) fn new(max: usize, patience: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            patience,
            held: Mutex::default(),
        }
    }

    /// A slot, as soon as there is one. None is lost to a caller who gives up.
    pub(super) async fn wait(&self) -> Option<Slot> {
        let permit = tokio::select! {
            biased;
            permit = self.free() => permit,
            () = self.due() => {
                self.send_away();
                self.free().await
            }
        };
        permit.map(|permit| self.give(permit))
    }

    /// A slot, if there is one or somebody has held one for too long.
    pub(super) async fn take(&self) -> Option<Slot> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(self.give(permit));
        }
        if !self.send_away() {
            return None;
        }
        let permit = self.free().await;
        permit.map(|permit| self.give(permit))
    }

    /// Number of slots that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.max - self.free.available_permits()
    }

    async fn free(&self) -> Option<OwnedSemaphorePermit> {
        // never closed, so there always is one
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<(Instant, oneshot::Sender<()>)>> {
        // nothing panics while it holds this lock
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, permit: OwnedSemaphorePermit) -> Slot {
        let (sender, lost) = oneshot::channel();
        let mut held = self.held();
        if held.len() >= self.max.saturating_mul(2) {
            held.retain(|(_, sender)| !sender.is_closed());
        }
        held.push_back((Instant::now(), sender));
        Slot {
            _permit: permit,
            lost,
        }
    }

    /// When the oldest who is still there has held its slot long enough.
    fn oldest(&self, held: &mut VecDeque<(Instant, oneshot::Sender<()>)>) -> Option<Instant> {
        while held.front().is_some_and(|(_, sender)| sender.is_closed()) {
            held.pop_front();
        }
        held.front().map(|(since, _)| *since + self.patience)
    }

    async fn due(&self) {
        loop {
            let oldest = self.oldest(&mut self.held());
            let Some(due) = oldest else { break };
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
        // nobody is there who could be sent away: a slot comes back by itself
        std::future::pending::<()>().await;
    }

    /// Sends the oldest away, if it has held its slot long enough. Says whether.
    fn send_away(&self) -> bool {
        let mut held = self.held();
        let due = self
            .oldest(&mut held)
            .is_some_and(|due| due <= Instant::now());
        due && held.pop_front().is_some()
    }
}
