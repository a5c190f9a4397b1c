//! What a device should have: the long poll.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use flotta_bundle::code;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::answer::Refused;
use super::identity::Peer;
use super::{Edge, limits};
use crate::index::Offered;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The version of the trust root that the device has.
    #[serde(default)]
    root: u32,
}

/// `GET /v1/desired`. Held while `If-None-Match` names what is offered, as long as `Prefer: wait=` says. Only another
/// manifest wakes it: a release that changes nothing for a device is told at the end of the hold, so that a commit for one
/// shop is not answered by a hundred thousand.
pub(super) async fn serve(
    State(edge): State<Edge>,
    peer: Peer,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(Asked { root }) = query.map_err(|error| Refused::bad_request(error.body_text()))?;
    let index = &edge.0.index;
    let known = headers
        .get(IF_NONE_MATCH)
        .map(|tag| tag.as_bytes().to_vec());
    let hold = if known.is_some() {
        wait(&headers).min(limits::HOLD)
    } else {
        limits::HOLD_FOR_FIRST
    };
    let deadline = Instant::now() + hold;
    let mut stopping = edge.0.stopping.subscribe();
    let mut watch = index.watch(&peer.device);
    let mut is_over = false;
    loop {
        if let Some((offered, offer)) = index.offer(&peer.device, root) {
            let tag = tag(offered);
            let headers = [(ETAG, tag.clone()), (CACHE_CONTROL, "no-store".to_owned())];
            if known.as_deref() != Some(tag.as_bytes()) || !offer.roots.is_empty() {
                return Ok((headers, Json(offer)).into_response());
            }
            if is_over {
                return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
            }
        } else if is_over {
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                code::NO_RELEASE,
                format!("no release names {} yet", peer.device),
            ));
        }
        is_over = tokio::select! {
            woken = timeout_at(deadline, watch.changed()) => woken.is_err(),
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        peer.check(Timestamp::now())?;
    }
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
