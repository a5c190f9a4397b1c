//! Requests that cost the client as little as possible, so that the server is measured.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::device::Member;

/// The TLS configuration of a device. Connections that share it resume sessions.
pub(super) fn tls(member: &Member) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(member.ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            member.certificate.chain.clone(),
            member.identity.private_key(),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A connection.
#[derive(Clone)]
pub(super) struct Raw {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    pub(super) resumed: bool,
}

impl Raw {
    pub(super) async fn connect(tls: Arc<ClientConfig>, address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(tls);
        let stream = connector.connect(address.ip().into(), stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // requests on it report its errors
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self {
            sender,
            address,
            resumed,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        tag: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address));
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a poll, and returns the tag of the answer.
    pub(super) async fn desired(&self) -> Result<String> {
        let path = "/v1/desired?root=1";
        let response = self.send(Method::GET, path, None, Bytes::new()).await?;
        let tag = response.headers().get(ETAG).context("no tag")?;
        let tag = tag.to_str()?.to_owned();
        response.into_body().collect().await?;
        Ok(tag)
    }

    /// Sends a poll without a change.
    pub(super) async fn unchanged(&self, tag: &str) -> Result<()> {
        let path = "/v1/desired?root=1";
        let response = self.send(Method::GET, path, Some(tag), Bytes::new());
        let status = response.await?.status();
        ensure!(status == StatusCode::NOT_MODIFIED, "{status}");
        Ok(())
    }

    /// Sends a report.
    pub(super) async fn report(&self, body: Bytes) -> Result<()> {
        let response = self.send(Method::PUT, "/v1/report", None, body).await?;
        let status = response.status();
        ensure!(status == StatusCode::OK, "{status}");
        response.into_body().collect().await?;
        Ok(())
    }
}
