//! What the loop has of the machine.

use flotta_bundle::Manifest;
use flotta_bundle::code::Problem;
use flotta_bundle::wire::{Phase, WorkloadReport};
use jiff::Timestamp;

use crate::backend::{Files, Podman, Systemd};
use crate::converge::{self, Host, Outcome};
use crate::health::Health;
use crate::ledger::{Ledger, LedgerError};

/// What the loop needs of a machine.
pub(in crate::run) trait Hands {
    /// Makes the machine as the manifest says. May be dropped at any point.
    async fn converge(
        &mut self,
        manifest: &Manifest,
        release: u64,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
        progress: &mut dyn FnMut(Phase, &[WorkloadReport]),
    ) -> Outcome;

    /// How the workloads are; changes nothing.
    async fn look(&mut self, manifest: &Manifest, ledger: &Ledger) -> Vec<WorkloadReport>;

    /// Looks whether somebody changed files of the fleet's, and notes it; changes nothing.
    async fn look_at_files(
        &mut self,
        manifest: &Manifest,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
    ) -> Result<(), LedgerError>;

    /// Whether the agent's own view of the mounts keeps it from writing; none when nothing does.
    async fn is_shut_out(&mut self, manifest: &Manifest) -> Option<bool>;

    /// Why containers were stopped since this was asked last.
    fn stops(&mut self) -> Vec<Problem>;

    /// Waits until something may have changed.
    async fn changed(&mut self) -> News;
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum News {
    /// Units, or what checks say of them.
    Units,
    /// Files of the fleet's.
    Files,
}

impl<S: Systemd, P: Podman, F: Files> Hands for Host<S, P, F> {
    async fn converge(
        &mut self,
        manifest: &Manifest,
        release: u64,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
        progress: &mut dyn FnMut(Phase, &[WorkloadReport]),
    ) -> Outcome {
        converge::converge(manifest, release, ledger, self, now, progress).await
    }

    async fn look(&mut self, manifest: &Manifest, ledger: &Ledger) -> Vec<WorkloadReport> {
        converge::look(manifest, ledger, self).await
    }

    async fn look_at_files(
        &mut self,
        manifest: &Manifest,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
    ) -> Result<(), LedgerError> {
        converge::look_at_files(manifest, ledger, self, now)
    }

    async fn is_shut_out(&mut self, manifest: &Manifest) -> Option<bool> {
        converge::is_shut_out(manifest, self).await
    }

    fn stops(&mut self) -> Vec<Problem> {
        self.health.as_mut().map(Health::stops).unwrap_or_default()
    }

    async fn changed(&mut self) -> News {
        let Self {
            systemd,
            files,
            health,
            ..
        } = self;
        let healed = async {
            match health {
                Some(health) => health.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = healed => News::Units,
            () = systemd.changed() => News::Units,
            () = files.changed() => News::Files,
        }
    }
}
