//! Connects to the server through an HTTP proxy: `CONNECT`, with TLS to the server itself inside. A proxy sees the server's
//! name and port and can delay traffic, but can neither read nor change it.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::PullError;
use super::error::BoxError;

/// Longest head of a proxy's answer: to `CONNECT` it is a line and a few headers.
const MAX_HEAD: usize = 8 << 10;

/// The proxy settings from the environment, read once when the program starts.
#[derive(Clone, Default)]
pub struct Proxies {
    https: String,
    no: String,
}

/// Shows nothing, because there may be a password in it.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut proxies = f.debug_struct("Proxies");
        proxies.field("no", &self.no).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Reads `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case.
    pub fn of_environment() -> Self {
        Self::of(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| {
            let mut values = names.into_iter().filter_map(&variable);
            values.find(|value| !value.trim().is_empty())
        };
        Self {
            https: first(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default(),
            no: first(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }

    /// The proxy for a server; none for a direct connection.
    pub(super) fn towards(&self, authority: &str) -> Result<Option<Proxy>, PullError> {
        let https = self.https.trim();
        // in hyper's own rules `*` matches every name, but no IP address
        if https.is_empty() || self.no.split(',').any(|entry| entry.trim() == "*") {
            return Ok(None);
        }
        // the error leaves out the value, which may have a password in it
        let bad = |why| PullError::Proxy(format!("the value of HTTPS_PROXY cannot be used: {why}"));
        let shape = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
        let server = Uri::try_from(format!("https://{authority}")).map_err(|_| bad(shape))?;
        // The matcher reports no errors: what it cannot parse it ignores, and the connection would be a direct one.
        let always = Matcher::builder().https(https).build();
        let found = always.intercept(&server).ok_or_else(|| bad(shape))?;
        if found.uri().scheme_str() != Some("http") {
            return Err(bad("only http:// proxies are supported"));
        }
        let host = found.uri().host().unwrap_or_default();
        if host.is_empty() {
            return Err(bad(shape));
        }
        let sometimes = Matcher::builder().https(https).no(&self.no).build();
        Ok(sometimes.intercept(&server).map(|found| Proxy {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: found.uri().port_u16().unwrap_or(80),
            shown: format!("proxy {host}:{}", found.uri().port_u16().unwrap_or(80)),
            credentials: found.basic_auth().cloned(),
        }))
    }
}

/// A proxy to connect through.
#[derive(Clone)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// Its URL without the password, for messages.
    shown: String,
    credentials: Option<HeaderValue>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The error of a proxy that answers, but does not let the device through.
#[derive(Debug, thiserror::Error)]
#[error("{proxy}: {why}")]
pub(super) struct Blocked {
    proxy: String,
    why: String,
}

impl Proxy {
    /// Opens a connection through the proxy to `authority`. The proxy resolves the name.
    pub(super) async fn dial(&self, authority: &str) -> Result<TcpStream, BoxError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| format!("{self}: {error}"))?;
        stream.set_nodelay(true)?;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .header(header::HOST, authority);
        if let Some(credentials) = &self.credentials {
            request = request.header(header::PROXY_AUTHORIZATION, credentials);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        let ask = async {
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| self.no_answer(&error))?;
            if !answer.status().is_success() {
                return Err(self.no(answer.status(), authority));
            }
            let through = hyper::upgrade::on(answer).await;
            through.map_err(|error| self.no_answer(&error))
        };
        // An error of the connection also ends the request, which reports it.
        let carry = async {
            let _ = connection.with_upgrades().await;
            pending::<Infallible>().await
        };
        let through = tokio::select! {
            through = ask => through?,
            never = carry => match never {},
        };
        let parts = through.downcast::<TokioIo<TcpStream>>();
        let parts = parts.map_err(|_| self.blocked("the connection cannot be taken over"))?;
        if !parts.read_buf.is_empty() {
            // in TLS the client speaks first, so nothing may have come yet
            return Err(self.blocked("it sent more than its answer to CONNECT"));
        }
        Ok(parts.io.into_inner())
    }

    fn blocked(&self, why: impl Into<String>) -> BoxError {
        let (proxy, why) = (self.to_string(), why.into());
        Blocked { proxy, why }.into()
    }

    /// The error for a proxy's refusal.
    fn no(&self, status: StatusCode, authority: &str) -> BoxError {
        if status.is_server_error() {
            // it is willing, but cannot reach the server either
            return format!("{self} cannot reach it: {status}").into();
        }
        self.blocked(match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if self.credentials.is_some() => {
                format!("it does not take the user and password in HTTPS_PROXY: {status}")
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                format!("it requires a user and password, and HTTPS_PROXY has none: {status}")
            }
            _ => format!("it does not connect to {authority}: {status}"),
        })
    }

    fn no_answer(&self, error: &hyper::Error) -> BoxError {
        if error.is_parse() {
            return self.blocked(format!("it does not answer as a proxy does: {error}"));
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return format!("{self} ended the connection without an answer").into();
        }
        format!("{self}: {}", super::chain(error)).into()
    }
}

#[cfg(test)]
mod tests;
