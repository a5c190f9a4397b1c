//! Repairs Podman itself, where that is possible without touching what runs.

use std::collections::BTreeSet;
use std::time::Duration;

use flotta_bundle::code;
use flotta_bundle::manifest::Manifest;
use flotta_bundle::wire::WorkloadReport;
use jiff::Timestamp;

use super::{Host, states};
use crate::backend::{Files, Podman, Systemd, Verb};
use crate::ledger::Ledger;
use crate::plan::{Plan, Step};

/// Podman's socket unit. systemd stops it when the service behind it fails a few times in a row.
const SOCKET: &str = "podman.socket";
const SERVICE: &str = "podman.service";
/// Longest wait for a socket to listen, and for restarts; systemd carries on with them after that.
const LIMIT: Duration = Duration::from_secs(20);

/// Makes Podman try a storage again that it refuses until the next boot. Returns whether it did refuse it.
///
/// Only a note in `/run` is removed, which says that this storage once did not work: no container, image or mount. Running
/// containers never read it, and if the storage still does not work, Podman writes the note again.
pub(super) fn podman<S: Systemd, P: Podman, F: Files>(
    reports: &[WorkloadReport],
    ledger: &mut Ledger,
    host: &mut Host<S, P, F>,
    now: &dyn Fn() -> Timestamp,
) -> bool {
    // on a healthy machine there is no such note, or a harmless one; a workload that has not run yet is held by it, not down
    let mut held = host.failures.values();
    let is_held = held.any(|problem| problem.is(code::STORAGE));
    if !is_held && states::failed(reports).next().is_none() {
        return false;
    }
    let Some(why) = host.podman.remembers() else {
        return false;
    };
    if let Err(error) = host.podman.forget() {
        tracing::warn!(%error, "Podman's note about its storage cannot be removed");
        return false;
    }
    tracing::info!(why, "Podman is to look at its storage again");
    let message =
        format!("Podman had given up its storage until the next boot, and looks again: {why}");
    // an event that cannot be written is written with the next one
    let _ = ledger.note(now(), "Repaired", message, true);
    true
}

/// Starts Podman's socket if it is not listening. Returns whether that helped.
pub(super) async fn socket<S: Systemd, P: Podman, F: Files>(host: &mut Host<S, P, F>) -> bool {
    let is_down = match host.systemd.unit(SOCKET).await {
        Ok(unit) => unit.is_loaded() && !unit.is_active(),
        Err(_) => false,
    };
    if !is_down {
        return false;
    }
    for name in [SERVICE, SOCKET] {
        if let Err(error) = host.systemd.reset_failed(name).await {
            tracing::debug!(unit = name, %error, "not reset");
        }
    }
    let jobs = [(Verb::Start, SOCKET.to_owned())];
    let failed = host.systemd.jobs(&jobs, LIMIT).await;
    for (unit, error) in &failed {
        tracing::warn!(unit, %error, "not started");
    }
    failed.is_empty()
}

/// Restarts units at once that systemd would restart later, when what they lacked is there now.
pub(super) async fn restart_waiting<S: Systemd, P: Podman, F: Files>(
    manifest: &Manifest,
    plan: &Plan,
    hopeful: &BTreeSet<String>,
    down: &BTreeSet<String>,
    host: &mut Host<S, P, F>,
) {
    let mut jobs = Vec::new();
    for unit in &manifest.units {
        let is_planned = plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Job(_, name) if *name == unit.name));
        let waits = [hopeful, down]
            .iter()
            .all(|names| names.contains(unit.workload.as_str()));
        if is_planned || !waits {
            continue;
        }
        if let Ok(state) = host.systemd.unit(&unit.name).await
            && state.awaits_restart()
        {
            jobs.push((Verb::Restart, unit.name.clone()));
        }
    }
    if jobs.is_empty() {
        return;
    }
    for (unit, error) in host.systemd.jobs(&jobs, LIMIT).await {
        // the unit's own state says why it is not running
        tracing::info!(unit, %error, "job did not succeed");
    }
}
