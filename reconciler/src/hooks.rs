//! `POST /hooks/git`, on a listener of its own: a forge reports a push, and the source is polled at once. Nothing in the body
//! is used: a forged hook could cause a poll and no more, and even that takes the secret.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use data_encoding::{BASE64, HEXLOWER};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use ring::hmac;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::failures::Failures;

#[cfg(test)]
mod tests;

/// Longest body. GitHub sends up to 25 MB for the largest pushes; those are left to the next poll.
const MAX_BODY: usize = 1 << 20;
/// How old a timestamp may be, or how far ahead: what Standard Webhooks' own libraries allow.
const FRESH_SECONDS: i64 = 300;
/// Shortest secret: 16 characters cannot be guessed.
const MIN_SECRET: usize = 16;
/// Hooks a second, and the burst: a forge sends one for each push.
const PER_SECOND: std::num::NonZeroU32 = std::num::NonZeroU32::new(10).expect("10 is not 0");

/// Names of failures: hooks by a client without the secret, and connections that the system cannot accept.
const REFUSED: &str = "checking a hook";
const REFUSAL: &str = "its signature or token does not match the secret";
const ACCEPTED: &str = "accepting a hook's connection";

/// Parallel connections; others wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a connection may last, and how long to wait when the system cannot accept one.
const LIFE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// The secret shared with the forge.
pub struct Secret {
    plain: hmac::Key,
    /// The plain key's tag over the secret itself, to compare a token that is sent in clear.
    token: hmac::Tag,
    /// The key for Standard Webhooks, which write it as `whsec_` and base64; GitLab requires that.
    standard: hmac::Key,
}

/// A secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Read(String, #[source] std::io::Error),
    /// The secret is too short.
    #[error(
        "the secret is shorter than {MIN_SECRET} characters: make one with `openssl rand -hex 32`"
    )]
    Short,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads the secret from a file; surrounding white space is ignored.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SecretError::Read(path.display().to_string(), error))?;
        Self::new(text.trim())
    }

    /// Creates a secret from the text that the forge has.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        if text.len() < MIN_SECRET {
            return Err(SecretError::Short);
        }
        let plain = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let decoded = text
            .strip_prefix("whsec_")
            .and_then(|base64| BASE64.decode(base64.as_bytes()).ok());
        let standard = hmac::Key::new(
            hmac::HMAC_SHA256,
            decoded.as_deref().unwrap_or(text.as_bytes()),
        );
        let token = hmac::sign(&plain, text.as_bytes());
        Ok(Self {
            plain,
            token,
            standard,
        })
    }

    /// Whether the sender has the secret. All comparisons take constant time.
    ///
    /// - GitHub, Gitea, Forgejo: `X-Hub-Signature-256: sha256=HEX`, HMAC-SHA256 over the body
    /// - GitLab from 19.0, Standard Webhooks: `webhook-signature: v1,BASE64 …`, HMAC-SHA256 over `ID.TIMESTAMP.BODY`
    /// - GitLab: `X-Gitlab-Token`, the secret itself
    pub fn admits(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // the strongest method present decides: a token does not make up for a bad signature
        if let Some(signatures) = header("webhook-signature") {
            return header("webhook-id")
                .zip(header("webhook-timestamp"))
                .is_some_and(|(id, time)| self.standard(signatures, id, time, body, now));
        }
        if let Some(signature) = header("x-hub-signature-256") {
            return signature
                .strip_prefix("sha256=")
                .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
                .is_some_and(|tag| hmac::verify(&self.plain, body, &tag).is_ok());
        }
        header("x-gitlab-token").is_some_and(|token| {
            hmac::verify(&self.plain, token.as_bytes(), self.token.as_ref()).is_ok()
        })
    }

    fn standard(
        &self,
        signatures: &str,
        id: &str,
        time: &str,
        body: &[u8],
        now: Timestamp,
    ) -> bool {
        let fresh = time
            .parse::<i64>()
            .is_ok_and(|time| now.as_second().abs_diff(time) <= FRESH_SECONDS.unsigned_abs());
        if !fresh {
            return false;
        }
        let mut message = format!("{id}.{time}.").into_bytes();
        message.extend_from_slice(body);
        signatures
            .split(' ')
            .take(8)
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|base64| BASE64.decode(base64.as_bytes()).ok())
            .any(|tag| hmac::verify(&self.standard, &message, &tag).is_ok())
    }
}

struct Hooks {
    secret: Secret,
    wake: Arc<Notify>,
    limiter: DefaultDirectRateLimiter,
    failures: Failures,
}

/// The routes of the hook listener; `wake` is notified by every hook that is admitted.
pub fn router(secret: Secret, wake: Arc<Notify>, failures: Failures) -> Router {
    let limiter = RateLimiter::direct(Quota::per_second(PER_SECOND));
    Router::new()
        .route("/hooks/git", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Hooks {
            secret,
            wake,
            limiter,
            failures,
        }))
}

async fn receive(
    State(hooks): State<Arc<Hooks>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    if hooks.limiter.check().is_err() {
        return (StatusCode::TOO_MANY_REQUESTS, "too many hooks\n");
    }
    let now = Timestamp::now();
    if !hooks.secret.admits(&headers, &body, now) {
        // anyone can send a request, so a log line for each would let them flood the log
        hooks.failures.failed(REFUSED, REFUSAL, now);
        return (
            StatusCode::UNAUTHORIZED,
            "the signature or token does not match\n",
        );
    }
    hooks.failures.worked(REFUSED);
    hooks.wake.notify_one();
    (StatusCode::ACCEPTED, "the source is looked at now\n")
}

/// Serves the hooks until `stop` is done. The push of a hook that this cuts off is found by the first poll of the next start.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    failures: Failures,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            (stream, slot) = next(&listener, &slots, &failures) => {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    let served = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(LIFE)
                        .serve_connection(TokioIo::new(stream), service);
                    // a slow or broken connection does not matter
                    let _ = tokio::time::timeout(LIFE, served).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn next(
    listener: &tokio::net::TcpListener,
    slots: &Arc<Semaphore>,
    failures: &Failures,
) -> (tokio::net::TcpStream, Option<OwnedSemaphorePermit>) {
    // the semaphore is never closed
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failures.worked(ACCEPTED);
                return (stream, slot);
            }
            Err(error) => {
                failures.failed(ACCEPTED, &error.to_string(), Timestamp::now());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
