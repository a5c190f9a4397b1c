//! Middleware of every route: rate limits, and log lines about refusals.

use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flotta_bundle::code;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Version};
use jiff::Timestamp;

use super::Edge;
use super::answer::{LogCode, Refused, ServerFailure};
use super::identity::{Caller, ClientIdentity};

/// Passes a request on to its route, unless its device asks too often.
pub(super) async fn pass(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        // every connection adds it
        return Refused::not_found().into_response();
    };
    // an HTTP/1.1 connection can only be reused after the whole body was read
    let has_body = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
    let is_get = request.method() == Method::GET;
    let mut response = if caller.admits_request() {
        next.run(request).await
    } else {
        // Answering at once would invite the next request at once. The number of parallel requests of a connection is
        // limited, so a client that does not wait for answers gets no further either.
        drop(request);
        let held = caller.hold();
        tokio::time::sleep(edge.0.limits.penalty).await;
        held.said();
        Refused::too_many().into_response()
    };
    if has_body && (is_get || !response.status().is_success()) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if let Some(ServerFailure { code, message }) = response.extensions().get() {
        // every device hits this failure, so one line each would flood the log
        let failures = edge.0.store.failures();
        failures.failed(code.title, message, Timestamp::now());
    }
    if let Some(&LogCode(code)) = response.extensions().get()
        && code != code::NO_RELEASE.id
        && let Some(skipped) = caller.is_news(&edge, code)
    {
        let status = response.status().as_u16();
        // without the path and headers, because the caller chooses their text
        tracing::warn!(device = caller.name(), from = %caller.address, status, code, skipped, "refused a request");
    }
    response
}

impl Caller {
    /// Whether to log a refusal; if so, how many were skipped since the last one.
    fn is_news(&self, edge: &Edge, code: &'static str) -> Option<u64> {
        match self.turned_away() {
            Some(device) => {
                let lines = || self.lines(edge).admit();
                edge.0.refusals.admit(device, code, Instant::now(), lines)
            }
            None => self.lines(edge).admit(),
        }
    }

    fn admits_request(&self) -> bool {
        match &self.who {
            ClientIdentity::Device(peer) => peer.member.allowance().admits_request(),
            _ => self.requests.admits(),
        }
    }
}
