//! The loop's interface to the host that it manages.

use flotta_bundle::Manifest;
use flotta_bundle::code::Problem;
use flotta_bundle::wire::{Phase, WorkloadReport};
use jiff::Timestamp;

use crate::backend::{Files, Podman, Systemd};
use crate::converge::{self, Host, Outcome};
use crate::health::Health;
use crate::ledger::{Ledger, LedgerError};

/// What the loop needs of the host.
pub(in crate::run) trait ManagedHost {
    /// Brings the machine to the state that the manifest describes. May be dropped at any point.
    async fn converge(
        &mut self,
        manifest: &Manifest,
        release: u64,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
        progress: &mut dyn FnMut(Phase, &[WorkloadReport]),
    ) -> Outcome;

    /// Returns the state of the workloads; changes nothing.
    async fn look(&mut self, manifest: &Manifest, ledger: &Ledger) -> Vec<WorkloadReport>;

    /// Checks whether somebody changed files of the fleet, and notes it; changes nothing on the machine.
    async fn look_at_files(
        &mut self,
        manifest: &Manifest,
        ledger: &mut Ledger,
        now: &dyn Fn() -> Timestamp,
    ) -> Result<(), LedgerError>;

    /// Whether only the agent's own view of the mounts keeps it from writing; none when nothing does.
    async fn is_shut_out(&mut self, manifest: &Manifest) -> Option<bool>;

    /// Takes the reasons for which containers were stopped since the last call.
    fn stops(&mut self) -> Vec<Problem>;

    /// Waits until something may have changed.
    async fn changed(&mut self) -> Change;
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) enum Change {
    /// Units, or the results of their health checks.
    Units,
    /// Files of the fleet.
    Files,
}

impl<S: Systemd, P: Podman, F: Files> ManagedHost for Host<S, P, F> {
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

    async fn changed(&mut self) -> Change {
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
            () = healed => Change::Units,
            () = systemd.changed() => Change::Units,
            () = files.changed() => Change::Files,
        }
    }
}
