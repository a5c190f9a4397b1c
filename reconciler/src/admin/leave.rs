//! The server's status, and people's decisions about removals: held commits, devices that left Git.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use flotta_bundle::{DeviceName, code};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Admin;
use super::answer::Refused;
use super::request::{Allowance, Allowed, ClockAccepted, Decided, Decommission};
use super::resource::{Commit, InForce, ServerStatus};
use super::socket::Peer;
use crate::publish::inventory::Left;
use crate::server_state::Warning;
use crate::store::FleetEvent;

/// How long a warning that the server was behind its fleet is shown: a working day after a restore.
const SHOWN: SignedDuration = SignedDuration::from_hours(24);
/// Fewest characters that identify a commit, as in Git itself.
const SHORTEST: usize = 4;

pub(super) async fn status(State(admin): State<Admin>) -> Result<Json<ServerStatus>, Refused> {
    let in_force = match admin.0.index.current().map(|current| current.sequence()) {
        Some(sequence) => {
            let releases = admin.0.store.releases(super::views::COMMITS).await?;
            let found = releases
                .into_iter()
                .find(|record| record.release.sequence == Some(sequence));
            let commit = found.map(|record| Commit {
                id: record.release.revision.commit,
                subject: record.release.revision.subject,
            });
            Some(InForce { sequence, commit })
        }
        None => None,
    };
    Ok(Json(ServerStatus {
        source: admin.0.server_state.source(),
        in_force,
        warnings: warnings(&admin, Timestamp::now()).await?,
    }))
}

/// The warnings that are shown whenever people look at the fleet.
pub(super) async fn warnings(admin: &Admin, now: Timestamp) -> Result<Vec<Warning>, Refused> {
    let in_force = admin.0.index.current().map(|current| current.sequence());
    let mut warnings = admin.0.server_state.warnings();
    warnings.extend(behind(admin, in_force, now));
    warnings.extend(coming_back(admin).await?);
    Ok(warnings)
}

/// The warning that devices were ahead of this server: for as long as they are, and for a day after.
fn behind(admin: &Admin, in_force: Option<u64>, now: Timestamp) -> Option<Warning> {
    let proof = admin.0.store.proofs().borrow().clone()?;
    let sequence = proof.sequence;
    let message = match in_force.filter(|in_force| *in_force > sequence) {
        None => format!(
            "devices have accepted release {sequence}, which this server does not know of; nothing above it is signed yet"
        ),
        Some(_) if now.duration_since(proof.at) > SHOWN => return None,
        Some(in_force) => format!(
            "release {in_force} is above {sequence}, which devices had accepted and this server did not know of"
        ),
    };
    Some(Warning {
        since: proof.at,
        message,
    })
}

/// The warning that devices with a certificate of this fleet are waiting for approval.
async fn coming_back(admin: &Admin) -> Result<Option<Warning>, Refused> {
    let Some((count, since)) = admin.0.store.coming_back().await? else {
        return Ok(None);
    };
    let what = match count {
        1 => "a device that joined after the backup asks".to_owned(),
        _ => format!("{count} devices that joined after the backup ask"),
    };
    Ok(Some(Warning {
        since,
        message: format!(
            "{what} to come back: flotta get requests -A; all of them: flotta approve --restored"
        ),
    }))
}

/// A person confirms that the server's clock is right, and pending releases are signed.
pub(super) async fn accept_clock(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Json<ClockAccepted> {
    let now = Timestamp::now();
    let doubt = admin.0.fleet.clock().accept(now);
    if doubt.is_some() {
        let message = format!("the server's clock is right, says {}: {now:.0}", peer.0);
        note(&admin, None, "ClockAccepted", message).await;
        admin.0.wake.notify_one();
    }
    Json(ClockAccepted {
        now,
        doubt: doubt.map(|doubt| doubt.problem()),
    })
}

/// Allows the held commit; or the one in force, for the devices that left Git with it.
pub(super) async fn allow(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Allowance>, JsonRejection>,
) -> Result<Json<Allowed>, Refused> {
    let Json(request) = body?;
    let asked = request.commit.trim_start_matches("sha256:");
    if asked.len() < SHORTEST {
        return Err(Refused::bad_request(format!(
            "`{asked}` is too short for a commit: give {SHORTEST} characters of it or more"
        )));
    }
    let source = admin.0.server_state.source();
    let state = source
        .verdict
        .as_ref()
        .map(|verdict| verdict.state.as_str());
    let described = admin.0.index.described();
    let left = described
        .iter()
        .filter(|(_, known)| matches!(known.left, Some(Left::Keeps(_))));
    let left: Vec<_> = left.map(|(device, _)| device.clone()).collect();
    let named = source
        .commit
        .trim_start_matches("sha256:")
        .starts_with(asked);
    let is_in_force = state == Some("InForce");
    if !named || !(state == Some("Held") || is_in_force && !left.is_empty()) {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            code::NOT_HELD,
            format!("no commit {asked} is held"),
        ));
    }
    let now = Timestamp::now();
    let (store, commit) = (&admin.0.store, source.commit);
    let by = &peer.0;
    let message = if is_in_force {
        // the commit is in force already: only the devices that are shown as having left go, none that leave later
        let mut going = Vec::new();
        for device in left {
            let known = store.device(&device).await?;
            if let Some(known) = known.filter(|known| known.device.revoked_at.is_none()) {
                going.push((device, known.device.key));
            }
        }
        let count = going.len();
        store.decommission(going, by.clone(), now).await?;
        let devices = if count == 1 { "device" } else { "devices" };
        format!("{count} {devices} that left Git decommissioned by {by}")
    } else {
        store.allow(commit.clone(), by.clone(), now).await?;
        let label = &source.label;
        format!("the removals of {label} were allowed by {by}")
    };
    note(&admin, None, "Allowed", message).await;
    admin.0.wake.notify_one();
    Ok(Json(Allowed { commit }))
}

/// Decommissions a device: it has nothing to run from the next release on.
pub(super) async fn decommission(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Decommission>, JsonRejection>,
) -> Result<Json<Decided>, Refused> {
    let Json(Decommission { device }) = body?;
    let store = &admin.0.store;
    let known = store.device(&device).await?;
    let Some(known) = known.filter(|known| known.device.revoked_at.is_none()) else {
        let message = format!("no device {device} has joined");
        return Err(Refused::not_found(message));
    };
    let described = admin.0.index.described();
    if described.get(&device).is_some_and(|known| known.in_git) {
        return Err(Refused::new(
            StatusCode::CONFLICT,
            code::STILL_IN_GIT,
            format!("{device} has an EdgeDevice in Git"),
        ));
    }
    let (key, now) = (known.device.key, Timestamp::now());
    store
        .decommission(vec![(device.clone(), key)], peer.0.clone(), now)
        .await?;
    let message = format!(
        "decommissioned by {}; it runs nothing from the next release on",
        peer.0
    );
    note(&admin, Some(&device), "Decommissioned", message).await;
    Ok(Json(Decided::new(device, key)))
}

async fn note(admin: &Admin, device: Option<&DeviceName>, reason: &str, message: String) {
    let event = FleetEvent {
        id: 0,
        time: Timestamp::now(),
        device: device.cloned(),
        reason: reason.to_owned(),
        message,
        warning: false,
    };
    // the decision holds even if its event cannot be saved
    if let Err(error) = admin.0.store.add_event(event).await {
        tracing::error!(%error, "an event could not be saved");
    }
}
