//! What a device holds is the proof of what this fleet signed: a server that was restored from a backup learns from it how far
//! the fleet was. A number alone is worth nothing: only what the fleet's own keys signed counts.

use std::time::Instant;

use flotta_bundle::code;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release};
use flotta_bundle::wire::Report;
use jiff::Timestamp;

use super::Edge;
use super::identity::Peer;
use super::report::MAX_ID;
use crate::store::{FleetEvent, Proof, StoreError};
use crate::text::plain;

/// What it is told of as.
const NO_PROOF: &str = "no proof";
/// Longest reason in the log, in characters.
const MAX_WHY: usize = 256;

/// Whether the device has accepted a release that this server does not know of: a later one, or another one of the same number.
pub(super) fn is_ahead(edge: &Edge, report: &Report) -> bool {
    let Some(accepted) = report.release else {
        return false;
    };
    let proven = edge.0.store.proofs().borrow().as_ref().map(|p| p.sequence);
    if proven.is_some_and(|proven| proven >= accepted) {
        // the release above it is on its way
        return false;
    }
    let current = edge
        .0
        .index
        .current()
        .map_or(0, |current| current.sequence());
    let refuses_ours = report
        .problems
        .iter()
        .any(|problem| problem.code == code::EQUIVOCATION.id);
    accepted > current || (accepted == current && refuses_ours)
}

/// Keeps what the device proves. One that proves nothing is refused nothing either: it is a device like any other, and is told
/// of in the log.
pub(super) async fn take(
    edge: &Edge,
    peer: &Peer,
    accepted: &Envelope,
    now: Timestamp,
) -> Result<(), StoreError> {
    let release = match verify(edge, accepted) {
        Ok(release) => release,
        Err(why) => {
            let lines = || peer.member.allowance().lines().admit();
            let told = &edge.0.told;
            if let Some(times) = told.tell(&peer.device, NO_PROOF, Instant::now(), lines) {
                let why = plain(&why, MAX_WHY);
                tracing::warn!(device = %peer.device, why, times, "a device has no proof of the release that it reports");
            }
            return Ok(());
        }
    };
    let sequence = release.sequence;
    let is_ours = edge.0.index.current().is_some_and(|current| {
        current.sequence() > sequence
            || (current.sequence() == sequence && current.root() == release.tree.root)
    });
    if is_ours {
        return Ok(());
    }
    let proof = Proof {
        sequence,
        device: peer.device.clone(),
        at: now,
    };
    if edge.0.store.keep_proof(proof).await? {
        let mut message = format!(
            "{} has accepted release {sequence} of commit {}, which this server does not know of: its data is from before it. \
             The next release is above it",
            peer.device,
            release.revision.short(),
        );
        // copied into place by hand
        if !edge.0.store.is_restored().await? {
            message += ". Who was revoked since is served again: flotta revoke NAME";
        }
        tracing::warn!(device = %peer.device, sequence, "devices have accepted a release that this server does not know of");
        let event = FleetEvent {
            id: 0,
            time: now,
            device: None,
            reason: "Behind".to_owned(),
            message,
            warning: true,
        };
        edge.0.store.add_event(event).await?;
    }
    Ok(())
}

/// A release by the keys in force of this fleet.
fn verify(edge: &Edge, accepted: &Envelope) -> Result<Release, String> {
    let fleet = &edge.0.fleet;
    let role = &fleet.trust_root().release;
    let payload = accepted
        .verify(release::PAYLOAD_TYPE, &role.keys, role.threshold)
        .map_err(|error| error.to_string())?;
    let release = Release::parse(&payload)?;
    if release.fleet != *fleet.name() {
        return Err(format!("it is of fleet {}", release.fleet));
    }
    if release.sequence >= MAX_ID {
        return Err("there is no number above its own".to_owned());
    }
    Ok(release)
}
