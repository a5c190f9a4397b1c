use flotta_bundle::wire::Acknowledged;
use flotta_bundle::{Problem, code};

use super::world::World;
use super::{happened, refused};
use crate::fixture::{TestDevice, name, report};
use crate::store::EventFilter;

#[tokio::test]
async fn events_are_kept_once_and_forge_no_line() {
    let world = World::new().await;
    let client = world.device(&TestDevice::new("a")).await;
    let mut said = report();
    said.events = vec![happened(1, "one"), happened(2, "two\n\x1b[2Kforged")];
    said.problems = vec![Problem::new(code::IMAGE_PULL, "no\r\nsuch image")];
    for _ in 0..2 {
        let body = serde_json::to_vec(&said).unwrap();
        let answer = client.put("/v1/report", body).await;
        assert_eq!(answer.json::<Acknowledged>().events, 2);
    }
    let filter = EventFilter {
        device: Some(name("a")),
        limit: 100,
        ..EventFilter::default()
    };
    let events = world.fixture.store.events(filter).await.unwrap();
    let applied = events.iter().filter(|event| event.reason == "Applied");
    let messages: Vec<_> = applied.map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["one", "two ?[2Kforged"]);
    let report = world.report("a").await;
    assert_eq!(report.problems[0].message, "no? such image");
}

#[tokio::test]
async fn reports_beyond_the_bounds_are_refused() {
    let world = World::new().await;
    let client = world.device(&TestDevice::new("a")).await;
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
