//! A server on a loopback address, and clients that speak real TLS to it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flotta_bundle::wire::{Enrolment, Failure, Report, Token};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::edge::Edge;
use crate::edge::limits::Limits;
use crate::fixture::{DEADLINE, Fixture, TestDevice};
use crate::keys::{Csr, Fleet};

/// A client's certificate chain and key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) struct World {
    pub(super) fixture: Fixture,
    pub(super) address: SocketAddr,
    pub(super) data: TempDir,
    /// The running edge API.
    pub(super) edge: Edge,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl World {
    /// Returns the report that is stored of a device.
    pub(super) async fn report(&self, device: &str) -> Report {
        let record = self
            .fixture
            .store
            .device(&crate::fixture::name(device))
            .await;
        let report = record.expect("a store").expect("a device").report;
        report.expect("a report")
    }

    pub(super) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(super) async fn with(limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(data.path());
        Self::serve(fixture, data, limits).await
    }

    pub(super) async fn serve(fixture: Fixture, data: TempDir, limits: Limits) -> Self {
        let edge = Edge::new(
            Arc::clone(&fixture.fleet),
            fixture.store.clone(),
            Arc::clone(&fixture.index),
            Arc::new(fixture.depot.clone()),
            limits,
        )
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(edge.clone().serve(listener, async {
            let _ = stopped.await;
        }));
        Self {
            fixture,
            address,
            data,
            edge,
            stop,
            served,
        }
    }

    /// Stops the server, and returns its data directory.
    pub(super) async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        let served = tokio::time::timeout(DEADLINE, self.served).await;
        served.unwrap().unwrap();
        self.data
    }

    pub(super) async fn connect(&self, identity: Option<Identity>) -> Result<Client, String> {
        let connecting = connect(&self.fixture.fleet, self.address, identity);
        tokio::time::timeout(DEADLINE, connecting).await.unwrap()
    }

    /// Sends one request on a new connection without a certificate.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let client = self.connect(None).await.unwrap();
        client.send(method, path, &[], body).await.unwrap()
    }

    pub(super) async fn enrol(&self, machine: &TestDevice, token: Option<Token>) -> Answer {
        let body = serde_json::to_vec(&machine.request(token)).unwrap();
        self.ask(Method::POST, "/v1/enrolments", body).await
    }

    /// Joins a machine with a token.
    pub(super) async fn join(&self, machine: &TestDevice) -> Identity {
        let token = self.fixture.token(Some(&machine.name.to_string())).await;
        match self.enrol(machine, Some(token)).await.json() {
            Enrolment::Approved { certificate, .. } => identity(machine, &certificate),
            other => panic!("{other:?}"),
        }
    }

    /// Joins a machine and connects it.
    pub(super) async fn device(&self, machine: &TestDevice) -> Client {
        let identity = self.join(machine).await;
        self.connect(Some(identity)).await.unwrap()
    }
}

pub(super) fn identity(machine: &TestDevice, certificate: &str) -> Identity {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    (chain.map(Result::unwrap).collect(), key(machine))
}

pub(super) fn key(machine: &TestDevice) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(machine.key.serialize_der()).into()
}

/// A certificate of `fleet`, made at `then`, even for a machine that has not joined.
pub(super) fn certified(fleet: &Fleet, machine: &TestDevice, then: Timestamp) -> Identity {
    let csr = Csr::parse(&machine.csr()).unwrap();
    let issued = fleet.sign_device_certificate(csr.key(), &machine.name, then);
    identity(machine, &issued.unwrap().pem)
}

/// A TLS connector; connections that share it resume sessions.
pub(super) fn connector(
    fleet: &Fleet,
    identity: Option<Identity>,
    protocol: &[u8],
) -> TlsConnector {
    connector_by(&fleet.server_ca_certificate_pem(), identity, protocol)
}

/// The same with this CA.
pub(super) fn connector_by(ca: &str, identity: Option<Identity>, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    fleet: &Fleet,
    address: SocketAddr,
    identity: Option<Identity>,
) -> Result<Client, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    // like agents, so that a body does not wait for the acknowledgement of its headers
    stream.set_nodelay(true).unwrap();
    let stream = connector(fleet, identity, b"h2")
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    Ok(Client {
        sender,
        certificate,
        ended: tokio::spawn(async move {
            let _ = connection.await;
        }),
    })
}

pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// The server's certificate.
    pub(super) certificate: Vec<u8>,
    ended: JoinHandle<()>,
}

impl Client {
    /// Sends a request without reading the body of the answer.
    pub(super) async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.sender.clone().send_request(request).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let answer = async {
            let response = self.begin(method, path, headers, body).await?;
            let (parts, body) = response.into_parts();
            Ok::<_, hyper::Error>(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(DEADLINE, answer).await.unwrap();
        answer.map_err(|error| error.to_string())
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, Bytes::new())
            .await
            .unwrap()
    }

    pub(super) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::PUT, path, &[], body).await.unwrap()
    }

    /// Waits for the server to close the connection.
    pub(super) async fn ended(self) {
        let ended = tokio::time::timeout(DEADLINE, self.ended).await;
        ended.expect("the connection is still open").unwrap();
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.body))
    }

    /// Status and stable code of a failure.
    pub(super) fn failure(&self) -> (u16, String) {
        (self.status.as_u16(), self.json::<Failure>().error.code)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}
