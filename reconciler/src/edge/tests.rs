mod world;

use std::time::Duration;

use flotta_bundle::verify::{Memory, verify_offer};
use flotta_bundle::wire::{Acknowledged, Enrolment, Event, Offer, Renewal, RenewalRequest};
use flotta_bundle::{Digest, Problem, code};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, SanType};

use super::limits::Limits;
use crate::enrol::{Approval, Target};
use crate::fixture::{House, Machine, bundle, eventually, name, report};
use crate::store::{EventFilter, NewToken};
use flotta_bundle::wire::Token;
use world::{Answer, Client, World, certified, identity, key};

fn refused(code: flotta_bundle::Code, status: u16) -> (u16, String) {
    (status, code.id.to_owned())
}

fn target(machine: &Machine) -> Target {
    Target {
        device: machine.name.clone(),
        key: None,
    }
}

// --- who may speak

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
    let machine = Machine::new("a");
    let now = Timestamp::now();
    let genuine = world.join(&machine).await;
    assert!(!turned_away(&world, (genuine.0.clone(), key(&machine))).await);

    // another authority of a fleet of the same name
    let elsewhere = tempfile::tempdir().unwrap();
    let other = House::open(elsewhere.path());
    assert!(turned_away(&world, certified(&other.fleet, &machine, now)).await);

    // expired
    let then = now - SignedDuration::from_hours(24 * 100);
    assert!(turned_away(&world, certified(&world.house.fleet, &machine, then)).await);

    // a self-signed leaf that names the device, the genuine certificate behind it
    let thief = Machine::new("a");
    let mut params = CertificateParams::default();
    let uri = machine.name.identity(world.house.fleet.name());
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let forged = params.self_signed(&thief.key).unwrap();
    let mut chain = vec![forged.der().clone()];
    chain.extend(genuine.0.clone());
    assert!(turned_away(&world, (chain, key(&thief))).await);
}

#[tokio::test]
async fn a_good_certificate_of_nobody_here_is_told_so() {
    let world = World::new().await;
    let (machine, now) = (Machine::new("a"), Timestamp::now());
    // signed by the fleet's authority, but the device has never joined
    let identity = certified(&world.house.fleet, &machine, now);
    let client = world.connect(Some(identity)).await.unwrap();
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::REVOKED, 403));

    // the name has joined with another key
    world.join(&Machine::new("a")).await;
    let identity = certified(&world.house.fleet, &machine, now);
    let client = world.connect(Some(identity)).await.unwrap();
    let answer = client.put("/v1/report", "{}").await;
    assert_eq!(answer.failure(), refused(code::REVOKED, 403));
}

#[tokio::test]
async fn revocation_closes_what_is_open_and_lets_nobody_in_again() {
    let world = World::new().await;
    let machine = Machine::new("a");
    world.house.publish(1, &[("a", &[Digest::of(b"1")])]);
    let identity = world.join(&machine).await;
    let again = (identity.0.clone(), key(&machine));
    let client = world.connect(Some(identity)).await.unwrap();
    let tag = client.get("/v1/desired?root=1", &[]).await;
    let held = hold(client, tag.header("etag"));
    waits(&world).await;

    let revoked = world
        .house
        .enroller
        .revoke(&machine.name, "ada", Timestamp::now());
    revoked.await.unwrap();
    let (client, answer) = held.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    client.ended().await;
    eventually("nobody waits", async || {
        (world.house.index.waiting() == 0).then_some(())
    })
    .await;

    let client = world.connect(Some(again)).await.unwrap();
    let answer = client.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.failure(), refused(code::REVOKED, 403));
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let world = World::new().await;
    let machine = Machine::new("a");
    world.join(&machine).await;
    let now = Timestamp::now();
    let ends_soon = now - SignedDuration::from_hours(24 * 90) + SignedDuration::from_secs(6);
    let identity = certified(&world.house.fleet, &machine, ends_soon);
    let client = world.connect(Some(identity)).await.unwrap();
    assert_eq!(client.put("/v1/report", "{}").await.status.as_u16(), 400);
    client.ended().await;
}

// --- joining

#[tokio::test]
async fn a_token_lets_in_once_in_time_and_under_its_name() {
    let world = World::new().await;
    let token = world.house.token(Some("a")).await;
    let machine = Machine::new("a");
    let answer = world.enrol(&machine, Some(token.clone())).await;
    assert!(matches!(answer.json(), Enrolment::Approved { .. }));
    // the answer was lost: the same machine asks again
    let answer = world.enrol(&machine, Some(token.clone())).await;
    assert!(matches!(answer.json(), Enrolment::Approved { .. }));

    let other = Machine::new("b");
    let answer = world.enrol(&other, Some(token)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_USED, 403));
    let for_c = world.house.token(Some("c")).await;
    let answer = world.enrol(&other, Some(for_c)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_OTHER_DEVICE, 403));
    let then = Timestamp::now() - SignedDuration::from_hours(2);
    let hour = SignedDuration::from_hours(1);
    let made = world
        .house
        .enroller
        .create_token(NewToken::default(), hour, then);
    let answer = world.enrol(&other, Some(made.await.unwrap().0)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_EXPIRED, 403));
    let unknown = flotta_bundle::wire::Token::new("flotta_none".to_owned());
    let answer = world.enrol(&other, Some(unknown)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_UNKNOWN, 403));
    // one key, two names: a cloned disk
    let clone = machine.renamed("d");
    let answer = world
        .enrol(&clone, Some(world.house.token(None).await))
        .await;
    assert_eq!(answer.failure(), refused(code::KEY_TAKEN, 409));

    // and people see it too
    let events = world.house.events().await;
    for code in ["FLT0405", "FLT0406", "FLT0407", "FLT0408", "FLT0417"] {
        let told = |(reason, message): &(String, String)| {
            reason == "JoinRefused" && message.contains(code)
        };
        assert!(events.iter().any(told), "{code}: {events:?}");
    }
    assert_eq!(world.house.store.devices().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_second_of_a_name_waits_and_the_first_is_untouched() {
    let world = World::new().await;
    world.house.publish(1, &[("a", &[Digest::of(b"1")])]);
    let (first, second) = (Machine::new("a"), Machine::new("a"));
    let client = world.device(&first).await;

    for token in [None, Some(world.house.token(Some("a")).await)] {
        let answer = world.enrol(&second, token).await;
        assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    }
    let path = format!("/v1/enrolments/{}", second.fingerprint().hex());
    let answer = world.ask(Method::GET, &path, Vec::new()).await;
    assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    let taken = world
        .house
        .enroller
        .approve(
            target(&second),
            Approval::default(),
            "ada",
            Timestamp::now(),
        )
        .await
        .unwrap_err();
    assert_eq!(taken.code(), code::NAME_TAKEN);
    assert_eq!(client.get("/v1/desired?root=1", &[]).await.status, 200);

    let denied = world
        .house
        .enroller
        .deny(target(&second), "not\nours", "ada", Timestamp::now());
    denied.await.unwrap();
    for answer in [
        world.ask(Method::GET, &path, Vec::new()).await,
        world.enrol(&second, None).await,
    ] {
        let reason = "not ours".to_owned();
        assert_eq!(answer.json::<Enrolment>(), Enrolment::Denied { reason });
    }
    assert_eq!(client.get("/v1/desired?root=1", &[]).await.status, 200);
}

#[tokio::test]
async fn who_is_approved_fetches_a_certificate_that_works() {
    let world = World::new().await;
    let machine = Machine::new("a");
    let answer = world.enrol(&machine, None).await;
    assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    let approved = world.house.enroller.approve(
        target(&machine),
        Approval::default(),
        "ada",
        Timestamp::now(),
    );
    approved.await.unwrap();
    let path = format!("/v1/enrolments/{}", machine.fingerprint().hex());
    let answer = world.ask(Method::GET, &path, Vec::new()).await;
    let Enrolment::Approved { certificate, .. } = answer.json() else {
        panic!("{answer:?}");
    };
    let identity = identity(&machine, &certificate);
    let client = world.connect(Some(identity)).await.unwrap();
    let body = serde_json::to_vec(&report()).unwrap();
    assert_eq!(client.put("/v1/report", body).await.status, 200);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_alone() {
    let world = World::new().await;
    let machine = Machine::new("a");
    let client = world.device(&machine).await;
    let renew = |csr: String| serde_json::to_vec(&RenewalRequest { csr }).unwrap();
    let send = |body| client.send(Method::POST, "/v1/certificates", &[], body);
    let answer = send(renew(Machine::new("a").csr())).await.unwrap();
    assert_eq!(answer.failure(), refused(code::CSR, 400));
    let answer = send(renew(machine.csr())).await.unwrap();
    let renewal: Renewal = answer.json();
    let renewed = identity(&machine, &renewal.certificate);
    let renewed = world.connect(Some(renewed)).await.unwrap();
    assert_eq!(renewed.put("/v1/report", "{}").await.status.as_u16(), 400);
    // the old one is good until it ends
    assert_eq!(client.put("/v1/report", "{}").await.status.as_u16(), 400);
}

// --- desired

type Held = tokio::task::JoinHandle<(Client, Result<Answer, String>)>;

fn hold(client: Client, tag: &str) -> Held {
    let tag = tag.to_owned();
    tokio::spawn(async move {
        let headers = [("if-none-match", tag.as_str()), ("prefer", "wait=600")];
        let answer = client
            .send(Method::GET, "/v1/desired?root=1", &headers, "")
            .await;
        (client, answer)
    })
}

async fn waits(world: &World) {
    let index = &world.house.index;
    eventually("a held poll", async || (index.waiting() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_poll_is_held_until_this_device_is_concerned() {
    let world = World::new().await;
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    world.house.publish(1, &[("a", &[old]), ("b", &[old])]);
    let client = world.device(&Machine::new("a")).await;
    let first = client.get("/v1/desired?root=1", &[]).await;
    let tag = first.header("etag").to_owned();
    assert_eq!(tag, format!("\"1-{}\"", old.hex()));

    // nothing to wait for: the answer comes at once
    let answer = client
        .get("/v1/desired?root=1", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.status, 304);
    // a device whose trust root is behind is told, whatever its tag
    let answer = client
        .get("/v1/desired?root=0", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.json::<Offer>().roots.len(), 1);

    let held = hold(client, &tag);
    waits(&world).await;
    // a commit for b wakes b alone: had it woken a, a would have been told of release 2 while b asks
    let other = world.device(&Machine::new("b")).await;
    world.house.publish(2, &[("a", &[old]), ("b", &[new, old])]);
    let told = other.get("/v1/desired?root=1", &[]).await;
    assert_eq!(told.header("etag"), format!("\"2-{}\"", new.hex()));
    world
        .house
        .publish(3, &[("a", &[new, old]), ("b", &[new, old])]);
    let (client, answer) = held.await.unwrap();
    let answer = answer.unwrap();
    assert_eq!(answer.header("etag"), format!("\"3-{}\"", new.hex()));

    // and it is what a device accepts
    let memory = Memory {
        trust: world.house.fleet.trust_root().clone(),
        highest: None,
    };
    let accepted = verify_offer(&answer.json(), &name("a"), &memory).unwrap();
    assert_eq!(accepted.manifest, new);
    // the release that did not concern it is told when it asks again
    let answer = client
        .get("/v1/desired?root=1", &[("if-none-match", &tag)])
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn who_has_just_joined_waits_for_its_first_release() {
    let world = World::new().await;
    let client = world.device(&Machine::new("a")).await;
    let asked = tokio::spawn(async move { client.get("/v1/desired?root=1", &[]).await });
    waits(&world).await;
    world.house.publish(1, &[("a", &[Digest::of(b"1")])]);
    assert_eq!(asked.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_stop_answers_held_polls_and_a_restart_makes_nothing_anew() {
    let world = World::new().await;
    let machine = Machine::new("a");
    world.house.publish(1, &[("a", &[Digest::of(b"1")])]);
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

    let house = House::open(data.path());
    house.publish(1, &[("a", &[Digest::of(b"1")])]);
    let world = World::serve(house, data, Limits::default()).await;
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
    let house = House::open_at(data.path(), then);
    let world = World::serve(house, data, Limits::default()).await;
    let before = world.connect(None).await.unwrap();
    assert!(
        world
            .house
            .fleet
            .renew_server_certificate(Timestamp::now())
            .unwrap()
    );
    let after = world.connect(None).await.unwrap();
    assert_ne!(before.certificate, after.certificate);
    // who was connected stays so
    assert_eq!(before.get("/v1/none", &[]).await.status, 404);
}

// --- blobs

#[tokio::test]
async fn a_device_reads_its_own_bundles_and_no_others() {
    let world = World::new().await;
    let content = vec![b'x'; 200_000];
    let (own, own_blobs) = bundle(&content);
    let (earlier, earlier_blobs) = bundle(b"earlier");
    let (other, other_blobs) = bundle(b"of b");
    for blobs in [&own_blobs, &earlier_blobs, &other_blobs] {
        world.house.depot.put_blobs(blobs).await.unwrap();
    }
    world
        .house
        .publish(1, &[("a", &[own, earlier]), ("b", &[other])]);
    let client = world.device(&Machine::new("a")).await;
    for (digest, content) in own_blobs.iter().chain(&earlier_blobs) {
        let answer = client.get(&format!("/v1/blobs/{digest}"), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &content[..])
        );
    }
    // what is b's, and what is nobody's, cannot be told apart
    let none = Digest::of(b"none");
    for digest in other_blobs.keys().chain([&none]) {
        let answer = client.get(&format!("/v1/blobs/{digest}"), &[]).await;
        assert_eq!(answer.failure(), refused(code::NOT_YOURS, 403));
    }
    for name in ["sha256:00", "..%2f..%2fkeys", "x"] {
        let answer = client.get(&format!("/v1/blobs/{name}"), &[]).await;
        assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400));
    }

    let path = format!("/v1/blobs/{}", Digest::of(&content));
    let answer = client.get(&path, &[("range", "bytes=199990-")]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (206, &content[199_990..])
    );
    assert_eq!(answer.header("content-range"), "bytes 199990-199999/200000");
    let answer = client.get(&path, &[("range", "bytes=200000-")]).await;
    assert_eq!(answer.status, 416);
    let answer = client.get(&path, &[("range", "bytes=-5")]).await;
    assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400));
}

#[tokio::test]
async fn a_device_that_does_not_read_keeps_no_other_from_reading() {
    let each = super::limits::DOWNLOADS_EACH;
    let limits = Limits {
        downloads: each + 1,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    // more than a client takes in unread: 2 MiB of each, 5 MiB in all
    let content = vec![b'x'; 3_000_000];
    let (manifest, blobs) = bundle(&content);
    world.house.depot.put_blobs(&blobs).await.unwrap();
    world
        .house
        .publish(1, &[("a", &[manifest]), ("b", &[manifest])]);
    let path = format!("/v1/blobs/{}", Digest::of(&content));
    let idle = world.device(&Machine::new("a")).await;
    let mut unread = Vec::new();
    for _ in 0..each {
        let begun = idle.begin(Method::GET, &path, &[], Vec::new()).await;
        unread.push(begun.unwrap());
    }
    let more = tokio::spawn(async move {
        let more = (0..4).map(|_| idle.begin(Method::GET, &path, &[], Vec::new()));
        futures_util::future::join_all(more).await
    });
    let reader = world.device(&Machine::new("b")).await;
    let path = format!("/v1/blobs/{}", Digest::of(&content));
    assert_eq!(reader.get(&path, &[]).await.body.len(), content.len());
    more.abort();
}

// --- report

fn happened(id: u64, message: &str) -> Event {
    Event {
        id,
        time: Timestamp::now(),
        reason: "Applied".to_owned(),
        message: message.to_owned(),
        warning: false,
    }
}

#[tokio::test]
async fn events_are_kept_once_and_forge_no_line() {
    let world = World::new().await;
    let client = world.device(&Machine::new("a")).await;
    let mut said = report();
    said.events = vec![happened(1, "one"), happened(2, "two\n\x1b[2Kforged")];
    said.problems = vec![Problem::new(code::IMAGE_PULL, "no\r\nsuch image")];
    for _ in 0..2 {
        let body = serde_json::to_vec(&said).unwrap();
        let answer = client.put("/v1/report", body).await;
        assert_eq!(answer.json::<Acknowledged>(), Acknowledged { events: 2 });
    }
    let filter = EventFilter {
        device: Some(name("a")),
        limit: 100,
        ..EventFilter::default()
    };
    let events = world.house.store.events(filter).await.unwrap();
    let applied = events.iter().filter(|event| event.reason == "Applied");
    let messages: Vec<_> = applied.map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["one", "two ?[2Kforged"]);
    let record = world.house.store.device(&name("a")).await.unwrap().unwrap();
    assert_eq!(record.report.unwrap().problems[0].message, "no? such image");
}

#[tokio::test]
async fn reports_beyond_the_bounds_are_refused() {
    let world = World::new().await;
    let client = world.device(&Machine::new("a")).await;
    let answer = client.put("/v1/report", vec![b' '; (1 << 20) + 1]).await;
    assert_eq!(answer.failure(), refused(code::TOO_LARGE, 413));
    let answer = client.put("/v1/report", "{\"agent\":").await;
    assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400));
    let with = |change: &dyn Fn(&mut flotta_bundle::wire::Report)| {
        let mut report = report();
        change(&mut report);
        serde_json::to_vec(&report).unwrap()
    };
    let many = with(&|report| report.events = vec![happened(1, "x"); 1001]);
    let answer = client.put("/v1/report", many).await;
    assert_eq!(answer.failure(), refused(code::TOO_LARGE, 413));
    let high = with(&|report| report.events = vec![happened(u64::MAX, "x")]);
    let answer = client.put("/v1/report", high).await;
    assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400));
}

// --- limits

#[tokio::test]
async fn rates_are_per_device_and_say_when_to_come_back() {
    let world = World::new().await;
    let (a, b) = (
        world.device(&Machine::new("a")).await,
        world.device(&Machine::new("b")).await,
    );
    let member = world.house.store.member(&name("a")).unwrap();
    while member.allowance().admits_request() {}
    let answer = a.get("/v1/desired?root=x", &[]).await;
    assert_eq!(answer.failure(), refused(code::TOO_MANY, 429));
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&seconds));
    assert_eq!(b.get("/v1/desired?root=x", &[]).await.status, 400);
}

#[tokio::test]
async fn requests_to_join_have_one_rate_together() {
    let world = World::with(Limits {
        asks: 1,
        ..Limits::default()
    })
    .await;
    let machine = Machine::new("a");
    let status = async |token| world.enrol(&machine, token).await.status.as_u16();
    let guessed = || Some(Token::new("guessed".to_owned()));
    // five at once, then one a second: on a slow machine some more
    for token in [guessed, || None] {
        let full = async || (status(token()).await == 429).then_some(());
        eventually("no more may ask", full).await;
    }
    // a token that no device has used is one that a person counted out
    let token = world.house.token(None).await;
    assert_eq!(status(Some(token)).await, 200);
    let long = vec![b' '; (16 << 10) + 1];
    let world = World::new().await;
    let answer = world.ask(Method::POST, "/v1/enrolments", long).await;
    assert_eq!(answer.failure(), refused(code::TOO_LARGE, 413));
}

#[tokio::test]
async fn connections_without_a_certificate_are_few() {
    let world = World::with(Limits {
        anonymous: 1,
        ..Limits::default()
    })
    .await;
    let answers = async || {
        let client = world.connect(None).await.ok()?;
        client.send(Method::GET, "/v1/none", &[], "").await.ok()?;
        Some(client)
    };
    let identity = world.join(&Machine::new("a")).await;
    let first = eventually("the one place", answers).await;
    assert!(answers().await.is_none());
    // devices take none of these places
    let device = world.connect(Some(identity)).await.unwrap();
    assert_eq!(device.put("/v1/report", "{}").await.status, 400);
    drop(first);
    eventually("the place is free again", answers).await;
}

#[tokio::test]
async fn connections_without_a_certificate_are_short() {
    let world = World::with(Limits {
        anonymous_life: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    // on a slow machine it may be over before it began
    if let Ok(client) = world.connect(None).await {
        client.ended().await;
    }
}
