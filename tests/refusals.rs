//! Refusals by devices, as operators see them: every code of a refusal, from a report of the real protocol to
//! `flotta get events`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::joined::Device;
use common::{Fixture, device, stderr, stdout};
use flotta_bundle::code::{self, Problem};
use flotta_bundle::wire::{Event, Report};
use jiff::Timestamp;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_a_device_is_seen_in_the_events() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    let folder = tempfile::tempdir().unwrap();
    let device = Device::join(&fixture, "shop-1", folder.path()).await;
    let session = device.client.connect().await.unwrap();

    let refusals = code::ALL.iter().filter(|code| code.id.starts_with("FLT03"));
    let problems: Vec<_> = refusals
        .map(|code| Problem::new(*code, code.title))
        .collect();
    let events = (1..).zip(&problems).map(|(id, problem)| Event {
        id,
        time: Timestamp::now(),
        reason: "Refused".to_owned(),
        message: problem.to_string(),
        warning: true,
    });
    let report = Report {
        events: events.collect(),
        ..Report::new("0.1.0", "", Timestamp::now())
    };
    let kept = session.report(&report).await.unwrap();
    assert_eq!(kept.events, problems.len() as u64);

    let output = fixture.flotta(&["get", "events", "-A", "-o", "wide"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    let mut seen = 0;
    for problem in &problems {
        let line = table
            .lines()
            .find(|line| line.contains(&problem.to_string()));
        let line = line.unwrap_or_else(|| panic!("{problem}: {table}"));
        assert!(
            line.contains("shop-1") && line.contains("Refused"),
            "{line}"
        );
        seen += 1;
    }
    println!("refusals seen in the events: {seen} of {}", problems.len());
    assert!(seen >= 15);
    server.stop().await;
}
