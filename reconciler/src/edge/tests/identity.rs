use flotta_bundle::{Digest, code};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, SanType};

use super::world::{self, World, certified, key};
use super::{hold, refused, waits};
use crate::fixture::{Fixture, TestDevice, eventually};

#[tokio::test]
async fn without_a_certificate_the_enrolment_routes_alone_answer() {
    let world = World::new().await;
    for (method, path) in [
        (Method::GET, "/v1/desired?root=1"),
        (Method::PUT, "/v1/report"),
        (Method::POST, "/v1/certificates"),
        (Method::GET, "/v1/blobs/sha256:00"),
    ] {
        let answer = world.ask(method, path, Vec::new()).await;
        assert_eq!(
            answer.failure(),
            refused(code::NO_CERTIFICATE, 401),
            "{path}"
        );
    }
    let none = format!("/v1/enrolments/{}", Digest::of(b"x").hex());
    for path in [none.as_str(), "/v1/none", "/"] {
        let answer = world.ask(Method::GET, path, Vec::new()).await;
        assert_eq!(answer.failure(), refused(code::NOT_FOUND, 404), "{path}");
    }
    let answer = world
        .ask(Method::DELETE, "/v1/enrolments", Vec::new())
        .await;
    assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 405));
}

/// Over TLS 1.3 a client learns with its first answer that its certificate is refused.
async fn turned_away(world: &World, identity: world::Identity) -> bool {
    match world.connect(Some(identity)).await {
        Err(_) => true,
        Ok(client) => client
            .send(Method::GET, "/v1/desired?root=1", &[], "")
            .await
            .is_err(),
    }
}

#[tokio::test]
async fn certificates_that_do_not_verify_end_the_handshake() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    let now = Timestamp::now();
    let genuine = world.join(&machine).await;
    assert!(!turned_away(&world, (genuine.0.clone(), key(&machine))).await);

    // the CA of another fleet with the same name
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Fixture::open(elsewhere.path());
    assert!(turned_away(&world, certified(&other.fleet, &machine, now)).await);

    // expired
    let then = now - SignedDuration::from_hours(24 * 100);
    assert!(turned_away(&world, certified(&world.fixture.fleet, &machine, then)).await);

    // a self-signed leaf for the device, with its genuine certificate as the second one
    let thief = TestDevice::new("a");
    let mut params = CertificateParams::default();
    let uri = machine.name.identity(world.fixture.fleet.name());
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let forged = params.self_signed(&thief.key).unwrap();
    let mut chain = vec![forged.der().clone()];
    chain.extend(genuine.0.clone());
    assert!(turned_away(&world, (chain, key(&thief))).await);
}

#[tokio::test]
async fn a_good_certificate_of_nobody_here_is_told_so() {
    let world = World::new().await;
    let (machine, now) = (TestDevice::new("a"), Timestamp::now());
    // signed by the fleet's CA, but the device has never joined
    let identity = certified(&world.fixture.fleet, &machine, now);
    let client = world.connect(Some(identity)).await.unwrap();
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::UNKNOWN_DEVICE, 403));

    // the name has joined with another key
    world.join(&TestDevice::new("a")).await;
    let identity = certified(&world.fixture.fleet, &machine, now);
    let client = world.connect(Some(identity)).await.unwrap();
    let answer = client.put("/v1/report", "{}").await;
    assert_eq!(answer.failure(), refused(code::UNKNOWN_DEVICE, 403));
}

#[tokio::test]
async fn revocation_closes_what_is_open_and_lets_nobody_in_again() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    world.fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    let identity = world.join(&machine).await;
    let again = (identity.0.clone(), key(&machine));
    let client = world.connect(Some(identity)).await.unwrap();
    let tag = client.get("/v1/desired?root=1", &[]).await;
    let held = hold(client, tag.header("etag"));
    waits(&world).await;

    let revoked = world
        .fixture
        .enroller
        .revoke(&machine.name, "ada", Timestamp::now());
    revoked.await.unwrap();
    let (client, answer) = held.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    client.ended().await;
    eventually("nobody waits", async || {
        (world.fixture.index.waiting() == 0).then_some(())
    })
    .await;

    let client = world.connect(Some(again)).await.unwrap();
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::REVOKED, 403));
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    world.join(&machine).await;
    let now = Timestamp::now();
    let ends_soon = now - SignedDuration::from_hours(24 * 90) + SignedDuration::from_secs(6);
    let identity = certified(&world.fixture.fleet, &machine, ends_soon);
    let client = world.connect(Some(identity)).await.unwrap();
    assert_eq!(client.put("/v1/report", "{}").await.status.as_u16(), 400);
    client.ended().await;
}
