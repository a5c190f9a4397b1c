//! The device's side of the edge API: one HTTP/2 connection over TLS 1.3 carries the held poll, reports and blobs.
//!
//! Every answer is bounded, in length and in time, and none is trusted here: the caller verifies offers and blobs. Redirects
//! are never followed and content encodings never decoded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;

mod error;
pub mod link;
mod proxy;
mod servers;
mod session;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

use error::BoxError;
pub use error::PullError;
pub(crate) use error::chain;
pub use proxy::Proxies;
use proxy::Proxy;
pub(crate) use session::MIN_BYTES;
pub use session::{Desired, Download, MAX_MANIFEST, Session};
pub use state::{LinkState, Outage};
use verifier::Verifier;

/// How long the name lookup, the TCP connection, TLS and HTTP/2 may each take.
const CONNECT: Duration = Duration::from_secs(20);
/// How often an idle connection is pinged: below the 60 s after which the most aggressive NAT routers drop one.
const KEEP_ALIVE: Duration = Duration::from_secs(45);

/// A client of one server: its address, and how to verify it.
#[derive(Clone)]
pub struct Client {
    host: String,
    port: u16,
    /// `HOST:PORT`, as people and HTTP write them.
    authority: Arc<str>,
    proxy: Option<Proxy>,
    roots: Arc<RootCertStore>,
    clock: Clock,
    tls: Tls,
}

/// TLS settings for a believed clock, and for one in doubt. Each has a session cache of its own, because resuming a session
/// verifies no certificate, and one that was accepted in doubt must not count once the time is known.
#[derive(Clone)]
struct Tls {
    verifier: Arc<Verifier>,
    believed: Arc<ClientConfig>,
    in_doubt: Arc<ClientConfig>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.authority).finish()
    }
}

impl Client {
    /// A client without a certificate, which can only ask to join.
    pub fn anonymous(
        server: &str,
        ca: &str,
        clock: &Clock,
        proxies: &Proxies,
    ) -> Result<Self, PullError> {
        let (host, port) = parse_server(server)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let bad = |error: &dyn fmt::Display| {
                PullError::Settings(format!("the server's CA cannot be read: {error}"))
            };
            roots
                .add(certificate.map_err(|error| bad(&error))?)
                .map_err(|error| bad(&error))?;
        }
        if roots.is_empty() {
            let why = "it has no CA certificate for the server";
            return Err(PullError::Settings(why.to_owned()));
        }
        let roots = Arc::new(roots);
        let tls = tls(&roots, clock, None)?;
        let authority = authority(&host, port);
        Ok(Self {
            host,
            port,
            proxy: proxies.towards(&authority)?,
            authority: authority.into(),
            roots,
            clock: clock.clone(),
            tls,
        })
    }

    /// The same client with the device's certificate.
    pub fn identified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, PullError> {
        let tls = tls(&self.roots, &self.clock, Some((chain, key)))?;
        Ok(Self {
            tls,
            ..self.clone()
        })
    }

    /// The same client for another address of the same server.
    pub(crate) fn towards(&self, server: &str, proxies: &Proxies) -> Result<Self, PullError> {
        let (host, port) = parse_server(server)?;
        let authority = authority(&host, port);
        Ok(Self {
            proxy: proxies.towards(&authority)?,
            authority: authority.into(),
            host,
            port,
            ..self.clone()
        })
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Session, PullError> {
        let stream = if let Some(proxy) = &self.proxy {
            let dial = proxy.dial(&self.authority);
            self.within(&proxy.to_string(), dial).await?
        } else {
            let addresses = lookup_host((self.host.as_str(), self.port));
            let addresses = async { Ok(addresses.await?.collect::<Vec<_>>()) };
            let addresses = self.within("looking up its name", addresses).await?;
            let dial = async {
                let stream = TcpStream::connect(&*addresses).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            self.within("TCP", dial).await?
        };
        let tls = if self.clock.is_believed() {
            &self.tls.believed
        } else {
            &self.tls.in_doubt
        };
        let secured = self
            .within("TLS", async {
                let name = ServerName::try_from(self.host.clone())?;
                Ok(TlsConnector::from(Arc::clone(tls))
                    .connect(name, stream)
                    .await?)
            })
            .await?;
        let peer = secured.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Arc::new(
            peer.iter()
                .cloned()
                .map(CertificateDer::into_owned)
                .collect(),
        );
        if secured.get_ref().1.alpn_protocol() != Some(b"h2") {
            let why = "it does not speak HTTP/2".to_owned();
            return Err(PullError::NotFlotta(self.authority.to_string(), why));
        }
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(CONNECT)
            .keep_alive_while_idle(true)
            .max_header_list_size(16 << 10);
        let shake = async { Ok(http.handshake(TokioIo::new(secured)).await?) };
        let (sender, connection) = self.within("HTTP/2", shake).await?;
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                end.send_replace(Some(chain(&error)));
            }
        });
        Ok(Session {
            sender,
            authority: self.authority.clone(),
            peer,
            ended,
        })
    }

    /// Verifies the server certificate of an open connection again, at the current time.
    pub(crate) fn verify_again(&self, session: &Session) -> Result<(), PullError> {
        let verify = || -> Result<(), BoxError> {
            let name = ServerName::try_from(self.host.as_str())?;
            Ok(self.tls.verifier.verify(&session.peer, &name)?)
        };
        // the same error as for a certificate that is refused at once
        verify().map_err(|error| PullError::Connect(self.authority.to_string(), error))
    }

    /// Runs one step of connecting, with a timeout.
    async fn within<T>(
        &self,
        step: &str,
        work: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, PullError> {
        let done = match timeout(CONNECT, work).await {
            Ok(done) => done,
            Err(_) => Err(format!("{step}: no answer in {CONNECT:?}").into()),
        };
        done.map_err(|error| PullError::Connect(self.authority.to_string(), error))
    }
}

fn tls(
    roots: &Arc<RootCertStore>,
    clock: &Clock,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Tls, PullError> {
    let bad = |error: rustls::Error| PullError::Settings(format!("TLS: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(roots, &provider, clock)
        .map_err(|error| PullError::Settings(format!("the server's CA cannot be used: {error}")))?;
    let verifier = Arc::new(verifier);
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone());
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut in_doubt = config.clone();
    in_doubt.resumption = Resumption::default();
    Ok(Tls {
        verifier,
        believed: Arc::new(config),
        in_doubt: Arc::new(in_doubt),
    })
}

/// `HOST:PORT`, as people and HTTP write it.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Parses `https://HOST:PORT`, and nothing more.
fn parse_server(server: &str) -> Result<(String, u16), PullError> {
    let bad =
        |why: &str| PullError::Settings(format!("`{server}` is not the URL of a server: {why}"));
    let uri: Uri = server.parse().map_err(|_| bad("write https://HOST:PORT"))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("it must begin with https://"));
    }
    let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
    if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some()
    {
        return Err(bad("it may hold only a host and a port"));
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    if host.is_empty() || ServerName::try_from(host.clone()).is_err() {
        return Err(bad("its host is neither a name nor an address"));
    }
    Ok((host, authority.port_u16().unwrap_or(443)))
}
