//! Proofs of releases: a server that was restored from a backup learns from its devices which releases the fleet has signed
//! since. A sequence number alone counts for nothing: only a release that the fleet's own keys signed does.

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

/// The key under which the log counts these refusals.
const NO_PROOF: &str = "no proof";
/// Longest reason in the log, in characters.
const MAX_WHY: usize = 256;

/// Whether the device has accepted a release that this server does not know: a later one, or another one with the same
/// sequence.
pub(super) fn is_ahead(edge: &Edge, report: &Report) -> bool {
    let Some(accepted) = report.release else {
        return false;
    };
    let proven = edge.0.store.proofs().borrow().as_ref().map(|p| p.sequence);
    if proven.is_some_and(|proven| proven >= accepted) {
        // a release above it is already being made
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

/// Saves a device's proof. A device with an invalid proof is served like any other, and logged.
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
            let refusals = &edge.0.refusals;
            if let Some(times) = refusals.admit(&peer.device, NO_PROOF, Instant::now(), lines) {
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
        // the data was copied into place by hand
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

/// Verifies a release with the current keys of this fleet.
fn verify(edge: &Edge, accepted: &Envelope) -> Result<Release, String> {
    let fleet = &edge.0.fleet;
    let role = &fleet.trust_root().release;
    let payload = accepted
        .verify(release::PAYLOAD_TYPE, &role.keys, role.threshold)
        .map_err(|error| error.to_string())?;
    let release = Release::parse(&payload)?;
    if release.fleet != *fleet.name() {
        return Err(format!("it belongs to fleet {}", release.fleet));
    }
    if release.sequence >= MAX_ID {
        return Err("there is no sequence above its own".to_owned());
    }
    Ok(release)
}
