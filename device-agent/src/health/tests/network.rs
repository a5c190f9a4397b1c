//! HTTP and TCP checks on the loopback, with real sockets and real time.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use flotta_bundle::health::Header;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::health::net::Endpoint;
use crate::health::redirect;

/// Serves an answer by path. Returns its port, and the requests it got.
async fn server(tls: Option<tokio_rustls::TlsAcceptor>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, noted) = (tls.clone(), Arc::clone(&noted));
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, port, &noted).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, port, &noted).await;
                        }
                    }
                }
            });
        }
    });
    (port, heads)
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    port: u16,
    heads: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().expect("no panic").push(head);
    let to = |status: u16, location: String| {
        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    };
    let text = match path.trim_start_matches('/') {
        "hangs" => std::future::pending().await,
        "closes" => return,
        "nonsense" => "SSH-2.0-OpenSSH_9.7\r\n".to_owned(),
        "local" => to(302, "/200".to_owned()),
        "local-fails" => to(307, "503".to_owned()),
        "same-host" => to(301, format!("http://127.0.0.1:{port}/200?x")),
        "other-host" => to(302, "http://elsewhere.example/503".to_owned()),
        "round" => to(302, "/round".to_owned()),
        "nowhere" => to(302, "ftp://127.0.0.1/".to_owned()),
        "endless" => format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(1 << 20)),
        status => {
            let status: u16 = status
                .split('?')
                .next()
                .and_then(|s| s.parse().ok())
                .unwrap_or(404);
            format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\nok")
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn get(tls: bool, port: u16, path: &str, headers: &[(&str, &str)]) -> HealthCheck {
    let headers = headers.iter().map(|(name, value)| Header {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    HealthCheck {
        action: Action::Http {
            tls,
            host: None,
            port,
            path: path.to_owned(),
            headers: headers.collect(),
        },
        ..check(Purpose::Liveness)
    }
}

async fn ask(check: &HealthCheck) -> Result<(), String> {
    let container = Container {
        id: "a".to_owned(),
        address: None,
    };
    let world = World::default();
    let asked = Prober::new(&world)
        .ask(check, &container, &Late::default())
        .await;
    asked.expect("it can be asked")
}

#[tokio::test]
async fn an_answer_is_judged_as_kubelet_judges_it() {
    let (port, _) = server(None).await;
    for (path, failure) in [
        ("/200", ""),
        ("/399", ""),
        ("/404", "answered 404"),
        ("/503", "answered 503"),
        ("/local", ""),
        ("/local-fails", "answered 503"),
        ("/same-host", ""),
        ("/other-host", ""),
        ("/endless", ""),
        ("/round", "stopped after 10 redirects"),
        ("/nowhere", "answered 302 without a usable Location"),
        ("/hangs", "no answer within 1 s"),
    ] {
        let expected = match failure {
            "" => Ok(()),
            why => Err(format!("GET http://127.0.0.1:{port}{path}: {why}")),
        };
        assert_eq!(ask(&get(false, port, path, &[])).await, expected);
    }
    for path in ["/closes", "/nonsense"] {
        ask(&get(false, port, path, &[])).await.expect_err(path);
    }
}

#[tokio::test]
async fn a_request_has_the_headers_that_kubelet_sends() {
    let (port, heads) = server(None).await;
    let own = [("X-One", "a"), ("x-one", "b"), ("Host", "shop.example")];
    ask(&get(false, port, "/200?full=1", &own))
        .await
        .expect("an answer");
    ask(&get(
        false,
        port,
        "/200",
        &[("User-Agent", "me"), ("Accept", "")],
    ))
    .await
    .expect("an answer");
    let heads = heads.lock().expect("no panic").clone();
    let has = |head: &str, line: &str| head.lines().any(|found| found.eq_ignore_ascii_case(line));
    for line in [
        "GET /200?full=1 HTTP/1.1",
        "x-one: a",
        "x-one: b",
        "host: shop.example",
        "user-agent: kube-probe/1.34",
        "accept: */*",
        "connection: close",
    ] {
        assert!(has(&heads[0], line), "{line}: {}", heads[0]);
    }
    assert!(has(&heads[1], "user-agent: me"), "{}", heads[1]);
    assert!(
        has(&heads[1], &format!("host: 127.0.0.1:{port}")),
        "{}",
        heads[1]
    );
    assert!(!heads[1].contains("accept"), "{}", heads[1]);
}

#[tokio::test]
async fn https_takes_any_certificate_and_tls_1_2() {
    let own =
        rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(
                vec![own.cert.der().clone()],
                key.as_ref().expect("a key").clone_key(),
            )
            .expect("a certificate");
        let (port, _) = server(Some(Arc::new(config).into())).await;
        assert_eq!(ask(&get(true, port, "/200", &[])).await, Ok(()));
        let failed = ask(&get(true, port, "/503", &[])).await;
        let why = format!("GET https://127.0.0.1:{port}/503: answered 503");
        assert_eq!(failed, Err(why));
        ask(&get(false, port, "/200", &[]))
            .await
            .expect_err("it speaks TLS alone");
    }
}

/// A certificate of X.509 version 1, as `openssl x509 -req -signkey` makes it, and its key.
const VERSION_1: (&str, &str) = (
    "-----BEGIN CERTIFICATE-----
MIIBGDCBvwIURGTDpYcSoM4SbwLL8HOqtdqE+h0wCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEyODE3NDU0MVoYDzIxMjYxMTA0MTc0NTQxWjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATFs062Sf1o/gN+
9K+6KRF/RM7N/akqDVVSCZxKFl9sQxKMoTbOmLN75leIak+mUV7iHqS7uRbdC9Ev
7100XNFTMAoGCCqGSM49BAMCA0gAMEUCIHu+2Iru/WZmMgPh6z+jVVdK4A/QwW5k
Xcxm46z4EJjPAiEAlMZoPEi3l+mkkJZRiniKctv9ARBVG9BIGwEPZsymZKk=
-----END CERTIFICATE-----
",
    "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqQyUWwTS/aSnYZu9
PVwS7oXsCVMaq/PCdT6HgtslpuqhRANCAATFs062Sf1o/gN+9K+6KRF/RM7N/akq
DVVSCZxKFl9sQxKMoTbOmLN75leIak+mUV7iHqS7uRbdC9Ev7100XNFT
-----END PRIVATE KEY-----
",
);

#[tokio::test]
async fn https_takes_a_certificate_that_nobody_can_check() {
    use rustls_pki_types::pem::PemObject as _;
    let provider = rustls::crypto::ring::default_provider();
    let certificate = CertificateDer::from_pem_slice(VERSION_1.0.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(VERSION_1.1.as_bytes()).expect("PEM");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let own = rustls::sign::CertifiedKey::new(vec![certificate], key);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)));
    let (port, _) = server(Some(Arc::new(config).into())).await;
    assert_eq!(ask(&get(true, port, "/200", &[])).await, Ok(()));
}

#[tokio::test]
async fn a_tcp_connection_is_enough_and_nobody_there_is_a_failure() {
    let (port, _) = server(None).await;
    let tcp = |host: Option<&str>, port| HealthCheck {
        action: Action::Tcp {
            host: host.map(str::to_owned),
            port,
        },
        ..check(Purpose::Liveness)
    };
    assert_eq!(ask(&tcp(None, port)).await, Ok(()));
    assert_eq!(ask(&tcp(Some("localhost"), port)).await, Ok(()));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let closed = free.local_addr().expect("an address").port();
    drop(free);
    let why = format!("TCP 127.0.0.1:{closed}: connection refused");
    assert_eq!(ask(&tcp(None, closed)).await, Err(why));
}

#[test]
fn redirects_lead_where_rfc_3986_says() {
    let from = Endpoint {
        tls: false,
        host: "10.88.0.2".to_owned(),
        port: 8080,
    };
    for (location, endpoint, path) in [
        ("/x?y#z", "http://10.88.0.2:8080", "/x?y"),
        ("x", "http://10.88.0.2:8080", "/a/x"),
        ("../x", "http://10.88.0.2:8080", "/x"),
        ("./", "http://10.88.0.2:8080", "/a/"),
        ("?y", "http://10.88.0.2:8080", "/a/b?y"),
        ("//other/x", "http://other:80", "/x"),
        ("https://10.88.0.2", "https://10.88.0.2:443", "/"),
        ("http://[fd00::9]:81/x", "http://[fd00::9]:81", "/x"),
    ] {
        let (to, found) = redirect::follow(&from, "/a/b?c", location).expect(location);
        assert_eq!(
            (to.to_string().as_str(), found.as_str()),
            (endpoint, path),
            "{location}"
        );
    }
}
