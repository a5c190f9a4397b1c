//! The routes of the edge API.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use flotta_bundle::wire::{
    Enrolment, EnrolmentRequest, MAX_ENROLMENT_BYTES, Renewal, RenewalRequest,
};
use flotta_bundle::{Digest, code};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;

use super::answer::{Refused, no_method, no_route, read_json};
use super::identity::{From, Peer};
use super::{Edge, blobs, desired, gate, report};

pub(super) fn router(edge: Edge) -> Router {
    Router::new()
        .route("/v1/enrolments", post(enrol))
        .route("/v1/enrolments/{key}", get(enrolment))
        .route("/v1/certificates", post(renew))
        .route("/v1/desired", get(desired::serve))
        .route("/v1/blobs/{digest}", get(blob))
        .route("/v1/report", put(report::put))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(edge.clone(), gate::pass))
        .with_state(edge)
}

async fn enrol(
    State(edge): State<Edge>,
    From(caller): From,
    body: Body,
) -> Result<Json<Enrolment>, Refused> {
    let request = read_json(body, MAX_ENROLMENT_BYTES, edge.0.limits.body);
    let request: EnrolmentRequest = request.await?;
    let now = Timestamp::now();
    // a token is for one device, and a person made each of them: a pallet of machines need not queue; nor do devices that
    // have joined before, of which there are as many as in the fleet
    let invited = caller.certified().is_some()
        || match &request.token {
            Some(token) => edge.0.store.is_open(token, now).await?,
            None => false,
        };
    let rate = if invited {
        &edge.0.invited
    } else {
        &edge.0.asks
    };
    if !rate.admits() {
        return Err(Refused::too_many());
    }
    let certified = caller.certified();
    let enrolled = (edge.0.enroller).enrol(request, certified, caller.address, now);
    // the enroller logs what it refuses
    let enrolled = enrolled.await.map_err(|error| Refused::from(error).noted());
    Ok(Json(enrolled?))
}

async fn enrolment(
    State(edge): State<Edge>,
    Path(key): Path<String>,
) -> Result<Json<Enrolment>, Refused> {
    if !edge.0.looks.admits() {
        return Err(Refused::too_many());
    }
    let key = HEXLOWER
        .decode(key.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Refused::bad_request("a key is 64 lower-case hex digits"))?;
    let state = edge.0.enroller.state(Digest::from_bytes(key)).await?;
    state.map(Json).ok_or_else(Refused::not_found)
}

async fn renew(State(edge): State<Edge>, peer: Peer, body: Body) -> Result<Json<Renewal>, Refused> {
    let _slot = peer.member.allowance().body().await;
    let request = read_json(body, MAX_ENROLMENT_BYTES, edge.0.limits.body);
    let request: RenewalRequest = request.await?;
    let enroller = &edge.0.enroller;
    let renewed = enroller.renew(&peer.device, &peer.member, &request.csr, Timestamp::now());
    Ok(Json(renewed.await?))
}

/// A blob, whole or from an offset. It is named by its digest, so it may be cached for ever.
async fn blob(
    State(edge): State<Edge>,
    peer: Peer,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let digest: Digest = digest
        .parse()
        .map_err(|_| Refused::bad_request("a blob is named sha256: and 64 hex digits"))?;
    let offset = offset(&headers);
    let failed = |error: std::io::Error| Refused::failed(code::DEPOT, &error);
    // the same answer for a missing blob and for another device's, so that it reveals nothing
    let not_yours = || {
        let message = format!("{digest} is not part of the bundle of {}", peer.device);
        Refused::new(StatusCode::FORBIDDEN, code::NOT_YOURS, message)
    };
    // before anything is read into memory
    let own = peer.member.allowance().download().await;
    let slots = (own, edge.0.downloads.clone().acquire_owned().await);
    let depot = edge.0.blobs.as_ref();
    let may_read = edge.0.index.may_read(&peer.device, &digest, depot);
    if !may_read.await.map_err(failed)? {
        return Err(not_yours());
    }
    let Some(blob) = depot.get(digest, offset).await.map_err(failed)? else {
        return Err(not_yours());
    };
    let size = blob.size;
    if offset > 0 && offset >= size {
        return Ok(past_the_end(size));
    }
    let body = blobs::sent(blob, offset, edge.0.limits.body, slots);
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size - offset));
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let for_ever = HeaderValue::from_static("private, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, for_ever);
    if offset > 0 {
        let range = format!("bytes {offset}-{}/{size}", size - 1);
        if let Ok(range) = range.parse() {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn past_the_end(size: u64) -> Response {
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let refused = Refused::new(
        status,
        code::BAD_REQUEST,
        format!("the blob ends at {size}"),
    );
    ([(CONTENT_RANGE, format!("bytes */{size}"))], refused).into_response()
}

/// Parses `Range: bytes=N-`, the form that resuming needs. Any other range is ignored, which RFC 9110, 14.2 allows, and gives
/// the whole blob.
fn offset(headers: &HeaderMap) -> u64 {
    let begin = |range: &str| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    };
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    range.and_then(begin).unwrap_or(0)
}
