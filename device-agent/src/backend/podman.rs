//! A client of Podman's REST API (libpod) on its Unix socket: a few calls, with answers read tolerantly, so that what a newer
//! Podman adds is ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{BackendError, Container, Podman, messages};
use crate::durable;

/// The API version of the oldest Podman with Quadlet (4.4); newer ones serve it too.
const API: &str = "/v4.0.0/libpod";
/// Longest wait for an answer that needs no network.
const SHORT: Duration = Duration::from_secs(60);
/// Longest wait for a pull: an hour lets 1 GB through at 2.5 Mbit/s.
const PULL: Duration = Duration::from_secs(3600);
/// Longest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// The file in which Podman notes that the kernel does not support its storage, so that it need not try each time. It writes
/// it for a full disk as well, and then refuses everything until the next boot, which clears `/run`. The note is only a
/// cache: without it Podman tries again, and running containers never read it.
const REFUSAL: &str = "/run/containers/storage/overlay/overlay-false";
/// Longest note that is read.
const MAX_REFUSAL: usize = 4 << 10;

/// Longest wait until a container has stopped: its grace period is at most a day, and the caller does nothing else meanwhile.
const STOP: Duration = Duration::from_secs(25 * 3600);

/// Podman's socket.
#[derive(Debug, Clone)]
pub struct Socket {
    path: PathBuf,
    refusal: PathBuf,
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

/// The fields of interest of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    state: ContainerState,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerState {
    running: bool,
}

/// The state of a command in a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommandState {
    running: bool,
    exit_code: i32,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(rename = "IPAddress")]
    address: String,
    networks: Option<BTreeMap<String, NetworkEnd>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkEnd {
    #[serde(rename = "IPAddress")]
    address: String,
    #[serde(rename = "GlobalIPv6Address")]
    six: String,
}

impl Inspected {
    /// Returns the container if it is running.
    fn running(self) -> Option<Container> {
        let NetworkSettings { address, networks } = self.network_settings;
        let ends = networks.iter().flat_map(BTreeMap::values);
        let others = ends.flat_map(|end| [&end.address, &end.six]);
        let mut addresses = std::iter::once(&address).chain(others);
        self.state.running.then(|| Container {
            id: self.id,
            address: addresses.find_map(|address| address.parse().ok()),
        })
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
        Self {
            path,
            refusal: REFUSAL.into(),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        self.send(method, path, Bytes::new(), limit).await
    }

    /// Posts JSON.
    async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        self.send(Method::POST, path, body.to_string().into(), STOP)
            .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        let failed = |error: &dyn std::fmt::Display| {
            BackendError::Other(format!("Podman at {}: {error}", self.path.display()))
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
                .header("host", "podman")
                .header("content-type", "application/json");
            let request = request
                .body(Full::new(body))
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

    /// The state of a command in a container; none when it is gone together with its container.
    async fn command(&self, session: &str) -> Result<Option<CommandState>, BackendError> {
        let path = format!("/exec/{session}/json");
        let (status, body) = self.ask(Method::GET, &path, SHORT).await?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|error| unread(&error)),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(failure(other, &body)),
        }
    }

    /// Removes all of `kind` that carry a label.
    async fn remove(&self, kind: &str, label: &str) -> Result<(), BackendError> {
        // The label has only characters of a name, so JSON's escaping is enough.
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
            .map_err(|error| BackendError::Other(format!("Podman's list of {kind}: {error}")))?;
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

/// Parses Podman's description of a container.
fn parse_container(body: &[u8]) -> Result<Option<Container>, BackendError> {
    let inspected: Inspected = serde_json::from_slice(body)
        .map_err(|error| BackendError::Other(format!("Podman's container: {error}")))?;
    Ok(inspected.running())
}

fn failure(status: StatusCode, body: &[u8]) -> BackendError {
    let message = serde_json::from_slice(body)
        .map(|failure: Failure| failure.message)
        .unwrap_or_default();
    if message.is_empty() {
        BackendError::Other(format!("Podman answers {status}"))
    } else {
        messages::podman(message)
    }
}

fn unread(error: &serde_json::Error) -> BackendError {
    BackendError::Other(format!("Podman's command in a container: {error}"))
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
        // Podman sends the status before the pull begins; the last lines say how it ended.
        let lines = serde_json::Deserializer::from_slice(&body).into_iter::<Line>();
        match lines.filter_map(Result::ok).find_map(|line| line.error) {
            Some(error) => Err(messages::podman(error)),
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

    async fn container(&self, name: &str) -> Result<Option<Container>, BackendError> {
        let path = format!("/containers/{name}/json");
        let (status, body) = self.ask(Method::GET, &path, SHORT).await?;
        match status {
            StatusCode::OK => parse_container(&body),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(failure(other, &body)),
        }
    }

    async fn stop(&self, id: &str) -> Result<bool, BackendError> {
        let path = format!("/containers/{id}/stop");
        let (status, body) = self.ask(Method::POST, &path, STOP).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_MODIFIED | StatusCode::NOT_FOUND => Ok(false),
            other => Err(failure(other, &body)),
        }
    }

    async fn prepare(&self, id: &str, command: &[String]) -> Result<String, BackendError> {
        let session =
            serde_json::json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let path = format!("/containers/{id}/exec");
        let (status, body) = self.post(&path, &session).await?;
        if !status.is_success() {
            return Err(failure(status, &body));
        }
        let session: Item = serde_json::from_slice(&body).map_err(|error| unread(&error))?;
        Ok(session.id)
    }

    async fn run(&self, command: &str) -> Result<i32, BackendError> {
        let path = format!("/exec/{command}/start");
        // the answer is the command's output, and ends when the command does
        let (status, body) = self.post(&path, &serde_json::json!({})).await?;
        if !status.is_success() {
            let error = failure(status, &body);
            return messages::not_run(&error.to_string()).ok_or(error);
        }
        let state = self.command(command).await?;
        let ended = state.filter(|state| !state.running);
        ended.map(|state| state.exit_code).ok_or_else(|| {
            BackendError::Other("Podman does not say how a command in a container ended".to_owned())
        })
    }

    async fn is_running(&self, command: &str) -> Result<bool, BackendError> {
        let state = self.command(command).await?;
        Ok(state.is_some_and(|state| state.running))
    }

    fn remembers(&self) -> Option<String> {
        let note = durable::read(&self.refusal, MAX_REFUSAL).ok()??;
        let words = String::from_utf8_lossy(&note);
        let words: String = words.chars().filter(|c| !c.is_control()).collect();
        Some(words)
    }

    fn forget(&self) -> Result<(), BackendError> {
        durable::remove(&self.refusal)
            .map_err(|error| BackendError::Other(format!("{}: {error}", self.refusal.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_remembers_is_read_and_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = Socket {
            path: folder.path().join("podman.sock"),
            refusal: folder.path().join("overlay-false"),
        };
        assert_eq!(socket.remembers(), None);
        socket.forget().expect("nothing to forget");
        // as Podman 5.4 writes it
        let words = "kernel does not support overlay fs: unable to create kernel-style whiteout: no space left on device";
        std::fs::write(&socket.refusal, words).expect("written");
        assert_eq!(socket.remembers().as_deref(), Some(words));
        socket.forget().expect("forgotten");
        assert_eq!(socket.remembers(), None);
    }
}
