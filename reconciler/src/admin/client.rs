//! The command line's side of the admin API: HTTP/1.1 over the Unix socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use flotta_bundle::code;
use flotta_bundle::wire::Failure;
use flotta_bundle::{Code, Problem};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::resource::Change;

/// Longest answer: 100,000 devices with their conditions and ten workloads each.
const MAX_ANSWER: usize = 1 << 30;
/// Longest line of a watch.
const MAX_LINE: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server listens on the socket.
    #[error("no server answers at {0}")]
    Connect(PathBuf, #[source] std::io::Error),
    /// The connection broke.
    #[error("the server at {0} closed the connection early")]
    Broken(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused the request.
    #[error("{}", .1.text())]
    Refused(StatusCode, Box<Problem>),
    /// The answer cannot be read.
    #[error("the server's answer cannot be read: {0}")]
    Malformed(String),
}

impl ClientError {
    /// The error with its code and what to do about it.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(_, problem) => Problem::clone(problem),
            Self::Connect(_, source) => {
                let help = match source.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "run as root, as the user that runs `flotta serve`, or as a member of the group `flotta` that the package makes"
                    }
                    _ => "start it with `flotta serve`, or say where it is: --admin SOCKET",
                };
                Problem::new(code::UNREACHABLE, format!("{self}: {source}")).with_help(help)
            }
            Self::Broken(_, source) => Problem::new(code::UNREACHABLE, format!("{self}: {source}"))
                .with_help("see the server's log"),
            Self::Malformed(_) => Problem::new(code::BAD_REQUEST, self.to_string())
                .with_help("use a flotta of the same version as the server's"),
        }
    }

    /// Whether the server said that there is no such object.
    pub fn is_not_found(&self) -> bool {
        let not_found: Code = code::NOT_FOUND;
        matches!(self, Self::Refused(_, problem) if problem.is(not_found))
    }
}

/// The admin API at a socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for this socket. It does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`.
    pub async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(self.send(Method::GET, path, Bytes::new()).await?)
            .await
    }

    /// `POST path` with a body.
    pub async fn post<B: Serialize, T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        self.answer(self.send(Method::POST, path, body.into()).await?)
            .await
    }

    /// `GET path` as a watch: first every object there is, then every change.
    pub async fn watch<T>(&self, path: &str) -> Result<Watch<T>, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        Ok(Watch {
            socket: self.socket.clone(),
            body: response.into_body(),
            buffer: Vec::new(),
            kind: std::marker::PhantomData,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| ClientError::Connect(self.socket.clone(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "flotta")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    async fn answer<T: for<'de> Deserialize<'de>>(
        &self,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    async fn refused(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.read(response).await {
            Err(error) => error,
            Ok(bytes) => match serde_json::from_slice::<Failure>(&bytes) {
                Ok(failure) => ClientError::Refused(status, Box::new(failure.error)),
                Err(_) => ClientError::Malformed(format!(
                    "{status}: {}",
                    String::from_utf8_lossy(&bytes)
                        .chars()
                        .take(200)
                        .collect::<String>()
                )),
            },
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| ClientError::Broken(self.socket.clone(), error))
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        ClientError::Broken(self.socket.clone(), Box::new(error))
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watch<T> {
    socket: PathBuf,
    body: Incoming,
    buffer: Vec<u8>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T: for<'de> Deserialize<'de>> Watch<T> {
    /// Waits for the next change; none when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Change<T>>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| ClientError::Malformed(error.to_string()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::Malformed("a line that is too long".to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ClientError::Broken(self.socket.clone(), Box::new(error)));
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
