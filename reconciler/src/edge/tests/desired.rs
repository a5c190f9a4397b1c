use flotta_bundle::manifest::Settings;
use flotta_bundle::verify::{Memory, verify_offer};
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, code};
use jiff::{SignedDuration, Timestamp};

use super::world::{World, key};
use super::{hold, refused, waits};
use crate::edge::limits::Limits;
use crate::fixture::{Fixture, TestDevice, bundle, bundle_with, name};

#[tokio::test]
async fn a_poll_is_held_until_this_device_is_concerned() {
    let world = World::new().await;
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    world.fixture.publish(1, &[("a", &[old]), ("b", &[old])]);
    let client = world.device(&TestDevice::new("a")).await;
    let first = client.get("/v1/desired?root=1", &[]).await;
    let tag = first.header("etag").to_owned();
    assert_eq!(tag, format!("\"1-{}\"", old.hex()));

    // there is something new, so the answer comes at once
    let answer = client
        .get("/v1/desired?root=1", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.status, 304);
    // a device with an old trust root is answered, whatever its tag
    let answer = client
        .get("/v1/desired?root=0", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.json::<Offer>().roots.len(), 1);

    let held = hold(client, &tag);
    waits(&world).await;
    // a commit for b wakes only b: if it had woken a, a would have got release 2 while b asks
    let other = world.device(&TestDevice::new("b")).await;
    world
        .fixture
        .publish(2, &[("a", &[old]), ("b", &[new, old])]);
    let told = other.get("/v1/desired?root=1", &[]).await;
    assert_eq!(told.header("etag"), format!("\"2-{}\"", new.hex()));
    world
        .fixture
        .publish(3, &[("a", &[new, old]), ("b", &[new, old])]);
    let (client, answer) = held.await.unwrap();
    let answer = answer.unwrap();
    assert_eq!(answer.header("etag"), format!("\"3-{}\"", new.hex()));

    // and a device accepts it
    let memory = Memory {
        trust: world.fixture.fleet.trust_root().clone(),
        highest: None,
    };
    let accepted = verify_offer(&answer.json(), &name("a"), &memory).unwrap();
    assert_eq!(accepted.manifest, new);
    // it gets the release that did not concern it with its next poll
    let answer = client
        .get("/v1/desired?root=1", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn who_has_just_joined_waits_for_its_first_release() {
    let world = World::new().await;
    let client = world.device(&TestDevice::new("a")).await;
    let asked = tokio::spawn(async move { client.get("/v1/desired?root=1", &[]).await });
    waits(&world).await;
    world.fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    assert_eq!(asked.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_stop_answers_held_polls_and_a_restart_makes_nothing_anew() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    world.fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    let certificate = world.join(&machine).await;
    let again = (certificate.0.clone(), key(&machine));
    let client = world.connect(Some(certificate)).await.unwrap();
    let tag = client.get("/v1/desired?root=1", &[]).await;
    let tag = tag.header("etag").to_owned();
    let held = hold(client, &tag);
    waits(&world).await;
    let keys = |data: &std::path::Path| {
        let files = std::fs::read_dir(data.join("keys")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        let content = |path| (std::fs::read(&path).unwrap(), path);
        files.into_iter().map(content).collect::<Vec<_>>()
    };
    let before = keys(world.data.path());
    assert!(before.len() >= 7, "{before:?}");
    let data = world.stop().await;
    let (client, answer) = held.await.unwrap();
    assert_eq!(answer.unwrap().status, 304);
    client.ended().await;

    let fixture = Fixture::open(data.path());
    fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    let world = World::serve(fixture, data, Limits::default()).await;
    assert_eq!(keys(world.data.path()), before);
    let client = world.connect(Some(again)).await.unwrap();
    let answer = client
        .get("/v1/desired?root=1", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.status, 304);
}

#[tokio::test]
async fn the_servers_new_certificate_serves_from_the_next_handshake_on() {
    let data = tempfile::tempdir().unwrap();
    let then = Timestamp::now() - SignedDuration::from_hours(24 * 300);
    let fixture = Fixture::open_at(data.path(), then);
    let world = World::serve(fixture, data, Limits::default()).await;
    let before = world.connect(None).await.unwrap();
    assert!(
        world
            .fixture
            .fleet
            .renew_certificates(&[], Timestamp::now())
            .unwrap()
    );
    let after = world.connect(None).await.unwrap();
    assert_ne!(before.certificate, after.certificate);
    // open connections stay
    assert_eq!(before.get("/v1/none", &[]).await.status, 404);
}

#[tokio::test]
async fn a_device_whose_agent_is_too_old_keeps_what_it_has() {
    let world = World::new().await;
    let (first, blobs) = bundle(b"old");
    world.fixture.depot.put_blobs(&blobs).await.unwrap();
    let moved = Settings {
        servers: vec!["https://edge.example".to_owned()],
        ..Settings::default()
    };
    let (second, blobs) = bundle_with(b"new", moved);
    world.fixture.depot.put_blobs(&blobs).await.unwrap();
    world
        .fixture
        .publish(1, &[("a", &[second, first]), ("b", &[second])]);
    let client = world.device(&TestDevice::new("a")).await;
    // an agent of the first version does not say which schema it reads
    for (asked, manifest) in [("", first), ("&schema=1", first), ("&schema=2", second)] {
        let path = format!("/v1/desired?root=1{asked}");
        let offer = client.get(&path, &[]).await.json::<Offer>();
        assert_eq!(offer.manifest, manifest, "{asked}");
    }
    let client = world.device(&TestDevice::new("b")).await;
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::AGENT_TOO_OLD, 409));
    let answer = client.get("/v1/desired?root=1&schema=2", &[]).await;
    assert_eq!(answer.json::<Offer>().manifest, second);
}
