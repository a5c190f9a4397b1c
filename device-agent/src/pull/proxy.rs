//! The way to the server when it leads through an HTTP proxy: `CONNECT`, and inside of it TLS to the server itself. A proxy
//! sees the server's name and port, and can hold things up; it can read and change nothing.

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

/// Longest head of a proxy's answer: what it says to `CONNECT` is a line and a few headers.
const MAX_HEAD: usize = 8 << 10;

/// What the environment says about proxies. Read once, when the program starts.
#[derive(Clone, Default)]
pub struct Proxies {
    https: String,
    no: String,
}

/// There may be a password in it.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut proxies = f.debug_struct("Proxies");
        proxies.field("no", &self.no).finish_non_exhaustive()
    }
}

impl Proxies {
    /// `HTTPS_PROXY` and `NO_PROXY`, or the same in small letters.
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

    /// The proxy on the way to a server; none when the way is a direct one.
    pub(super) fn towards(&self, authority: &str) -> Result<Option<Proxy>, PullError> {
        let https = self.https.trim();
        // hyper's own rules have `*` mean every name, but no address
        if https.is_empty() || self.no.split(',').any(|entry| entry.trim() == "*") {
            return Ok(None);
        }
        // not the value itself: there may be a password in it
        let bad = |why| PullError::Proxy(format!("the value of HTTPS_PROXY cannot be used: {why}"));
        let shape = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
        let server = Uri::try_from(format!("https://{authority}")).map_err(|_| bad(shape))?;
        // The matcher has no error: what it cannot read is no proxy to it, and the way would be a direct one.
        let always = Matcher::builder().https(https).build();
        let found = always.intercept(&server).ok_or_else(|| bad(shape))?;
        if found.uri().scheme_str() != Some("http") {
            return Err(bad("only proxies of http:// are known"));
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

/// A proxy that the way leads through.
#[derive(Clone)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// As people know it, without its password.
    shown: String,
    credentials: Option<HeaderValue>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A proxy that is there and does not let the device through.
#[derive(Debug, thiserror::Error)]
#[error("{proxy}: {why}")]
pub(super) struct Blocked {
    proxy: String,
    why: String,
}

impl Proxy {
    /// A stream through the proxy to `authority`. The proxy looks up the name.
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
        // Its end is told to the one who asks.
        let carry = async {
            let _ = connection.with_upgrades().await;
            pending::<Infallible>().await
        };
        let through = tokio::select! {
            through = ask => through?,
            never = carry => match never {},
        };
        let parts = through.downcast::<TokioIo<TcpStream>>();
        let parts = parts.map_err(|_| self.blocked("it is not the stream it was"))?;
        if !parts.read_buf.is_empty() {
            // in TLS the client speaks first
            return Err(self.blocked("it says more than that the way is free"));
        }
        Ok(parts.io.into_inner())
    }

    fn blocked(&self, why: impl Into<String>) -> BoxError {
        let (proxy, why) = (self.to_string(), why.into());
        Blocked { proxy, why }.into()
    }

    /// What a proxy means that says no.
    fn no(&self, status: StatusCode, authority: &str) -> BoxError {
        if status.is_server_error() {
            // it would, and cannot: the server is not to be reached from there either
            return format!("{self} cannot reach it: {status}").into();
        }
        self.blocked(match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if self.credentials.is_some() => {
                format!("it does not take the user and password in HTTPS_PROXY: {status}")
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                format!("it wants a user and password, and HTTPS_PROXY has none: {status}")
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
