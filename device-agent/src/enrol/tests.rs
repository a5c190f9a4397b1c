use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::root::{self, Role};
use flotta_bundle::verify::Highest;
use flotta_bundle::{Digest, FleetName};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::pull::tests::{TestServer, json as answer};

fn fleet() -> FleetName {
    "shops".parse().expect("a fleet")
}

fn trust(key: &SigningKey, version: u32) -> TrustRoot {
    TrustRoot {
        schema: root::SCHEMA,
        fleet: fleet(),
        version,
        root: Role::any_of([key.public()]),
        release: Role::any_of([key.public()]),
    }
}

fn key() -> SigningKey {
    SigningKey::generate().expect("a key").0
}

/// A valid join file, as JSON for the tests to break.
fn file(server: &str, ca: &str) -> Value {
    let key = key();
    let root = Envelope::sign(root::PAYLOAD_TYPE, &trust(&key, 1).encode(), &[&key]);
    json!({
        "schema": 1, "fleet": "shops", "server": server, "ca": ca,
        "trust_root": root, "device": "default/shop-17", "token": "flotta_secret",
    })
}

fn parse(value: &Value) -> Result<Join, EnrolError> {
    let bytes = serde_json::to_vec_pretty(value).expect("JSON");
    Join::parse(&bytes, "a.join".as_ref(), None)
}

#[test]
fn a_join_file_that_is_in_order_is_read_and_its_token_not_shown() {
    let join = parse(&file("https://edge.example", "")).expect("a join file");
    assert_eq!(join.device.to_string(), "default/shop-17");
    assert_eq!(join.trust.version, 1);
    assert!(!format!("{join:?}").contains("flotta_secret"));
    let bytes = serde_json::to_vec(&file("https://edge.example", "")).expect("JSON");
    let other = "north/press".parse().expect("a name");
    let named = Join::parse(&bytes, "a.join".as_ref(), Some(other)).expect("a join file");
    assert_eq!(named.device.to_string(), "north/press");
}

#[test]
fn a_spoilt_join_file_says_where_and_what() {
    let spoilt = |spoil: &dyn Fn(&mut Value)| {
        let mut value = file("https://edge.example", "");
        spoil(&mut value);
        let problem = parse(&value).expect_err("spoilt").problem();
        assert_eq!(problem.code, "FLT0419");
        problem.message
    };
    let unknown = spoilt(&|v| v["tokken"] = json!("x"));
    assert!(
        unknown.starts_with("a.join:") && unknown.contains("unknown field `tokken`"),
        "{unknown}"
    );
    assert!(spoilt(&|v| v["schema"] = json!(2)).contains("update flotta-agent"));
    assert!(spoilt(&|v| v["fleet"] = json!("other")).contains("for fleet other"));
    assert!(spoilt(&|v| v["fleet"] = json!("No")).starts_with("a.join:"));
    // signed by other keys than it names
    let unsigned = spoilt(&|v| {
        let (a, b) = (key(), key());
        let root = Envelope::sign(root::PAYLOAD_TYPE, &trust(&a, 1).encode(), &[&b]);
        v["trust_root"] = serde_json::to_value(root).expect("JSON");
    });
    assert!(unsigned.contains("0 of the 1 signatures"), "{unsigned}");
    let cut = Join::parse(
        b"{\n  \"schema\": 1,\n  \"fleet\": ",
        "b.join".as_ref(),
        None,
    );
    let cut = cut.expect_err("cut off").problem().message;
    assert!(cut.starts_with("b.join:3:"), "{cut}");
}

#[test]
fn a_join_file_is_bounded_and_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.join");
    std::fs::write(&path, vec![b' '; MAX_JOIN_BYTES + 1]).expect("written");
    let long = Join::read(&path, None).expect_err("too long").problem();
    assert_eq!(long.code, "FLT0419");
    assert!(long.message.contains("longer than"), "{long}");
    assert!(Join::read(&folder.path().join("none"), None).is_err());
}

fn client(join: &Join) -> Result<Client, EnrolError> {
    join.client(&Clock::new(Timestamp::UNIX_EPOCH), &Proxies::default())
}

#[test]
fn a_server_that_cannot_be_one_is_refused_before_anything_is_made() {
    let join = parse(&file("http://edge.example", "")).expect("a join file");
    assert_eq!(
        client(&join).expect_err("not https").problem().code,
        "FLT0419"
    );
    let join = parse(&file("https://edge.example", "")).expect("a join file");
    assert_eq!(
        client(&join).expect_err("no authority").problem().code,
        "FLT0419"
    );
}

#[test]
fn joining_again_opens_no_way_back() {
    let (a, b) = (key(), key());
    let highest = Some(Highest {
        sequence: 42,
        root: Digest::of(b"tree"),
    });
    let old = Memory {
        trust: trust(&a, 2),
        highest,
    };
    assert_eq!(remember(Some(&old), &trust(&a, 2)), None);
    assert_eq!(remember(Some(&old), &trust(&a, 1)), None);
    let newer = remember(Some(&old), &trust(&b, 3)).expect("the newer root");
    assert_eq!((newer.trust.version, newer.highest), (3, highest));
    let other = remember(Some(&old), &trust(&b, 2)).expect("another fleet");
    assert_eq!(other.highest, None);
    assert!(remember(None, &trust(&a, 1)).is_some());
}

#[tokio::test]
async fn a_device_asks_waits_and_is_answered() {
    let approved = Arc::new(AtomicBool::new(false));
    let posts = Arc::new(AtomicUsize::new(0));
    let (decided, counted) = (approved.clone(), posts.clone());
    let server = TestServer::start(move |request| {
        assert_eq!(
            (request.method().as_str(), request.uri().path()),
            ("POST", "/v1/enrolments")
        );
        let asked: EnrolmentRequest = serde_json::from_slice(request.body()).expect("a request");
        assert_eq!(asked.token.expect("a token").expose(), "flotta_secret");
        counted.fetch_add(1, Ordering::SeqCst);
        let device = asked.device;
        answer(
            200,
            &if decided.load(Ordering::SeqCst) {
                Enrolment::Approved {
                    device,
                    certificate: "PEM".to_owned(),
                }
            } else {
                Enrolment::Pending { device }
            },
        )
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let (identity, _) = Identity::open_or_make(folder.path()).expect("keys");
    let join = parse(&file(&server.url, &server.ca)).expect("a join file");
    let client = client(&join).expect("a client");
    let hardware = Hardware::default();
    let mut told = 0;
    let now = Some(Instant::now());
    let waits = join
        .ask(&identity, &hardware, &client, now, || told += 1)
        .await;
    assert_eq!(waits.expect("an answer"), None);
    approved.store(true, Ordering::SeqCst);
    let joined = join.ask(&identity, &hardware, &client, now, || {}).await;
    let (device, certificate) = joined.expect("an answer").expect("a certificate");
    assert_eq!((device, &*certificate), (join.device.clone(), "PEM"));
    assert_eq!((told, posts.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_no_is_final() {
    let server = TestServer::start(|_| {
        let reason = "not ours".to_owned();
        answer(200, &Enrolment::Denied { reason })
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let (identity, _) = Identity::open_or_make(folder.path()).expect("keys");
    let join = parse(&file(&server.url, &server.ca)).expect("a join file");
    let client = client(&join).expect("a client");
    let denied = join
        .ask(&identity, &Hardware::default(), &client, None, || {})
        .await;
    let problem = denied.expect_err("denied").problem();
    assert_eq!(problem.code, "FLT0410");
    assert!(problem.message.contains("not ours"));
}
