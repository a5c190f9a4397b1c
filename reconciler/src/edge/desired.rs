//! The long poll for the desired state.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use flotta_bundle::code;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::answer::Refused;
use super::identity::Peer;
use super::{Edge, limits};
use crate::index::{Offered, Readable};

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The version of the trust root that the device has.
    #[serde(default)]
    root: u32,
    /// The newest manifest schema that its agent reads.
    #[serde(default = "first")]
    schema: u32,
}

fn first() -> u32 {
    1
}

/// `GET /v1/desired`. It is held while `If-None-Match` matches the offer, for as long as `Prefer: wait=` says. Only another
/// manifest wakes it: a release that changes nothing for a device is sent at the end of the hold, so that a commit for one
/// shop does not wake a hundred thousand devices.
pub(super) async fn serve(
    State(edge): State<Edge>,
    peer: Peer,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(Asked { root, schema }) =
        query.map_err(|error| Refused::bad_request(error.body_text()))?;
    let index = &edge.0.index;
    let known = headers
        .get(IF_NONE_MATCH)
        .map(|tag| tag.as_bytes().to_vec());
    let limit = if known.is_some() {
        wait(&headers).min(limits::HOLD)
    } else {
        limits::HOLD_FOR_FIRST
    };
    let deadline = Instant::now() + limit;
    // Subscribe before the first look, so that no change is missed in between. A poll that does not wait needs neither.
    let mut waits =
        (!limit.is_zero()).then(|| (index.watch(&peer.device), edge.0.stopping.subscribe()));
    loop {
        let readable = index
            .readable(&peer.device, schema, &*edge.0.blobs)
            .await
            .map_err(|error| Refused::failed(code::DEPOT, &error))?;
        let offered = match readable {
            Readable::Offered(offered) => Some(offered),
            Readable::Needs(_) | Readable::Unnamed => None,
        };
        let tag = offered.map(tag);
        let known_tag = known.as_deref() == tag.as_ref().map(String::as_bytes);
        // an offer has a proof, which is costly: it is made only when there is something new
        let is_new = !(known_tag && index.newest_root() <= root);
        if let Some(offered) = offered.filter(|_| is_new) {
            let Some(offer) = index.offer(&peer.device, offered, root) else {
                // another release came in between
                continue;
            };
            return Ok((headers_of(self::tag(offered)), Json(offer)).into_response());
        }
        let Some((watch, stopping)) = &mut waits else {
            return match (readable, tag) {
                (_, Some(tag)) => Ok((StatusCode::NOT_MODIFIED, headers_of(tag)).into_response()),
                (Readable::Needs(needs), None) => Err(too_old(&peer, schema, needs)),
                (_, None) => {
                    let message = format!("no release names {} yet", peer.device);
                    Err(Refused::new(
                        StatusCode::NOT_FOUND,
                        code::NO_RELEASE,
                        message,
                    ))
                }
            };
        };
        let is_over = tokio::select! {
            woken = timeout_at(deadline, watch.changed()) => woken.is_err(),
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        if is_over {
            waits = None;
        }
        peer.check(&edge, Timestamp::now())?;
    }
}

fn too_old(peer: &Peer, reads: u32, needs: u32) -> Refused {
    let device = &peer.device;
    let message = format!(
        "the manifest of {device} has schema {needs}, its agent reads schemas up to {reads}: it keeps what it has"
    );
    Refused::new(StatusCode::CONFLICT, code::AGENT_TOO_OLD, message)
}

fn headers_of(tag: String) -> [(HeaderName, String); 2] {
    [(ETAG, tag), (CACHE_CONTROL, "no-store".to_owned())]
}

fn tag(offered: Offered) -> String {
    format!("\"{}-{}\"", offered.sequence, offered.manifest.hex())
}

/// `Prefer: wait=SECONDS` (RFC 7240); not held without it.
fn wait(headers: &HeaderMap) -> Duration {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs)
}
