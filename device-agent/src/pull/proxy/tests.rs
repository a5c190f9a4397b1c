//! Connections through a small proxy on the loopback, and through some that misbehave.

use std::sync::{Arc, Mutex};

use flotta_bundle::code;
use http::{Request, Response};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;

use super::super::Client;
use super::super::tests::TestServer;
use super::*;
use crate::clock::Clock;

/// What a test proxy does after the request.
#[derive(Clone, Copy)]
enum Does {
    /// Connects, as it should.
    Connects,
    /// Sends this and stays silent.
    Says(&'static [u8]),
    /// Sends this and hangs up.
    Leaves(&'static [u8]),
    /// Repeats this without end.
    Goes(&'static [u8]),
}

struct TestProxy {
    port: u16,
    /// The head of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("localhost:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // errors after the device hangs up do not matter
                tokio::spawn(serve(stream, does, heads.clone()));
            }
        });
        Self { port, asked }
    }

    /// A client that connects through this proxy.
    fn client(&self, server: &TestServer, login: &str, no: &str) -> Client {
        let https = format!("http://{login}localhost:{}", self.port);
        let no = no.to_owned();
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        Client::anonymous(&server.url, &server.ca, &clock, &Proxies { https, no })
            .expect("a client")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    does: Does,
    heads: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("text");
    let target = head.split(' ').nth(1).expect("a target").to_owned();
    heads.lock().expect("no panic").push(head);
    match does {
        Does::Connects => {
            let mut server = TcpStream::connect(target).await?;
            // as old proxies answer
            let answer = b"HTTP/1.0 200 Connection established\r\nProxy-Agent: test\r\n\r\n";
            stream.write_all(answer).await?;
            copy_bidirectional(&mut stream, &mut server).await?;
        }
        Does::Says(text) => {
            stream.write_all(text).await?;
            // until the other side hangs up
            stream.read_u8().await?;
        }
        Does::Leaves(text) => {
            stream.write_all(text).await?;
            stream.shutdown().await?;
        }
        Does::Goes(text) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(text).await?;
            }
        }
    }
    Ok(())
}

async fn server() -> TestServer {
    TestServer::start(|_: Request<Bytes>| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    })
    .await
}

/// Connects through a proxy that does this, and returns the code and message of the error.
async fn refusal(does: Does, login: &str) -> (String, String) {
    let (server, proxy) = (server().await, TestProxy::start(does).await);
    let client = proxy.client(&server, login, "");
    let error = client.connect().await.expect_err("no way through");
    assert!(error.is_lost() && !error.is_final());
    let problem = error.problem();
    assert!(problem.message.contains("proxy localhost:"), "{problem}");
    assert!(!problem.message.contains("secret"), "{problem}");
    assert_eq!(error.is_refusal(), problem.code == code::PROXY.id);
    (problem.code, problem.message)
}

async fn refuses(does: Does, login: &str, words: &str) {
    let (code, message) = refusal(does, login).await;
    assert_eq!(code, code::PROXY.id, "{message}");
    assert!(message.contains(words), "{message}");
}

#[tokio::test]
async fn a_proxy_carries_what_it_cannot_read() {
    let (server, proxy) = (server().await, TestProxy::start(Does::Connects).await);
    let client = proxy.client(&server, "", "");
    let session = client.connect().await.expect("a connection");
    let answer = session.desired(1, None, true).await;
    assert_eq!(answer.expect("the server's answer"), None);
    let target = client.authority().to_owned();
    let plain = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    assert_eq!(proxy.asked(), [plain]);
}

#[tokio::test]
async fn user_and_password_go_to_the_proxy() {
    let (server, proxy) = (server().await, TestProxy::start(Does::Connects).await);
    let client = proxy.client(&server, "shop:s%40cret@", "");
    client.connect().await.expect("a connection");
    let head = proxy.asked().remove(0);
    // shop:s@cret
    assert!(
        head.contains("\r\nproxy-authorization: Basic c2hvcDpzQGNyZXQ=\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_name_that_needs_no_proxy_is_reached_directly() {
    let server = server().await;
    for no in ["localhost", "*", "example.com, LOCALHOST"] {
        let proxy = TestProxy::start(Does::Leaves(b"")).await;
        let client = proxy.client(&server, "", no);
        client.connect().await.expect("a connection");
        assert_eq!(proxy.asked(), [""; 0], "{no}");
    }
}

#[tokio::test]
async fn a_proxy_that_says_no_is_quoted() {
    let wants = Does::Says(
        b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\nContent-Length: 9\r\n\r\nlogin ple",
    );
    refuses(wants, "", "requires a user and password").await;
    refuses(wants, "shop:secret@", "does not take the user and password").await;
    let forbids = Does::Says(b"HTTP/1.1 403 No\r\n\r\n");
    refuses(forbids, "", "it does not connect to localhost:").await;
    let portal = Does::Says(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n");
    refuses(portal, "", "302 Found").await;
}

#[tokio::test]
async fn what_answers_otherwise_is_no_proxy() {
    let garbage = Does::Says(b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n");
    refuses(garbage, "", "does not answer as a proxy does").await;
    let more = Does::Says(b"HTTP/1.1 200 OK\r\n\r\nWelcome");
    refuses(more, "", "sent more than").await;
    // A head without end: one endless header, or endless headers.
    let endless = "message head is too large";
    refuses(Does::Goes(b"x-long: yes\r\n"), "", endless).await;
    refuses(Does::Goes(b"long"), "", endless).await;
    refuses(Does::Says(&[b'a'; 2 * MAX_HEAD]), "", "does not answer").await;
}

#[tokio::test]
async fn a_proxy_that_goes_away_is_a_network_that_is_down() {
    for gone in [&b""[..], b"HTTP/1.1 200 Conn"] {
        let (code, message) = refusal(Does::Leaves(gone), "").await;
        assert_eq!(code, code::UNREACHABLE.id);
        assert!(
            message.contains("ended the connection without an answer"),
            "{message}"
        );
    }
    let (code, message) = refusal(Does::Says(b"HTTP/1.1 504 Late\r\n\r\n"), "").await;
    assert_eq!(code, code::UNREACHABLE.id);
    assert!(message.contains("cannot reach it: 504"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_not_waited_for_for_ever() {
    let (code, message) = refusal(Does::Says(b""), "").await;
    assert_eq!(code, code::UNREACHABLE.id);
    assert!(message.contains("no answer in"), "{message}");
}

#[test]
fn the_environment_is_read_as_people_write_it() {
    let of = |pairs: &[(&str, &str)]| {
        let variable = |name: &str| {
            let pair = pairs.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        Proxies::of(variable)
    };
    let way = |https: &str, no: &str, server: &str| {
        let found = of(&[("https_proxy", https), ("no_proxy", no)]).towards(server);
        found.map(|proxy| proxy.map(|proxy| proxy.to_string()))
    };
    for (https, no, server, expected) in [
        ("", "", "edge.example:443", None),
        (
            "http://p:3128",
            "",
            "edge.example:443",
            Some("proxy p:3128"),
        ),
        ("p:3128", "", "edge.example:443", Some("proxy p:3128")),
        ("http://u:w@p", "", "[2001:db8::1]:443", Some("proxy p:80")),
        (
            "http://[::1]:8",
            "",
            "edge.example:443",
            Some("proxy [::1]:8"),
        ),
        ("http://p:1", "example", "edge.example:443", None),
        ("http://p:1", ".example", "edge.example:443", None),
        ("http://p:1", "ample", "edge.example:443", Some("proxy p:1")),
        (
            "http://p:1",
            "other, edge.example",
            "edge.example:443",
            None,
        ),
        ("http://p:1", "*", "192.0.2.1:443", None),
        ("http://p:1", "192.0.2.0/24", "192.0.2.1:443", None),
        (
            "http://p:1",
            "192.0.2.2",
            "192.0.2.1:443",
            Some("proxy p:1"),
        ),
        ("http://p:1", "2001:db8::1", "[2001:db8::1]:443", None),
    ] {
        let found = way(https, no, server).expect("a way");
        assert_eq!(found.as_deref(), expected, "{https} {no} {server}");
    }
    for https in [
        "socks5://p:1",
        "https://p:1",
        "http://",
        "http://u:secret@",
        "a secret",
    ] {
        let error = way(https, "", "edge.example:443").expect_err(https);
        assert_eq!(error.problem().code, code::PROXY.id);
        assert!(error.is_final() && !error.to_string().contains("secret"));
    }
    let both = of(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")]);
    let proxy = both.towards("edge.example:443").expect("a way");
    assert_eq!(proxy.expect("a proxy").to_string(), "proxy a:1");
    let hidden = format!("{:?}", of(&[("HTTPS_PROXY", "http://u:secret@p:1")]));
    assert!(!hidden.contains("secret"), "{hidden}");
}
