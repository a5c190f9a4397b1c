//! The log: one line for each event, and no line that a device can write.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use flotta_bundle::{Digest, code};
use http::Method;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::MakeWriter;

use super::raw::{Dialler, H2};
use super::world::{Client, World};
use crate::edge::limits::Limits;
use crate::fixture::{TestDevice, name, report};
use crate::rate::CONNECTIONS_EACH;

/// Captures the log; the server and its devices run on this test's one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// With only one subscriber, tracing caches whether a log line is enabled for the thread that reaches it first, which may be
/// another test's.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

impl Log {
    /// Starts a log as `flotta serve` writes it, at `level`.
    fn begin(level: tracing::Level) -> (Self, DefaultGuard) {
        LazyLock::force(&ANOTHER);
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(log.clone())
            .with_ansi(false)
            .with_target(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines since the last call. Checks that none has control characters, and that the server wrote the start of each.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        for line in &lines {
            assert!(super::obeyed(line).is_empty(), "{line}");
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
            let level = rest.split_whitespace().next().unwrap();
            assert!(
                ["ERROR", "WARN", "INFO", "DEBUG"].contains(&level),
                "{line}"
            );
            assert!(!line.contains("FORGED"), "{line}");
        }
        lines
    }
}

/// A line that a device tries to forge.
const FORGED: &str = "x\n2026-11-24T00:00:00.000000Z  WARN FORGED device=default/b\r\u{1b}[1A\u{1b}[2K\u{9b}K\u{85}\u{2028}";

fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02x}");
        all
    })
}

/// Requests, each with the code in its log line; none where nothing is refused.
fn requests(machine: &TestDevice) -> Vec<(Method, String, Vec<u8>, Option<code::Code>)> {
    let forged = percent(FORGED);
    let mut good = report();
    for text in [&mut good.agent, &mut good.boot, &mut good.hardware.model] {
        FORGED.clone_into(text);
    }
    let bad = serde_json::json!({"agent": 1, FORGED: FORGED, "phase": FORGED});
    let wrong = serde_json::json!({"csr": FORGED});
    let mut ask = serde_json::to_value(machine.request(None)).unwrap();
    ask["device"] = FORGED.into();
    let asks = |ask: &serde_json::Value| ask.to_string().into_bytes();
    let unnamed = asks(&ask);
    ask["device"] = "c".into();
    ask["token"] = FORGED.into();
    ask["hardware"]["model"] = FORGED.into();
    let other = Digest::of(b"other");
    vec![
        (
            Method::GET,
            format!("/v1/blobs/{other}"),
            vec![],
            Some(code::NOT_YOURS),
        ),
        (
            Method::GET,
            format!("/v1/blobs/{forged}"),
            vec![],
            Some(code::BAD_REQUEST),
        ),
        (
            Method::GET,
            format!("/{forged}"),
            vec![],
            Some(code::NOT_FOUND),
        ),
        (
            Method::GET,
            format!("/v1/desired?root={forged}"),
            vec![],
            Some(code::BAD_REQUEST),
        ),
        (
            Method::GET,
            format!("/v1/enrolments/{forged}"),
            vec![],
            Some(code::BAD_REQUEST),
        ),
        (
            Method::DELETE,
            format!("/v1/report?{forged}"),
            vec![],
            Some(code::BAD_REQUEST),
        ),
        (
            Method::PUT,
            "/v1/report".to_owned(),
            asks(&bad),
            Some(code::BAD_REQUEST),
        ),
        (
            Method::PUT,
            "/v1/report".to_owned(),
            vec![b' '; (1 << 20) + 1],
            Some(code::TOO_LARGE),
        ),
        (
            Method::PUT,
            "/v1/report".to_owned(),
            serde_json::to_vec(&good).unwrap(),
            None,
        ),
        (
            Method::POST,
            "/v1/certificates".to_owned(),
            asks(&wrong),
            Some(code::CSR),
        ),
        (
            Method::POST,
            "/v1/enrolments".to_owned(),
            unnamed,
            Some(code::BAD_REQUEST),
        ),
        // the proof is for another name: refused before any lookup
        (
            Method::POST,
            "/v1/enrolments".to_owned(),
            asks(&ask),
            Some(code::CSR),
        ),
    ]
}

async fn send(client: &Client, method: Method, path: &str, body: Vec<u8>) -> u16 {
    let headers = [("user-agent", "x\tFORGED"), ("if-none-match", "FORGED")];
    let answer = client.send(method, path, &headers, body).await.unwrap();
    answer.status.as_u16()
}

#[tokio::test]
async fn each_refusal_is_one_line_that_its_device_did_not_write() {
    let (log, _guard) = Log::begin(tracing::Level::WARN);
    let world = World::new().await;
    let (mut tried, mut lines) = (0, 0);
    for who in ["a", "stranger"] {
        for (count, (method, path, body, code)) in
            requests(&TestDevice::new(who)).into_iter().enumerate()
        {
            let machine = TestDevice::new(&format!("a{count}"));
            let client = match who {
                "a" => world.device(&machine).await,
                _ => world.connect(None).await.unwrap(),
            };
            assert_eq!(log.lines(), [""; 0]);
            let status = send(&client, method.clone(), &path, body).await;
            let found = log.lines();
            tried += 1;
            lines += found.len();
            let is_asking = path.contains("enrolments") || !path.starts_with("/v1");
            let code = match code {
                Some(_) if who != "a" && !is_asking && method != Method::DELETE => {
                    Some(code::NO_CERTIFICATE)
                }
                None if who != "a" => Some(code::NO_CERTIFICATE),
                code => code,
            };
            match (code, &found[..]) {
                (None, []) => assert_eq!(status, 200),
                (Some(code), [line]) => {
                    assert!(line.contains(code.id), "{code:?}: {line}");
                    assert!(line.contains("from=127.0.0.1"), "{line}");
                    // a claimed name is in another field than a name from a certificate
                    let named = line.contains(&format!("device=default/a{count} "));
                    let claims = line.contains("claims=default/c ");
                    assert_eq!(named, who == "a" && !claims, "{line}");
                    assert_eq!(line.contains("device="), named, "{line}");
                }
                other => panic!("{method} {path}: {other:?}"),
            }
        }
    }
    println!("log: {tried} requests, {lines} lines, none forged");
    assert_eq!((tried, lines), (24, 23));
}

#[tokio::test]
async fn one_who_is_not_served_and_goes_on_asking_is_one_line() {
    let (log, _guard) = Log::begin(tracing::Level::WARN);
    let world = World::new().await;
    let now = jiff::Timestamp::now();
    let (unknown, left) = (TestDevice::new("unknown"), TestDevice::new("left"));
    world.join(&left).await;
    let revoked = world.fixture.enroller.revoke(&left.name, "ada", now);
    revoked.await.unwrap();
    let mut tried = 0;
    // like an agent that keeps coming back
    for _ in 0..20 {
        for machine in [&unknown, &left] {
            let identity = super::world::certified(&world.fixture.fleet, machine, now);
            let client = world.connect(Some(identity)).await.unwrap();
            for _ in 0..5 {
                let answer = client.get("/v1/desired?root=1", &[]).await;
                assert_eq!(answer.status, 403);
                tried += 1;
            }
        }
    }
    let lines = log.lines();
    println!(
        "log: {tried} requests of two that are not served, {} lines",
        lines.len()
    );
    let about = |code: code::Code| lines.iter().filter(|line| line.contains(code.id)).count();
    assert_eq!(
        (about(code::UNKNOWN_DEVICE), about(code::REVOKED)),
        (1, 1),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn at_any_level_nothing_that_a_device_sends_begins_a_line() {
    let (log, _guard) = Log::begin(tracing::Level::DEBUG);
    let world = World::new().await;
    let machine = TestDevice::new("a");
    let client = world.device(&machine).await;
    let mut tried = 0;
    for (method, path, body, _) in requests(&machine) {
        send(&client, method, &path, body).await;
        tried += 1;
    }
    for path in ["/v1/desired?root=1", FORGED] {
        let identity = world.enrol(&TestDevice::new("c"), None).await;
        assert_eq!(identity.status, 200);
        let raw = Dialler::new(&world, None, H2);
        raw.say(path.as_bytes()).await.until_closed().await;
        tried += 2;
    }
    let lines = log.lines();
    println!(
        "log in full: {tried} requests, {} lines, none forged",
        lines.len()
    );
    assert!(!lines.is_empty());
}

#[tokio::test]
async fn a_flood_fills_no_log() {
    let (log, _guard) = Log::begin(tracing::Level::WARN);
    let world = World::with(Limits {
        penalty: std::time::Duration::ZERO,
        ..Limits::default()
    })
    .await;
    let machine = TestDevice::new("a");
    let identity = world.join(&machine).await;
    let dialler = Dialler::new(&world, Some(identity), H2);
    let mut held = Vec::new();
    let (tried, mut kept) = (500, 0);
    for _ in 0..tried {
        let mut raw = dialler.dial().await;
        if raw.is_served().await {
            held.push(raw);
            kept += 1;
        }
    }
    assert_eq!(kept, CONNECTIONS_EACH);
    let about_connections = log.lines();
    drop(held);

    let other = world.device(&TestDevice::new("b")).await;
    let member = world.fixture.store.member(&name("b")).unwrap();
    while member.allowance().admits_request() {}
    for _ in 0..tried {
        other.get("/v1/none", &[]).await;
    }
    let about_requests = log.lines();
    for (lines, device, what) in [
        (&about_connections, "a", "too many connections"),
        (&about_requests, "b", "refused a request"),
    ] {
        println!("log: {tried} of a flood, {} lines: {what}", lines.len());
        // some lines, so that it is noticed; then one a second
        assert!((10..tried / 2).contains(&lines.len()), "{lines:?}");
        for line in lines {
            assert!(line.contains(what) && line.contains("skipped="), "{line}");
            assert!(
                line.contains(&format!("device=default/{device} ")),
                "{line}"
            );
        }
    }
}
