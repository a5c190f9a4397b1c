//! A server that was restored from a backup: devices prove the releases that it does not know.

use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::wire::{Acknowledged, Enrolment, Report};
use flotta_bundle::{Digest, FleetName, Problem, code};
use http::Method;
use jiff::Timestamp;

use super::refused;
use super::world::{Answer, Client, World, certified};
use crate::fixture::{Fixture, TestDevice, name, release, report};
use crate::store::Proof;

async fn tell(client: &Client, report: &Report) -> Acknowledged {
    let answer = client.put("/v1/report", serde_json::to_vec(report).unwrap());
    answer.await.json()
}

/// A report of a device that has accepted this release.
fn accepted(sequence: u64, proof: Option<&Envelope>) -> Report {
    Report {
        release: Some(sequence),
        accepted: proof.cloned(),
        ..report()
    }
}

fn proven(fixture: &Fixture) -> Option<u64> {
    let proof: Option<Proof> = fixture.store.proofs().borrow().clone();
    proof.map(|proof| proof.sequence)
}

/// The messages of events with this reason.
async fn events(fixture: &Fixture, reason: &str) -> Vec<String> {
    let events = fixture.events().await.into_iter();
    let events = events.filter(|(of, _)| of == reason);
    events.map(|(_, message)| message).collect()
}

#[tokio::test]
async fn a_signed_release_raises_the_sequence_and_a_number_alone_does_not() {
    let world = World::new().await;
    let manifest = Digest::of(b"1");
    world.fixture.publish(25, &[("a", &[manifest])]);
    let liar = world.device(&TestDevice::new("liar")).await;
    let client = world.device(&TestDevice::new("a")).await;
    // no proof is asked for this server's own releases
    for sequence in [1, 25] {
        assert!(!tell(&client, &accepted(sequence, None)).await.prove);
    }

    // a sequence alone, however high, changes nothing, and its proof is asked for each time
    for sequence in [26, 1_000_000, i64::MAX as u64] {
        assert!(tell(&liar, &accepted(sequence, None)).await.prove);
    }
    let other_key = SigningKey::generate().unwrap().0;
    let genuine = |sequence| {
        let release = release(
            &world.fixture.fleet,
            sequence,
            &[("a", &[Digest::of(b"2")])],
        );
        release.release().clone()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let of_others = release(&Fixture::open(elsewhere.path()).fleet, 99, &[]);
    let key = world.fixture.fleet.release_key().unwrap();
    let of = |fleet: &str, sequence| {
        let fleet: FleetName = fleet.parse().unwrap();
        let tree = serde_json::json!({"size": 0, "root": Digest::of(b"")});
        serde_json::json!({"schema": 1, "fleet": fleet, "sequence": sequence, "tree": tree,
            "issued": "2026-11-27T00:00:00Z", "expires": "2027-11-27T00:00:00Z",
            "revision": {"source": "directory", "commit": "c", "subject": ""}})
        .to_string()
        .into_bytes()
    };
    let kind = flotta_bundle::release::PAYLOAD_TYPE;
    let forged = [
        // signed by an unknown key, by a fleet of the same name, for another fleet with this key, and with the highest number
        Envelope::sign(kind, &of("shops", 99), &[&other_key]),
        of_others.release().clone(),
        Envelope::sign(kind, &of("bakery", 99), &[&key]),
        Envelope::sign(kind, &of("shops", u64::MAX), &[&key]),
        Envelope::sign(kind, b"{}", &[&key]),
        Envelope::sign(flotta_bundle::root::PAYLOAD_TYPE, &of("shops", 99), &[&key]),
        // genuine, but not later than the release in force
        genuine(24),
    ];
    for proof in &forged {
        assert!(tell(&liar, &accepted(99, Some(proof))).await.prove);
        assert_eq!(proven(&world.fixture), None);
    }
    println!("proofs: {} that are none, none taken", forged.len());

    // a later release that the fleet signed counts
    assert!(tell(&client, &accepted(47, None)).await.prove);
    let proof = genuine(47);
    assert!(!tell(&client, &accepted(47, Some(&proof))).await.prove);
    assert_eq!(proven(&world.fixture), Some(47));
    // it is asked for once, and lower proofs of other devices add nothing
    assert!(!tell(&client, &accepted(47, Some(&proof))).await.prove);
    assert!(!tell(&client, &accepted(46, None)).await.prove);
    let said = events(&world.fixture, "Behind").await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("release 47"), "{said:?}");
    // the proof is not stored with the report
    let report = world.report("a").await;
    assert_eq!(report.accepted, None);

    drop(liar);
    drop(client);
    let data = world.stop().await;
    let store = crate::store::Store::open(data.path()).unwrap();
    let kept = store.proofs().borrow().clone().map(|proof| proof.sequence);
    assert_eq!(kept, Some(47), "it is durable");
}

#[tokio::test]
async fn another_release_of_the_number_in_force_is_proof_too() {
    let world = World::new().await;
    world
        .fixture
        .publish(2, &[("a", &[Digest::of(b"another story")])]);
    let client = world.device(&TestDevice::new("a")).await;
    let mut said = accepted(2, None);
    assert!(!tell(&client, &said).await.prove);
    said.problems = vec![Problem::new(code::EQUIVOCATION, "release 2 has root …")];
    assert!(tell(&client, &said).await.prove);
    // the release in force itself proves nothing
    let ours = world.fixture.index.current().unwrap().release().clone();
    said.accepted = Some(ours);
    tell(&client, &said).await;
    assert_eq!(proven(&world.fixture), None);
    let other = release(
        &world.fixture.fleet,
        2,
        &[("a", &[Digest::of(b"one story")])],
    );
    said.accepted = Some(other.release().clone());
    assert!(!tell(&client, &said).await.prove);
    assert_eq!(proven(&world.fixture), Some(2));
}

async fn ask(client: &Client, machine: &TestDevice) -> Answer {
    let body = serde_json::to_vec(&machine.request(None)).unwrap();
    let answer = client.send(Method::POST, "/v1/enrolments", &[], body);
    answer.await.unwrap()
}

/// Pending requests: name, whether it has a certificate of this fleet, and why it waits.
async fn waiting(fixture: &Fixture) -> Vec<(String, bool, String)> {
    let requests = fixture.store.requests().await.unwrap().into_iter();
    let waits = requests.filter(|request| request.state == crate::store::RequestState::Pending);
    waits
        .map(|request| {
            (
                request.device.name().to_owned(),
                request.vouched,
                request.note,
            )
        })
        .collect()
}

#[tokio::test]
async fn a_device_that_the_store_does_not_know_asks_and_a_person_takes_it_back() {
    let world = World::new().await;
    let now = Timestamp::now();
    let manifest = Digest::of(b"1");
    world
        .fixture
        .publish(1, &[("a", &[manifest]), ("b", &[manifest])]);
    let (a, b) = (TestDevice::new("a"), TestDevice::new("b"));
    let connect = async |machine: &TestDevice| {
        let identity = certified(&world.fixture.fleet, machine, now);
        world.connect(Some(identity)).await.unwrap()
    };
    let client = connect(&a).await;
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::UNKNOWN_DEVICE, 403));
    // it is never approved automatically, because it may have been revoked since
    for _ in 0..3 {
        let asked: Enrolment = ask(&client, &a).await.json();
        assert_eq!(asked, Enrolment::Pending { device: name("a") });
    }
    assert_eq!(
        waiting(&world.fixture).await,
        [(
            "a".to_owned(),
            true,
            // this store was never restored
            "certificate of this fleet, not in the store".to_owned()
        )]
    );
    assert_eq!(events(&world.fixture, "JoinRequested").await.len(), 1);

    // a certificate counts only for its own name and key
    let thief = TestDevice::new("c");
    let asked = ask(&client, &thief).await;
    assert_eq!(
        asked.json::<Enrolment>(),
        Enrolment::Pending { device: name("c") }
    );
    let stranger = world.enrol(&TestDevice::new("d"), None).await;
    assert_eq!(
        stranger.json::<Enrolment>(),
        Enrolment::Pending { device: name("d") }
    );
    let by_name: Vec<_> = waiting(&world.fixture).await;
    let vouched = by_name.iter().filter(|(_, vouched, _)| *vouched);
    assert_eq!(vouched.count(), 1, "{by_name:?}");

    // a device whose name another key has taken meanwhile is left for a person to decide
    world.join(&TestDevice::new("b")).await;
    let other = connect(&b).await;
    assert_eq!(ask(&other, &b).await.status, 200);
    let restored = world
        .fixture
        .enroller
        .approve_restored(&["a", "b"].map(name).into(), "ada", now)
        .await
        .unwrap();
    let approved: Vec<_> = restored
        .approved
        .iter()
        .map(|device| device.device.clone())
        .collect();
    assert_eq!(approved, [name("a")]);
    let left: Vec<_> = restored
        .left
        .iter()
        .map(|(request, _)| request.device.clone())
        .collect();
    assert_eq!(left, [name("b")]);

    // its open connection is told so; the next one is served
    assert!(matches!(
        ask(&client, &a).await.json(),
        Enrolment::Approved { .. }
    ));
    let client = connect(&a).await;
    assert_eq!(client.get("/v1/desired?root=1", &[]).await.status, 200);
    assert!(world.fixture.store.member(&name("c")).is_none());
    assert!(world.fixture.store.member(&name("d")).is_none());
}

#[tokio::test]
async fn who_was_revoked_stays_so_also_when_another_has_the_name() {
    let world = World::new().await;
    let now = Timestamp::now();
    let machine = TestDevice::new("a");
    world.join(&machine).await;
    world
        .fixture
        .enroller
        .revoke(&machine.name, "ada", now)
        .await
        .unwrap();
    let connect = async || {
        let identity = certified(&world.fixture.fleet, &machine, now);
        world.connect(Some(identity)).await.unwrap()
    };
    let turned_away = async || {
        let client = connect().await;
        let answer = client.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.failure(), refused(code::REVOKED, 403));
        assert_eq!(
            ask(&client, &machine).await.failure(),
            refused(code::REVOKED, 403)
        );
    };
    turned_away().await;
    // the machine was replaced
    world.join(&TestDevice::new("a")).await;
    turned_away().await;
    assert_eq!(waiting(&world.fixture).await, []);

    let data = world.stop().await;
    let store = crate::store::Store::open(data.path()).unwrap();
    assert!(
        store.is_revoked(&name("a"), &machine.fingerprint()),
        "it is durable"
    );
}

#[tokio::test]
async fn a_certificate_that_was_renewed_after_the_backup_is_served() {
    let world = World::new().await;
    world.fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    let machine = TestDevice::new("a");
    world.join(&machine).await;
    // the store only has the serial number of the first one
    let renewed = certified(&world.fixture.fleet, &machine, Timestamp::now());
    let client = world.connect(Some(renewed)).await.unwrap();
    assert_eq!(client.get("/v1/desired?root=1", &[]).await.status, 200);
}
