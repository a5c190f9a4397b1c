//! A connection to the server, and its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::wire::{
    Acknowledged, Enrolment, EnrolmentRequest, Failure, MAX_ENROLMENT_BYTES, MAX_OFFER_BYTES,
    Offer, Renewal, RenewalRequest, Report,
};
use flotta_bundle::{Digest, code, manifest};
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{BoxError, PullError};

/// Longest wait for an answer that the server does not hold.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest pause within a body.
const SILENCE: Duration = Duration::from_secs(60);
/// Fewest bytes of a body in [`SILENCE`]: an eighth of what GPRS carries, for each of the parallel downloads.
pub(crate) const MIN_BYTES: u64 = 1 << 10;
/// How long the server may hold a poll. Well below an hour, so that a device asks again after a server has lost track of it.
const HOLD: Duration = Duration::from_secs(300);
/// How long a failed request waits for the reason why its connection ended.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that is honoured: a mistake on the server must not silence a fleet for a day.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
pub(super) const JSON: &str = "application/json";

/// An offer with its tag, which makes the server answer only when there is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The offer, not verified yet.
    pub offer: Offer,
    /// The `ETag` of the offer.
    pub tag: Option<String>,
}

/// A connection to the server. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Session {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) authority: Arc<str>,
    /// The certificates that the server showed.
    pub(super) peer: Arc<Vec<CertificateDer<'static>>>,
    /// Why the connection ended; it has ended when the sender is gone.
    pub(super) ended: watch::Receiver<Option<String>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.authority).finish()
    }
}

impl Session {
    /// Waits until the connection has ended, and says why.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        // an error is sent before the sender is dropped; without one, the drop itself is the signal
        let _ = ended.changed().await;
        let why = ended.borrow().clone();
        why.unwrap_or_else(|| "it was closed".to_owned())
    }

    /// `POST /v1/enrolments`.
    pub async fn enrol(&self, request: &EnrolmentRequest) -> Result<Enrolment, PullError> {
        self.send(Method::POST, "/v1/enrolments", request).await
    }

    /// `GET /v1/enrolments/{key}`; none when the server knows no such request.
    pub async fn enrolment(&self, key: &Digest) -> Result<Option<Enrolment>, PullError> {
        let path = format!("/v1/enrolments/{}", key.hex());
        let response = self.call(Method::GET, &path, HeaderMap::new(), Bytes::new(), ANSWER);
        match self.success(response.await?).await {
            Ok(response) => Ok(Some(self.json(response, MAX_ENROLMENT_BYTES).await?)),
            Err(PullError::Refused { problem, .. }) if problem.is(code::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `POST /v1/certificates`.
    pub async fn renew(&self, csr: String) -> Result<Renewal, PullError> {
        self.send(Method::POST, "/v1/certificates", &RenewalRequest { csr })
            .await
    }

    /// `PUT /v1/report`.
    pub async fn report(&self, report: &Report) -> Result<Acknowledged, PullError> {
        self.send(Method::PUT, "/v1/report", report).await
    }

    /// `GET /v1/desired`; none when the offer still has this `tag`. With `hold` the server waits for a while for a new one.
    pub async fn desired(
        &self,
        root: u32,
        tag: Option<&str>,
        hold: bool,
    ) -> Result<Option<Desired>, PullError> {
        let mut headers = HeaderMap::new();
        if let Some(tag) = tag.and_then(|tag| tag.parse().ok()) {
            headers.insert(header::IF_NONE_MATCH, tag);
            if hold && let Ok(wait) = format!("wait={}", HOLD.as_secs()).parse() {
                headers.insert("prefer", wait);
            }
        }
        let path = format!("/v1/desired?root={root}&schema={}", manifest::SCHEMA);
        let response = self
            .call(Method::GET, &path, headers, Bytes::new(), HOLD + ANSWER)
            .await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let response = self.success(response).await?;
        let tag = response
            .headers()
            .get(header::ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_owned);
        let offer = self.json(response, MAX_OFFER_BYTES).await?;
        Ok(Some(Desired { offer, tag }))
    }

    /// `GET /v1/blobs/{digest}` from `offset` on, for a blob of at most `max` bytes.
    pub async fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        max: u64,
    ) -> Result<Download, PullError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = format!("bytes={offset}-").parse()
        {
            headers.insert(header::RANGE, range);
        }
        let path = format!("/v1/blobs/{digest}");
        let response = self.call(Method::GET, &path, headers, Bytes::new(), ANSWER);
        let response = self.success(response.await?).await?;
        let from = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(header::CONTENT_RANGE);
                let start = range
                    .and_then(|range| range.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'))
                    .and_then(|(start, _)| start.parse().ok());
                if start != Some(offset) {
                    return Err(
                        self.not_flotta("it sent another range of a blob than was requested")
                    );
                }
                offset
            }
            // the server does not support ranges, or none was needed
            _ => 0,
        };
        Ok(Download {
            from,
            left: max.saturating_sub(from),
            max,
            body: response.into_body(),
            authority: self.authority.clone(),
            look_at: Instant::now() + SILENCE,
            came: 0,
        })
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, PullError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| PullError::Broken(self.authority.to_string(), error.into()))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
        let response = self
            .call(method, path, headers, body.into(), ANSWER)
            .await?;
        let response = self.success(response).await?;
        self.json(response, MAX_OFFER_BYTES).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response<Incoming>, PullError> {
        let broken = |error: BoxError| PullError::Broken(self.authority.to_string(), error);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .body(Full::new(body))
            .map_err(|error| broken(error.into()))?;
        *request.headers_mut() = headers;
        let mut sender = self.sender.clone();
        let answer = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = match timeout(limit, answer).await {
            Ok(Ok(response)) => response,
            // the connection's own error says more than the request's, for example a TLS alert
            Ok(Err(error)) => {
                let why = timeout(LAST_WORD, self.ended()).await;
                return Err(broken(why.map_or_else(|_| error.into(), Into::into)));
            }
            Err(_) => return Err(PullError::Silent(self.authority.to_string(), limit)),
        };
        if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
            let to = text(response.headers(), &header::LOCATION);
            return Err(self.not_flotta(&format!("it redirects to {to}")));
        }
        match text(response.headers(), &header::CONTENT_ENCODING) {
            "" | "identity" => {}
            encoding => return Err(self.not_flotta(&format!("it sends {encoding} encoding"))),
        }
        Ok(response)
    }

    /// Returns the response if it is a success, else the server's error.
    async fn success(&self, response: Response<Incoming>) -> Result<Response<Incoming>, PullError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = text(response.headers(), &header::RETRY_AFTER)
            .parse()
            .ok()
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let failure: Result<Failure, _> = self.json(response, MAX_ENROLMENT_BYTES).await;
        match failure {
            Ok(failure) => Err(PullError::Refused {
                status,
                problem: Box::new(failure.error),
                retry_after,
            }),
            Err(PullError::NotFlotta(at, why)) => {
                Err(PullError::NotFlotta(at, format!("status {status}, {why}")))
            }
            Err(error) => Err(error),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
        max: usize,
    ) -> Result<T, PullError> {
        let kind = text(response.headers(), &header::CONTENT_TYPE);
        if kind.split(';').next().map(str::trim) != Some(JSON) {
            let kind = if kind.is_empty() {
                "no content type"
            } else {
                kind
            };
            return Err(self.not_flotta(&format!("it sends {kind}, not JSON")));
        }
        let body = Limited::new(response.into_body(), max).collect();
        let body = timeout(ANSWER, body)
            .await
            .map_err(|_| PullError::Slow(self.authority.to_string(), max as u64, ANSWER))?
            .map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    PullError::TooLong(self.authority.to_string(), max as u64)
                } else {
                    PullError::Broken(self.authority.to_string(), error)
                }
            })?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| self.not_flotta(&format!("its answer cannot be read: {error}")))
    }

    fn not_flotta(&self, why: &str) -> PullError {
        let why = why.chars().filter(|c| !c.is_control()).take(200).collect();
        PullError::NotFlotta(self.authority.to_string(), why)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Longest manifest, the only blob whose size is not known beforehand.
pub const MAX_MANIFEST: u64 = manifest::MAX_BYTES as u64;

/// The download of a blob.
#[derive(Debug)]
pub struct Download {
    /// The offset at which the server started: the requested one, or 0.
    pub from: u64,
    left: u64,
    max: u64,
    body: Incoming,
    authority: Arc<str>,
    /// When the speed is checked next, and the bytes since the last check.
    look_at: Instant,
    came: u64,
}

impl Download {
    /// Returns the next chunk; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            let Ok(frame) = timeout_at(self.look_at, self.body.frame()).await else {
                self.look()?;
                continue;
            };
            // a body that never pauses must not be too slow either
            if Instant::now() >= self.look_at {
                self.look()?;
            }
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame
                .map_err(|error| PullError::Broken(self.authority.to_string(), error.into()))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.left = self
                .left
                .checked_sub(data.len() as u64)
                .ok_or_else(|| PullError::TooLong(self.authority.to_string(), self.max))?;
            self.came += data.len() as u64;
            return Ok(Some(data));
        }
    }

    /// Fails a download that has stalled, or is as slow as if it had.
    fn look(&mut self) -> Result<(), PullError> {
        match std::mem::take(&mut self.came) {
            0 => Err(PullError::Silent(self.authority.to_string(), SILENCE)),
            few if few < MIN_BYTES => Err(PullError::Slow(
                self.authority.to_string(),
                MIN_BYTES,
                SILENCE,
            )),
            _ => {
                self.look_at = Instant::now() + SILENCE;
                Ok(())
            }
        }
    }
}
