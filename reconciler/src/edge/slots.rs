//! Slots for clients without a certificate: strangers, who might take all of them and stay silent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// A number of slots. When all are taken and another client comes, the one that has held a slot longest is evicted, if that
/// is longer than `patience`: a client that is done within it is never evicted, however many others come.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    max: usize,
    patience: Duration,
    /// The holders, oldest first. Some may have left already.
    held: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

/// A slot, which is freed on drop.
#[derive(Debug)]
pub(super) struct Slot {
    /// Dropped first, so that the holder counts as gone before another can take the slot.
    lost: oneshot::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Returns when this holder is evicted.
    pub(super) async fn lost(&mut self) {
        // nothing is ever sent: the sender is dropped
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

    /// Waits for a slot. A caller that gives up takes none.
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

    /// Takes a slot if one is free, or if the oldest holder can be evicted.
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
        // the semaphore is never closed
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

    /// When the oldest holder may be evicted.
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
        // there is nobody to evict: a slot will be freed by itself
        std::future::pending::<()>().await;
    }

    /// Evicts the oldest holder if it has held its slot long enough. Returns whether it did.
    fn send_away(&self) -> bool {
        let mut held = self.held();
        let due = self
            .oldest(&mut held)
            .is_some_and(|due| due <= Instant::now());
        due && held.pop_front().is_some()
    }
}
