//! Reports: bounded and sanitised before anything of them is stored.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use flotta_bundle::wire::{Acknowledged, MAX_REPORT_BYTES, Report};
use flotta_bundle::{Problem, manifest, name};
use jiff::Timestamp;

use super::answer::{Refused, read_json};
use super::identity::{From, Peer};
use super::{Edge, proof};
use crate::store::StoreError;
use crate::text::plain;

/// Most workloads: a manifest has no more units.
const MAX_WORKLOADS: usize = flotta_bundle::manifest::MAX_UNITS;
/// Most problems, and most events in one report.
const MAX_LINES: usize = 1000;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 1024;
/// Longest text about the hardware, in characters.
const MAX_TEXT: usize = 128;
/// Event ids are signed 64-bit numbers in the store.
pub(super) const MAX_ID: u64 = i64::MAX as u64;

pub(super) async fn put(
    State(edge): State<Edge>,
    From(caller): From,
    peer: Peer,
    body: Body,
) -> Result<Json<Acknowledged>, Refused> {
    let address = caller.address;
    let slot = peer.member.allowance().body().await;
    let report = read_json(body, MAX_REPORT_BYTES, edge.0.limits.body);
    let mut report = bounded(report.await?)?;
    // a proof is checked here, and not stored with the report
    let accepted = report.accepted.take();
    // Completed even if the device hangs up: the report counts as a body in memory until it is on disk.
    let kept = tokio::spawn(async move {
        let _until_kept = slot;
        let now = Timestamp::now();
        if let Some(accepted) = &accepted {
            proof::take(&edge, &peer, accepted, now).await?;
        }
        let prove = proof::is_ahead(&edge, &report);
        let Peer { device, member, .. } = &peer;
        let store = &edge.0.store;
        let kept = store.put_report(device, member, report, address, now);
        Ok::<_, StoreError>(Acknowledged {
            prove,
            ..kept.await?
        })
    });
    let kept = kept.await.map_err(|_| StoreError::Closed)?;
    Ok(Json(kept?))
}

/// Refuses what no agent sends, shortens what is too long, and removes characters that could forge a line in a terminal or
/// log.
fn bounded(mut report: Report) -> Result<Report, Refused> {
    for (what, count, max) in [
        ("workloads", report.workloads.len(), MAX_WORKLOADS),
        ("problems", report.problems.len(), MAX_LINES),
        ("events", report.events.len(), MAX_LINES),
    ] {
        if count > max {
            return Err(Refused::too_large(format!("{count} {what}, at most {max}")));
        }
    }
    for workload in &report.workloads {
        name::check_subdomain(&workload.name)
            .map_err(|error| Refused::bad_request(error.to_string()))?;
    }
    let too_high = |number: u64| number > MAX_ID;
    let releases = [
        report.release,
        report.applied.map(|applied| applied.release),
    ];
    if report.events.iter().any(|event| too_high(event.id))
        || releases.into_iter().flatten().any(too_high)
    {
        return Err(Refused::bad_request("a number that is too large"));
    }
    let text = |text: &mut String| *text = plain(text, MAX_TEXT);
    let problem = |problem: &mut Problem| {
        problem.code = plain(&problem.code, MAX_TEXT);
        problem.subject = plain(&problem.subject, MAX_MESSAGE);
        problem.message = plain(&problem.message, MAX_MESSAGE);
        problem.detail = plain(&problem.detail, MAX_MESSAGE);
        problem.help = plain(&problem.help, MAX_MESSAGE);
    };
    text(&mut report.agent);
    text(&mut report.boot);
    text(&mut report.log);
    report.server = plain(&report.server, manifest::MAX_SERVER_BYTES);
    text(&mut report.hardware.model);
    text(&mut report.hardware.serial);
    text(&mut report.hardware.architecture);
    text(&mut report.hardware.os);
    report.problems.iter_mut().for_each(problem);
    for workload in &mut report.workloads {
        workload.problem.iter_mut().for_each(problem);
    }
    for event in &mut report.events {
        text(&mut event.reason);
        event.message = plain(&event.message, MAX_MESSAGE);
    }
    Ok(report)
}
