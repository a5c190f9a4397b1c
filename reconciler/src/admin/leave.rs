//! How the server is, and what people let go: held commits, devices that left Git.

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
use crate::standing::Warning;
use crate::store::FleetEvent;

/// How long it is shown that the server was behind its fleet: a day's work after a restore.
const SHOWN: SignedDuration = SignedDuration::from_hours(24);
/// Fewest characters of a commit that name it: as few as Git itself takes.
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
        source: admin.0.standing.source(),
        in_force,
        warnings: warnings(&admin, Timestamp::now()).await?,
    }))
}

/// What people should know whenever they look at the fleet.
pub(super) async fn warnings(admin: &Admin, now: Timestamp) -> Result<Vec<Warning>, Refused> {
    let in_force = admin.0.index.current().map(|current| current.sequence());
    let mut warnings = admin.0.standing.warnings();
    warnings.extend(behind(admin, in_force, now));
    warnings.extend(coming_back(admin).await?);
    Ok(warnings)
}

/// That devices were ahead of this server: as long as they are, and for a day.
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

/// That devices wait which have a certificate of this fleet.
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

/// A person says that the server's clock is right: what was put off is signed.
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

/// Lets through the commit that is held; or the one in force, for the devices that left Git with it.
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
    let source = admin.0.standing.source();
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
        // what it does is done: those go that are shown as having left, and no one who leaves later
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
        format!("{label} may take away what it does, allowed by {by}")
    };
    note(&admin, None, "Allowed", message).await;
    admin.0.wake.notify_one();
    Ok(Json(Allowed { commit }))
}

/// A device runs nothing from the next release on.
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
    // what was decided stands, whether it can be noted or not
    if let Err(error) = admin.0.store.add_event(event).await {
        tracing::error!(%error, "an event is lost");
    }
}
