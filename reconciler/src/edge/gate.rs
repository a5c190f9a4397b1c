//! Around every route: how often one may ask, and a log line about who was refused.

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
use super::answer::{LogCode, Refused, Trouble};
use super::identity::{Caller, Who};

/// Lets a request through to its route, unless its device asks too often.
pub(super) async fn pass(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        // every connection puts it there
        return Refused::not_found().into_response();
    };
    // HTTP/1.1 has no other way to go on than to read a body to its end
    let has_body = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
    let is_get = request.method() == Method::GET;
    let mut response = if caller.admits_request() {
        next.run(request).await
    } else {
        // An answer at once would be an invitation to ask again at once. Requests of a connection at a time are few, so
        // one who does not wait for answers gets no further either.
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
    if let Some(Trouble { code, message }) = response.extensions().get() {
        // every device meets it: a line each would be the log's end
        let failures = edge.0.store.failures();
        failures.failed(code.title, message, Timestamp::now());
    }
    if let Some(&LogCode(code)) = response.extensions().get()
        && code != code::NO_RELEASE.id
        && let Some(skipped) = caller.is_news(&edge, code)
    {
        let status = response.status().as_u16();
        // nothing of the request: its path and headers are in the caller's words
        tracing::warn!(device = caller.name(), from = %caller.address, status, code, skipped, "refused a request");
    }
    response
}

impl Caller {
    /// Whether the log is told that it was refused: then, how often it was not.
    fn is_news(&self, edge: &Edge, code: &'static str) -> Option<u64> {
        match self.turned_away() {
            Some(device) => {
                let lines = || self.lines(edge).admit();
                edge.0.told.tell(device, code, Instant::now(), lines)
            }
            None => self.lines(edge).admit(),
        }
    }

    fn admits_request(&self) -> bool {
        match &self.who {
            Who::Device(peer) => peer.member.allowance().admits_request(),
            _ => self.requests.admits(),
        }
    }
}
