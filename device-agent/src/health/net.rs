//! HTTP and TCP checks as kubelet makes them: directly, without a proxy, and with a new connection each time.

use std::fmt;

use flotta_bundle::health::Header;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::redirect;

/// kubelet's user agent, by which programs leave probes out of their logs.
const AGENT: &str = "kube-probe/1.34";
/// Most of an answer that is read.
const MAX_BODY: usize = 10 << 10;
/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// The target of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        stream.map_err(|error| reason(&error))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// The system's error message without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// A GET request.
pub(super) struct Request<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) path: &'a str,
    pub(super) headers: &'a [Header],
}

impl Request<'_> {
    /// Sends the request, and follows redirects within the host.
    pub(super) async fn send(&self) -> Result<(), String> {
        let (mut endpoint, mut path) = (self.endpoint.clone(), self.path.to_owned());
        for _ in 0..=MAX_REDIRECTS {
            let (status, location) = self.get(&endpoint, &path).await?;
            if let Some(location) = location
                && redirect::is_followed(status)
            {
                match redirect::follow(&endpoint, &path, &location) {
                    Some((next, to)) if next.host == self.endpoint.host => {
                        (endpoint, path) = (next, to);
                    }
                    Some(_) => return Ok(()),
                    None => {
                        return Err(format!(
                            "answered {} without a usable Location",
                            status.as_u16()
                        ));
                    }
                }
                continue;
            }
            if (200..400).contains(&status.as_u16()) {
                return Ok(());
            }
            return Err(format!("answered {}", status.as_u16()));
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<(StatusCode, Option<String>), String> {
        let stream = endpoint.connect().await?;
        if endpoint.tls {
            let stream = super::tls::connect(stream, &endpoint.host).await;
            self.speak(stream.map_err(|error| reason(&error))?, endpoint, path)
                .await
        } else {
            self.speak(stream, endpoint, path).await
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<(StatusCode, Option<String>), String> {
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        let request = self.request(endpoint, path)?;
        let answer = async {
            let answer = sender.send_request(request).await;
            let answer: http::Response<Incoming> = answer.map_err(|error| said(&error))?;
            let status = answer.status();
            let location = answer.headers().get(LOCATION);
            let location = location.and_then(|to| Some(to.to_str().ok()?.to_owned()));
            let (mut body, mut read) = (answer.into_body(), 0);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| said(&error))?;
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MAX_BODY {
                    break;
                }
            }
            Ok((status, location))
        };
        // the answer is complete or there is none; an error of the connection itself adds nothing
        let connection = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer,
            () = connection => Err("no answer".to_owned()),
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        path: &str,
    ) -> Result<http::Request<Empty<Bytes>>, String> {
        let mut request = http::Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        let uri = path.parse();
        *request.uri_mut() = uri.map_err(|_| format!("{path} is not a path"))?;
        let headers = request.headers_mut();
        for Header { name, value } in self.headers {
            let name = name.parse::<HeaderName>().map_err(|e| e.to_string())?;
            let value = value.parse::<HeaderValue>().map_err(|e| e.to_string())?;
            headers.append(name, value);
        }
        for (name, value) in [(USER_AGENT, AGENT), (ACCEPT, "*/*")] {
            // like kubelet, leave out headers without a value
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(name);
            } else {
                headers
                    .entry(name)
                    .or_insert(HeaderValue::from_static(value));
            }
        }
        if !headers.contains_key(HOST) {
            let host = endpoint.authority().parse::<HeaderValue>();
            headers.insert(HOST, host.map_err(|error| error.to_string())?);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }
}

/// The root cause of a failure, which hyper's own message does not include.
fn said(error: &hyper::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    match last.downcast_ref::<std::io::Error>() {
        Some(error) => reason(error),
        None => last.to_string(),
    }
}
