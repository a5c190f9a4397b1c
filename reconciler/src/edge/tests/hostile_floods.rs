//! Floods: more requests than allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use flotta_bundle::Digest;
use http::Method;
use tokio::task::JoinSet;

use super::raw::{Dialler, END_HEADERS, END_STREAM, H2, PREFACE, begins, cancels};
use super::world::{Client, World};
use crate::edge::limits::{Limits, STREAMS};
use crate::fixture::{TestDevice, name};
use crate::rate::REQUESTS_EACH;

async fn worlds(penalty: Duration) -> (World, Client) {
    let world = World::with(Limits {
        penalty,
        ..Limits::default()
    })
    .await;
    let one = Digest::of(b"1");
    world.fixture.publish(1, &[("a", &[one]), ("b", &[one])]);
    let honest = world.device(&TestDevice::new("b")).await;
    (world, honest)
}

/// Every route, a path without one, and a wrong method: none bypasses the rate limit.
fn requests() -> impl Iterator<Item = (Method, String)> {
    let blob = format!("/v1/blobs/{}", Digest::of(b"1"));
    let routes = [
        (Method::GET, "/v1/desired?root=1".to_owned()),
        (Method::GET, blob),
        (Method::PUT, "/v1/report".to_owned()),
        (Method::POST, "/v1/certificates".to_owned()),
        (Method::GET, "/v1/none".to_owned()),
        (Method::DELETE, "/v1/report".to_owned()),
    ];
    routes.into_iter().cycle()
}

async fn count(client: &Client, tried: usize, honest: &Client) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    let mut requests = requests().take(tried).peekable();
    while requests.peek().is_some() {
        // as many as may be open in parallel, and more than the honest device sends in all
        let some: Vec<_> = requests.by_ref().take(30).collect();
        let some = some
            .iter()
            .map(|(m, path)| client.send(m.clone(), path, &[], "{}"));
        for answer in futures_util::future::join_all(some).await {
            *counts.entry(answer.unwrap().status.as_u16()).or_default() += 1;
        }
        let answer = honest.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200);
    }
    counts
}

#[tokio::test]
async fn a_device_that_floods_is_refused_and_no_other() {
    let (world, honest) = worlds(Duration::ZERO).await;
    let hostile = world.device(&TestDevice::new("a")).await;
    let tried = 10_000;
    let counts = count(&hostile, tried, &honest).await;
    println!("requests of a flood: {tried}, answers by status: {counts:?}");
    let at_once = REQUESTS_EACH.1 as usize;
    // its rate allows a few more meanwhile, but not so many
    assert!(counts[&429] > at_once, "{counts:?}");
    assert!(tried - counts[&429] >= at_once, "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), tried);
    // no route bypasses the limit
    assert!(counts[&404] + counts[&405] < at_once, "{counts:?}");
}

#[tokio::test]
async fn a_stranger_that_floods_is_refused_and_no_device() {
    let (world, honest) = worlds(Duration::ZERO).await;
    let hostile = world.connect(None).await.unwrap();
    let tried = 2000;
    let counts = count(&hostile, tried, &honest).await;
    println!("requests of a stranger: {tried}, answers by status: {counts:?}");
    assert!(counts[&429] > tried / 2, "{counts:?}");
    assert!(!counts.contains_key(&200), "{counts:?}");
}

/// The refusal for too many requests is delayed, so that it does not invite the next request, and HTTP/2 bounds the number of
/// parallel requests meanwhile.
#[tokio::test]
async fn who_floods_waits_for_its_refusal() {
    let (world, honest) = worlds(Duration::from_secs(3600)).await;
    let machine = TestDevice::new("a");
    let hostile = std::sync::Arc::new(world.device(&machine).await);
    // the first answer brings the server's settings: from here on the client respects the parallel limit
    assert_eq!(hostile.get("/v1/desired?root=1", &[]).await.status, 200);
    let member = world.fixture.store.member(&name("a")).unwrap();
    while member.allowance().admits_request() {}
    let mut asked = JoinSet::new();
    for (method, path) in requests().take(1000) {
        let client = std::sync::Arc::clone(&hostile);
        asked.spawn(async move { client.begin(method, &path, &[], "").await.map(drop) });
    }
    // the honest device sends far more requests than it would take to answer all of these
    for _ in 0..100 {
        assert_eq!(honest.get("/v1/desired?root=1", &[]).await.status, 200);
    }
    let mut answered = 0;
    while let Some(done) = asked.try_join_next() {
        done.unwrap().unwrap();
        answered += 1;
    }
    println!(
        "a flood of 1000 on one connection: answered {answered}, waiting {}",
        asked.len()
    );
    // its rate allowed a few meanwhile
    assert!(answered < 500, "{answered}");
    // revocation still closes the connection
    let now = jiff::Timestamp::now();
    let revoked = world.fixture.enroller.revoke(&machine.name, "ada", now);
    revoked.await.unwrap();
    let mut broken = 0;
    while let Some(done) = asked.join_next().await {
        broken += usize::from(done.unwrap().is_err());
    }
    println!("after its revocation: broken off {broken}");
    assert_eq!(answered + broken, 1000);
}

/// Requests that are cancelled before they are answered (CVE-2023-44487): a few cancelled refusals end the connection, and the
/// HTTP/2 library itself refuses those that arrive together with their reset.
#[tokio::test]
async fn who_takes_every_request_back_gets_no_further() {
    const TRIED: usize = 50_000;
    let (world, honest) = worlds(Duration::from_secs(3600)).await;
    let machine = TestDevice::new("a");
    let dialler = Dialler::new(&world, Some(world.join(&machine).await), H2);
    let member = world.fixture.store.member(&machine.name).unwrap();
    let whole = END_HEADERS | END_STREAM;
    let begin = |stream| begins(stream, whole, "GET", "/v1/desired?root=1");
    for in_one_piece in [false, true] {
        let (mut sent, mut connections, mut most) = (0, 0, 0);
        while sent < TRIED {
            while member.allowance().admits_request() {}
            let mut raw = dialler.say(PREFACE).await;
            let mut streams = (1..).step_by(2);
            let before = sent;
            // send until the server closes the connection
            loop {
                let some: Vec<u32> = streams.by_ref().take(STREAMS as usize).collect();
                sent += some.len();
                // the device's rate allows some requests meanwhile, which are not refused
                assert!(sent - before < 2_000, "it goes on for ever");
                let [begun, ended]: [Vec<u8>; 2] = if in_one_piece {
                    let each = some.iter().map(|s| [begin(*s), cancels(*s)].concat());
                    [each.flatten().collect(), Vec::new()]
                } else {
                    let begun = some.iter().flat_map(|stream| begin(*stream));
                    let ended = some.iter().flat_map(|stream| cancels(*stream));
                    [begun.collect(), ended.collect()]
                };
                raw.write(&begun).await;
                if !raw.ping().await {
                    break;
                }
                raw.write(&ended).await;
            }
            connections += 1;
            most = most.max(sent - before);
            // seldom enough that it is not refused itself
            if connections % 50 == 1 {
                let answer = honest.get("/v1/desired?root=1", &[]).await;
                assert_eq!(answer.status, 200);
            }
        }
        println!(
            "requests taken back: {sent} of {TRIED}, over {connections} connections, at most {most} of each"
        );
    }
}
