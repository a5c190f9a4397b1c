//! Podman by its REST API (libpod), on its Unix socket. Few calls, read tolerantly: what a newer Podman adds is ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{BackendError, Podman};

/// The oldest API that has Quadlet's Podman (4.4) behind it; newer ones answer it too.
const API: &str = "/v4.0.0/libpod";
/// Longest wait for an answer that needs no network.
const SHORT: Duration = Duration::from_secs(60);
/// Longest wait for a pull: an hour lets 1 GB through at 2.5 Mbit/s.
const PULL: Duration = Duration::from_secs(3600);
/// Longest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Podman's socket.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Id")]
    id: String,
}

/// A line of a pull's answer.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    error: Option<String>,
}

/// What Podman's check of its store finds damaged, and why.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Damage {
    #[serde(default)]
    layers: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    images: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    containers: Option<BTreeMap<String, Vec<String>>>,
}

impl Damage {
    /// What is damaged, but for layers that nothing needs; none when that is all.
    fn worse(&self) -> Option<&str> {
        let kinds = [&self.layers, &self.images, &self.containers];
        let reasons = kinds.into_iter().flatten().flatten();
        let mut reasons = reasons.flat_map(|(_, reasons)| reasons);
        let worse =
            reasons.find(|why| !why.ends_with("layer not referenced by any images or containers"));
        worse.map(String::as_str)
    }
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Socket {
    /// The socket at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        let failed = |error: &dyn std::fmt::Display| {
            BackendError(format!("Podman at {}: {error}", self.path.display()))
        };
        let asked = async {
            let stream = UnixStream::connect(&self.path)
                .await
                .map_err(|error| failed(&error))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| failed(&error))?;
            let connection = tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(format!("{API}{path}"))
                .header("host", "podman");
            let request = request
                .body(Empty::<Bytes>::new())
                .map_err(|error| failed(&error))?;
            let answer: http::Response<Incoming> = sender
                .send_request(request)
                .await
                .map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            connection.abort();
            Ok((status, body.map_err(|error| failed(&error))?.to_bytes()))
        };
        timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(failed(&"no answer in time")))
    }

    /// Has Podman check its store, without what takes long; none if it is too old to know how. It leaves layers that are
    /// less than a day old: they may be of a pull that goes on.
    async fn check(&self, repair: bool) -> Result<Option<Damage>, BackendError> {
        let path = format!("/system/check?quick=true&repair={repair}");
        match self.ask(Method::POST, &path, SHORT).await? {
            (StatusCode::OK, body) => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| BackendError(format!("Podman's check of its store: {error}"))),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(failure(status, &body)),
        }
    }

    /// Removes all of `kind` that carry a label.
    async fn remove(&self, kind: &str, label: &str) -> Result<(), BackendError> {
        // The label is made of a name's characters: only JSON's own need an escape.
        let filter = format!(
            "%7B%22label%22%3A%5B%22{}%22%5D%7D",
            label.replace('=', "%3D")
        );
        let (status, body) = self
            .ask(
                Method::GET,
                &format!("/{kind}/json?all=true&filters={filter}"),
                SHORT,
            )
            .await?;
        if !status.is_success() {
            return Err(failure(status, &body));
        }
        // An empty list is `null` in some versions.
        let items: Option<Vec<Item>> = serde_json::from_slice(&body)
            .map_err(|error| BackendError(format!("Podman's list of {kind}: {error}")))?;
        for item in items.into_iter().flatten() {
            let (status, body) = self
                .ask(
                    Method::DELETE,
                    &format!("/{kind}/{}?force=true", item.id),
                    SHORT,
                )
                .await?;
            if !status.is_success() && status != StatusCode::NOT_FOUND {
                return Err(failure(status, &body));
            }
        }
        Ok(())
    }
}

fn failure(status: StatusCode, body: &[u8]) -> BackendError {
    let message = serde_json::from_slice(body)
        .map(|failure: Failure| failure.message)
        .unwrap_or_default();
    BackendError(if message.is_empty() {
        format!("Podman answers {status}")
    } else {
        message
    })
}

impl Podman for Socket {
    async fn has_image(&self, reference: &str) -> Result<bool, BackendError> {
        let (status, body) = self
            .ask(Method::GET, &format!("/images/{reference}/exists"), SHORT)
            .await?;
        match status {
            StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            other => Err(failure(other, &body)),
        }
    }

    async fn pull(&self, reference: &str) -> Result<(), BackendError> {
        let path = format!("/images/pull?reference={reference}&policy=always&quiet=true");
        let (status, body) = self.ask(Method::POST, &path, PULL).await?;
        if !status.is_success() {
            return Err(failure(status, &body));
        }
        // The status was sent before the pull began: how it ended is in the last lines.
        let lines = serde_json::Deserializer::from_slice(&body).into_iter::<Line>();
        match lines.filter_map(Result::ok).find_map(|line| line.error) {
            Some(error) => Err(BackendError(error)),
            None => Ok(()),
        }
    }

    async fn sweep(&self, workload: &str) -> Result<(), BackendError> {
        self.remove("containers", &format!("flotta.workload={workload}"))
            .await?;
        // Quadlet's own label: another pod of this name is not ours.
        self.remove(
            "pods",
            &format!("PODMAN_SYSTEMD_UNIT={workload}-pod.service"),
        )
        .await
    }

    async fn tidy(&self) -> Result<usize, BackendError> {
        let Some(found) = self.check(false).await? else {
            return Ok(0);
        };
        // A repair also removes damaged images that nothing runs from just now. Without a network they would not come back.
        if let Some(why) = found.worse() {
            return Err(BackendError(format!("Podman's store is damaged: {why}")));
        }
        let layers = found.layers.map_or(0, |layers| layers.len());
        if layers > 0 {
            self.check(true).await?;
        }
        Ok(layers)
    }
}

#[cfg(test)]
mod tests;
