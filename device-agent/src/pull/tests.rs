//! Requests to a small server on the loopback, over real TLS.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flotta_bundle::code;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::SCHEMA;
use flotta_bundle::wire::{Failure, MAX_OFFER_BYTES, Offer};
use flotta_bundle::{Digest, Problem};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::HandshakeKind;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::session::{JSON, MAX_RETRY_AFTER};
use super::*;

/// A server that answers by a function, and its CA.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) ca: String,
    /// Number of connections that resumed an earlier TLS session.
    resumed: Arc<AtomicUsize>,
}

impl TestServer {
    pub(crate) async fn start(
        answer: impl Fn(Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(false, answer).await
    }

    /// Starts a server that requires a client certificate.
    async fn start_strict(
        answer: impl Fn(Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(true, answer).await
    }

    async fn start_with(
        strict: bool,
        answer: impl Fn(Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("an authority");
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a root");
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if strict {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("localhost:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answer = Arc::new(answer);
        let resumed = Arc::new(AtomicUsize::new(0));
        let count = resumed.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let count = count.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        count.fetch_add(1, Ordering::AcqRel);
                    }
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(answer(Request::from_parts(parts, body)))
                        }
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            ca: ca.pem(),
            resumed,
        }
    }

    pub(crate) async fn session(&self, clock: &Clock) -> Session {
        Client::anonymous(&self.url, &self.ca, clock, &Proxies::default())
            .expect("a client")
            .connect()
            .await
            .expect("a connection")
    }
}

pub(crate) fn json(status: u16, value: &impl Serialize) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", JSON)
        .body(Full::new(serde_json::to_vec(value).expect("JSON").into()))
        .expect("a response")
}

fn plain(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).expect("a response")
}

fn clock() -> Clock {
    Clock::new(Timestamp::UNIX_EPOCH)
}

fn offer() -> Offer {
    let (key, _) = SigningKey::generate().expect("a key");
    Offer {
        roots: Vec::new(),
        release: Envelope::sign("test", b"{}", &[&key]),
        leaf: "{}".to_owned(),
        index: 0,
        proof: Vec::new(),
        manifest: Digest::of(b"manifest"),
    }
}

/// The error of a poll when the server answers like this.
async fn refusal(
    response: impl Fn() -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> PullError {
    let server = TestServer::start(move |_| response()).await;
    let session = server.session(&clock()).await;
    session.desired(1, None, true).await.expect_err("a refusal")
}

#[tokio::test]
async fn an_offer_comes_with_its_tag_and_no_second_time() {
    let sent = offer();
    let answer = sent.clone();
    let server = TestServer::start(move |request| {
        assert_eq!(
            request.uri().query(),
            Some(format!("root=3&schema={SCHEMA}").as_str())
        );
        match request.headers().get("if-none-match") {
            None => {
                let mut response = json(200, &answer);
                response
                    .headers_mut()
                    .insert("etag", "\"1-ab\"".parse().expect("a tag"));
                response
            }
            Some(tag) => {
                assert_eq!(tag, "\"1-ab\"");
                assert_eq!(request.headers()["prefer"], "wait=300");
                plain(304, &[], "")
            }
        }
    })
    .await;
    let session = server.session(&clock()).await;
    let desired = session
        .desired(3, None, true)
        .await
        .expect("an answer")
        .expect("an offer");
    assert_eq!(desired.offer, sent);
    let again = session.desired(3, desired.tag.as_deref(), true).await;
    assert_eq!(again.expect("an answer"), None);
}

#[tokio::test]
async fn a_portals_page_is_named_as_such() {
    let error = refusal(|| plain(200, &[("content-type", "text/html")], "<html>Welcome")).await;
    let problem = error.problem();
    assert_eq!(problem.code, "FLT0313");
    assert!(problem.message.contains("text/html, not JSON"), "{problem}");
    assert!(error.is_lost());
}

#[tokio::test]
async fn redirects_are_not_followed_and_encodings_not_undone() {
    let error = refusal(|| plain(302, &[("location", "https://login.example/")], "")).await;
    assert!(
        error
            .to_string()
            .contains("redirects to https://login.example/"),
        "{error}"
    );
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    let error = refusal(move || plain(200, &headers, "")).await;
    assert!(error.to_string().contains("gzip"), "{error}");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let error = refusal(|| {
        plain(
            200,
            &[("content-type", JSON)],
            vec![b' '; MAX_OFFER_BYTES + 1],
        )
    })
    .await;
    assert!(matches!(error, PullError::TooLong(..)), "{error}");
}

#[tokio::test]
async fn what_the_server_says_arrives_with_code_and_time() {
    let error = refusal(|| {
        let failure = Failure {
            error: Problem::new(code::TOO_MANY, "slower"),
            details: std::collections::BTreeMap::new(),
        };
        let mut response = json(429, &failure);
        response
            .headers_mut()
            .insert("retry-after", "99999".parse().expect("a header"));
        response
    })
    .await;
    assert_eq!(error.problem().code, "FLT0413");
    assert_eq!(error.retry_after(), Some(MAX_RETRY_AFTER));
    assert!(!error.is_lost() && !error.is_final());
    let gateway = refusal(|| plain(502, &[("content-type", "text/html")], "bad gateway")).await;
    assert!(gateway.to_string().contains("502"), "{gateway}");
    assert!(gateway.is_lost());
}

async fn read(mut download: Download) -> Result<Vec<u8>, PullError> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_blob_resumes_where_it_broke_off_and_is_bounded() {
    let content = b"hello, world";
    let digest = Digest::of(content);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let asked = seen.clone();
    let server = TestServer::start(move |request| {
        assert_eq!(request.uri().path(), format!("/v1/blobs/{digest}"));
        let range = request
            .headers()
            .get("range")
            .map(|r| r.to_str().expect("text").to_owned());
        asked.lock().expect("no panic").push(range.clone());
        match range.as_deref() {
            Some("bytes=7-") => plain(206, &[("content-range", "bytes 7-11/12")], &content[7..]),
            // a server that sends another range than requested
            Some("bytes=5-") => plain(206, &[("content-range", "bytes 0-11/12")], &content[..]),
            // a server that does not support ranges
            _ => plain(200, &[], &content[..]),
        }
    })
    .await;
    let session = server.session(&clock()).await;
    let whole = session.blob(&digest, 0, 12).await.expect("a blob");
    assert_eq!(read(whole).await.expect("all"), content);
    let rest = session.blob(&digest, 7, 12).await.expect("a blob");
    assert_eq!(rest.from, 7);
    assert_eq!(read(rest).await.expect("the rest"), b"world");
    let again = session.blob(&digest, 3, 12).await.expect("a blob");
    assert_eq!(again.from, 0, "from the beginning, and said so");
    let wrong = session
        .blob(&digest, 5, 12)
        .await
        .expect_err("another part");
    assert!(matches!(wrong, PullError::NotFlotta(..)), "{wrong}");
    let long = session.blob(&digest, 0, 11).await.expect("a blob");
    assert!(matches!(read(long).await, Err(PullError::TooLong(_, 11))));
    assert_eq!(seen.lock().expect("no panic").len(), 5);
}

#[tokio::test]
async fn a_server_by_another_authority_is_not_spoken_to() {
    let server = TestServer::start(|_| plain(200, &[], "")).await;
    let other = TestServer::start(|_| plain(200, &[], "")).await;
    let client = Client::anonymous(&server.url, &other.ca, &clock(), &Proxies::default());
    let client = client.expect("a client");
    let error = client.connect().await.expect_err("another authority");
    assert_eq!(error.problem().code, "FLT0314");
    assert!(
        error.problem().message.contains("certificate"),
        "{}",
        error.problem()
    );
}

#[tokio::test]
async fn the_clock_believes_nothing_that_is_not_signed() {
    // if it were believed, one answer from the year 9999 would make every certificate look expired for good
    let server =
        TestServer::start(|_| plain(304, &[("date", "Fri, 31 Dec 9999 00:00:00 GMT")], "")).await;
    let clock = clock();
    let session = server.session(&clock).await;
    assert_eq!(
        session.desired(1, None, true).await.expect("an answer"),
        None
    );
    assert!(clock.now() < "2500-01-01T00:00:00Z".parse().expect("a time"));
}

#[tokio::test]
async fn a_certificate_that_the_server_turns_away_is_known_as_that() {
    let server = TestServer::start_strict(|_| plain(304, &[], "")).await;
    let session = server.session(&clock()).await;
    let error = session
        .desired(1, None, true)
        .await
        .expect_err("no certificate was shown");
    assert!(error.is_certificate_refused(), "{}", chain(&error));
    let open = refusal(|| plain(502, &[], "")).await;
    assert!(!open.is_certificate_refused());
}

#[test]
fn only_the_url_of_a_server_is_one() {
    for (url, expected) in [
        ("https://edge.example:7443", Some(("edge.example", 7443))),
        ("https://edge.example/", Some(("edge.example", 443))),
        ("https://[2001:db8::1]:7443", Some(("2001:db8::1", 7443))),
        ("https://192.0.2.1:1", Some(("192.0.2.1", 1))),
        ("http://edge.example", None),
        ("https://user@edge.example", None),
        ("https://edge.example/path", None),
        ("https://edge.example/?q", None),
        ("edge.example:7443", None),
        ("", None),
    ] {
        let found = parse_server(url).ok();
        let found = found.as_ref().map(|(host, port)| (host.as_str(), *port));
        assert_eq!(found, expected, "{url}");
    }
}

#[tokio::test]
async fn a_client_that_connects_again_resumes() {
    let server = TestServer::start(|_| plain(304, &[], "")).await;
    let client = Client::anonymous(&server.url, &server.ca, &clock(), &Proxies::default());
    let client = client.expect("a client");
    for before in 0..3 {
        let session = client.clone().connect().await.expect("a connection");
        // the session ticket has arrived once there is an answer
        let answer = session
            .desired(0, Some("tag"), true)
            .await
            .expect("an answer");
        assert_eq!(answer, None);
        assert_eq!(server.resumed.load(Ordering::Acquire), before);
    }
}

#[tokio::test]
async fn a_session_that_began_in_doubt_is_not_resumed_once_the_time_is_known() {
    let server = TestServer::start(|_| plain(304, &[], "")).await;
    let clock = clock();
    let client = Client::anonymous(&server.url, &server.ca, &clock, &Proxies::default());
    let client = client.expect("a client");
    for (synchronised, resumed) in [(false, 0), (false, 1), (true, 1), (true, 2)] {
        clock.set_synchronised(Some(synchronised));
        let session = client.connect().await.expect("a connection");
        // the session ticket has arrived once there is an answer
        let answer = session.desired(0, Some("tag"), true).await;
        assert_eq!(answer.expect("an answer"), None);
        assert_eq!(server.resumed.load(Ordering::Acquire), resumed);
    }
}
