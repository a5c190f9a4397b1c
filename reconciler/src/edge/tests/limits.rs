use std::time::Duration;

use flotta_bundle::code;
use flotta_bundle::wire::Token;
use futures_util::FutureExt;
use http::Method;
use jiff::Timestamp;

use super::refused;
use super::world::World;
use crate::edge::identity::Caller;
use crate::edge::limits::{IGNORED_REFUSALS, Limits};
use crate::fixture::{TestDevice, eventually, name};

#[tokio::test]
async fn rates_are_per_device_and_say_when_to_come_back() {
    let world = World::new().await;
    let (a, b) = (
        world.device(&TestDevice::new("a")).await,
        world.device(&TestDevice::new("b")).await,
    );
    let member = world.fixture.store.member(&name("a")).unwrap();
    // on a slow machine its rate may allow one more meanwhile
    let answer = eventually("no more may be asked", async || {
        while member.allowance().admits_request() {}
        let answer = a.get("/v1/desired?root=x", &[]).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
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
    let machine = TestDevice::new("a");
    let status = async |token| world.enrol(&machine, token).await.status.as_u16();
    let guessed = || Some(Token::new("guessed".to_owned()));
    // five at once, then one a second: on a slow machine some more
    for token in [guessed, || None] {
        let full = async || (status(token()).await == 429).then_some(());
        eventually("no more may ask", full).await;
    }
    // an unused token was made by a person, and is not limited
    let token = world.fixture.token(None).await;
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
    let identity = world.join(&TestDevice::new("a")).await;
    let first = eventually("the one place", answers).await;
    assert!(answers().await.is_none());
    // devices take none of these slots
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
    // on a slow machine the connection may be closed before it is used
    if let Ok(client) = world.connect(None).await {
        client.ended().await;
    }
}

#[test]
fn connections_leave_files_for_all_else() {
    for files in [0, 1, 256, 1024, 20_000, 1 << 20, u64::MAX] {
        let limits = Limits::for_files(files);
        let all = limits
            .connections
            .saturating_add(limits.anonymous + limits.handshakes);
        let left = usize::try_from(files).unwrap().saturating_sub(all);
        assert!(left >= 256 || files < 512, "{files}: {left} are left");
        assert!(limits.connections > 0 && limits.anonymous > 0 && limits.handshakes > 0);
    }
    // the limit of a systemd service
    let of_service = Limits::for_files(524_288);
    assert!(of_service.connections > 500_000 && of_service.handshakes > 10_000);
}

/// An agent may cancel requests for as long as it is connected, if it waits for other refusals.
#[tokio::test]
async fn refusals_that_are_waited_for_make_up_for_those_that_are_not() {
    let world = World::new().await;
    let caller = Caller::new(&world.edge, None, [127, 0, 0, 1].into(), Timestamp::now());
    for _ in 0..10 * IGNORED_REFUSALS {
        drop(caller.hold());
        caller.hold().said();
    }
    assert!(caller.ignores_refusals().now_or_never().is_none());
    // but refusals that were waited for are not saved up
    for _ in 0..IGNORED_REFUSALS {
        caller.hold().said();
    }
    let deaf = caller.ignores_refusals();
    tokio::pin!(deaf);
    for _ in 1..IGNORED_REFUSALS {
        drop(caller.hold());
        assert!(deaf.as_mut().now_or_never().is_none());
    }
    drop(caller.hold());
    assert!(deaf.now_or_never().is_some());
}
