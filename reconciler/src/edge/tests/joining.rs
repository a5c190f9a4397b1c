use flotta_bundle::wire::{Enrolment, Renewal, RenewalRequest};
use flotta_bundle::{Digest, code};
use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::refused;
use super::world::{World, identity};
use crate::enrol::{Approval, Target};
use crate::fixture::{TestDevice, report};
use crate::store::{NewToken, StoreError};

fn target(machine: &TestDevice) -> Target {
    Target {
        device: machine.name.clone(),
        key: None,
    }
}

#[tokio::test]
async fn the_servers_own_trouble_is_counted_and_not_said_with_every_request() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    let drop = |connection: &rusqlite::Connection| {
        connection.execute_batch("DROP TABLE devices; DROP TABLE requests")?;
        Ok::<_, StoreError>(())
    };
    world.fixture.store.write(drop, |()| {}).await.unwrap();
    for _ in 0..3 {
        let answer = world.enrol(&machine, None).await;
        assert_eq!(answer.failure(), refused(code::STORE, 500));
    }
    let failures = world.fixture.store.failures().all();
    let told = failures.iter().map(|failure| (failure.what, failure.count));
    assert_eq!(told.collect::<Vec<_>>(), [(code::STORE.title, 3)]);
}

#[tokio::test]
async fn a_token_lets_in_once_in_time_and_under_its_name() {
    let world = World::new().await;
    let token = world.fixture.token(Some("a")).await;
    let machine = TestDevice::new("a");
    let answer = world.enrol(&machine, Some(token.clone())).await;
    assert!(matches!(answer.json(), Enrolment::Approved { .. }));
    // the answer was lost: the same machine asks again
    let answer = world.enrol(&machine, Some(token.clone())).await;
    assert!(matches!(answer.json(), Enrolment::Approved { .. }));

    let other = TestDevice::new("b");
    let answer = world.enrol(&other, Some(token)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_USED, 403));
    let for_c = world.fixture.token(Some("c")).await;
    let answer = world.enrol(&other, Some(for_c)).await;
    assert_eq!(answer.failure(), refused(code::TOKEN_OTHER_DEVICE, 403));
    let then = Timestamp::now() - SignedDuration::from_hours(2);
    let hour = SignedDuration::from_hours(1);
    let made = world
        .fixture
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
        .enrol(&clone, Some(world.fixture.token(None).await))
        .await;
    assert_eq!(answer.failure(), refused(code::KEY_TAKEN, 409));

    // it is also an event
    let events = world.fixture.events().await;
    for code in ["FLT0405", "FLT0406", "FLT0407", "FLT0408", "FLT0417"] {
        let told = |(reason, message): &(String, String)| {
            reason == "JoinRefused" && message.contains(code)
        };
        assert!(events.iter().any(told), "{code}: {events:?}");
    }
    assert_eq!(world.fixture.store.devices().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_second_of_a_name_waits_and_the_first_is_untouched() {
    let world = World::new().await;
    world.fixture.publish(1, &[("a", &[Digest::of(b"1")])]);
    let (first, second) = (TestDevice::new("a"), TestDevice::new("a"));
    let client = world.device(&first).await;

    for token in [None, Some(world.fixture.token(Some("a")).await)] {
        let answer = world.enrol(&second, token).await;
        assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    }
    let path = format!("/v1/enrolments/{}", second.fingerprint().hex());
    let answer = world.ask(Method::GET, &path, Vec::new()).await;
    assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    let taken = world
        .fixture
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
        .fixture
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
    let machine = TestDevice::new("a");
    let answer = world.enrol(&machine, None).await;
    assert!(matches!(answer.json(), Enrolment::Pending { .. }));
    let approved = world.fixture.enroller.approve(
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

/// Only requests that wait or waited for a person can be queried: the others were answered at once.
#[tokio::test]
async fn what_became_of_a_request_is_known_while_there_is_one() {
    let world = World::new().await;
    let (by_token, waits) = (TestDevice::new("a"), TestDevice::new("b"));
    world.join(&by_token).await;
    let look = async |machine: &TestDevice| {
        let path = format!("/v1/enrolments/{}", machine.fingerprint().hex());
        world.ask(Method::GET, &path, Vec::new()).await
    };
    let missing = refused(code::NOT_FOUND, 404);
    assert_eq!(look(&by_token).await.failure(), missing);
    // its answer was lost: it asks again, which needs no token
    let again = world.enrol(&by_token, None).await;
    assert!(matches!(again.json(), Enrolment::Approved { .. }));

    assert_eq!(look(&waits).await.failure(), missing);
    world.enrol(&waits, None).await;
    assert!(matches!(
        look(&waits).await.json(),
        Enrolment::Pending { .. }
    ));
    let (enroller, now) = (&world.fixture.enroller, Timestamp::now());
    let approved = enroller.approve(target(&waits), Approval::default(), "ada", now);
    approved.await.unwrap();
    assert!(matches!(
        look(&waits).await.json(),
        Enrolment::Approved { .. }
    ));
    enroller.revoke(&waits.name, "ada", now).await.unwrap();
    assert_eq!(look(&waits).await.failure(), missing);
    let refused_now = world.enrol(&waits, None).await;
    assert_eq!(refused_now.failure(), refused(code::REVOKED, 403));
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_alone() {
    let world = World::new().await;
    let machine = TestDevice::new("a");
    let client = world.device(&machine).await;
    let renew = |csr: String| serde_json::to_vec(&RenewalRequest { csr }).unwrap();
    let send = |body| client.send(Method::POST, "/v1/certificates", &[], body);
    let answer = send(renew(TestDevice::new("a").csr())).await.unwrap();
    assert_eq!(answer.failure(), refused(code::CSR, 400));
    let answer = send(renew(machine.csr())).await.unwrap();
    let renewal: Renewal = answer.json();
    let renewed = identity(&machine, &renewal.certificate);
    let renewed = world.connect(Some(renewed)).await.unwrap();
    assert_eq!(renewed.put("/v1/report", "{}").await.status.as_u16(), 400);
    // the old certificate is valid until it expires
    assert_eq!(client.put("/v1/report", "{}").await.status.as_u16(), 400);
}
