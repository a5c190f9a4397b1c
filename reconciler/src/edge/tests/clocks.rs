use flotta_bundle::{Digest, code};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpStream;

use super::refused;
use super::world::{World, certified, connector_by};
use crate::edge::limits::Limits;
use crate::fixture::{Fixture, TestDevice, name};
use crate::keys::tests::offsets;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Devices keep the CA certificates from when they joined; certificates by the same keys must verify with those.
#[tokio::test]
async fn a_fleet_made_by_a_wrong_clock_is_there_once_the_clock_is_right_and_no_device_is_touched() {
    let mut refused_before = 0;
    for offset in offsets() {
        let data = tempfile::tempdir().unwrap();
        let fixture = Fixture::open_at(data.path(), Timestamp::now() + offset);
        let world = World::serve(fixture, data, Limits::default()).await;
        let fleet = &world.fixture.fleet;
        let (ca, machine) = (fleet.server_ca_certificate_pem(), TestDevice::new("a"));
        let shakes = async || {
            let identity = certified(fleet, &machine, Timestamp::now());
            let stream = TcpStream::connect(world.address).await.unwrap();
            let connector = connector_by(&ca, Some(identity), b"h2");
            let shaken = connector.connect("localhost".try_into().unwrap(), stream);
            shaken.await.is_ok()
        };
        refused_before += usize::from(!shakes().await);
        fleet.renew_certificates(&[], Timestamp::now()).unwrap();
        assert!(shakes().await, "{offset:#}");
        // and the device's own certificate, by the CA that the server started with
        let client = world.device(&machine).await;
        world
            .fixture
            .publish(1, &[("a", &[Digest::of(b"manifest")])]);
        let answer = client.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200, "{offset:#}");
    }
    assert!(refused_before > 2, "the test can tell: {refused_before}");
    println!(
        "fleets made by {} wrong clocks, {refused_before} of no use until now",
        offsets().len()
    );
}

#[tokio::test]
async fn a_clock_in_doubt_serves_who_was_there_and_signs_for_nobody() {
    let world = World::new().await;
    let (fleet, store) = (&world.fixture.fleet, &world.fixture.store);
    let machine = TestDevice::new("a");
    world.join(&machine).await;
    world
        .fixture
        .publish(1, &[("a", &[Digest::of(b"manifest")])]);
    // the clock was right two years ago by its own time, so it is taken to be two years ahead
    let then = Timestamp::now() - DAY * 730;
    let old = || certified(fleet, &machine, then - DAY);
    let asks = async || {
        let client = world.connect(Some(old())).await.ok()?;
        let answer = client
            .send(Method::GET, "/v1/desired?root=1", &[], "")
            .await;
        answer.ok().map(|answer| (client, answer))
    };
    assert!(asks().await.is_none(), "it has ended");

    let (identity, csr, token) = (old(), machine.csr(), world.fixture.token(Some("b")).await);
    store.set_meta("clock", format!("{then:.0}")).await.unwrap();
    let doubted = fleet.clock().open(store, Timestamp::now()).await.unwrap();
    assert!(doubted.is_some());
    let client = world.connect(Some(identity)).await.unwrap();
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.status, 200);
    let in_doubt = refused(code::SERVER_CLOCK, 503);
    let body = serde_json::to_vec(&serde_json::json!({ "csr": csr })).unwrap();
    let renewed = client
        .send(Method::POST, "/v1/certificates", &[], body)
        .await;
    assert_eq!(renewed.unwrap().failure(), in_doubt);
    let joined = world
        .enrol(&TestDevice::new("b"), Some(token.clone()))
        .await;
    assert_eq!(joined.failure(), in_doubt);
    let hour = SignedDuration::from_hours(1);
    let terms = crate::store::NewToken::default();
    let made = world
        .fixture
        .enroller
        .create_token(terms, hour, Timestamp::now())
        .await;
    assert_eq!(made.unwrap_err().code(), code::SERVER_CLOCK);

    // a person says that it is right: the unused token is valid
    fleet.clock().accept(Timestamp::now());
    fleet.clock().look(Timestamp::now(), &[], 1);
    let joined = world.enrol(&TestDevice::new("b"), Some(token)).await;
    assert_eq!(joined.status, 200);
    assert!(
        asks().await.is_none(),
        "it has ended, and that is known now"
    );
}

#[tokio::test]
async fn a_token_from_the_future_is_none() {
    let world = World::new().await;
    for offset in offsets() {
        let terms = crate::store::NewToken {
            device: Some(name("a")),
            ..Default::default()
        };
        let then = Timestamp::now() + offset;
        let made = world
            .fixture
            .enroller
            .create_token(terms, DAY * 30, then)
            .await;
        let machine = TestDevice::new("a");
        let answer = world.enrol(&machine, Some(made.unwrap().0)).await;
        let is_ahead = offset > SignedDuration::from_hours(1);
        if is_ahead || offset <= -DAY * 30 {
            assert_eq!(
                answer.failure(),
                refused(code::TOKEN_EXPIRED, 403),
                "{offset:#}"
            );
        } else {
            assert_eq!(answer.status, 200, "{offset:#}");
            let by = "a test";
            let revoked = world
                .fixture
                .enroller
                .revoke(&machine.name, by, Timestamp::now());
            revoked.await.unwrap();
        }
    }
}
