//! `flotta check` against a server in this process: what monitoring sees when something goes wrong, and when it is over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{BAD, House, device, eventually, stderr, stdout};
use serde_json::Value;

/// The exit code and the grade and message of a fact.
async fn fact(house: &House, name: &str) -> (Option<i32>, String, String) {
    let output = house.flotta(&["check", "-o", "json"]).await;
    let check: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let facts = check["facts"].as_array().cloned().unwrap_or_default();
    let found = facts.iter().find(|fact| fact["name"] == name).unwrap();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (output.status.code(), text("grade"), text("message"))
}

async fn becomes(house: &House, name: &str, code: i32, grade: &str) -> String {
    eventually(&format!("{name} is {grade}"), || async {
        let (exit, found, message) = fact(house, name).await;
        (exit == Some(code) && found == grade).then_some(message)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_follows_what_happens_to_the_server() {
    let house = House::new();
    house.commit("a.yaml", &device("shop-1"));
    let server = house.start().await;
    server.released(1).await;
    becomes(&house, "source", 0, "ok").await;
    let output = house.flotta(&["check"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("all is well"),
        "{}",
        stdout(&output)
    );

    // a commit with errors: devices are served, someone should look
    house.commit("bad.yaml", BAD);
    let message = becomes(&house, "source", 1, "warning").await;
    assert!(message.contains("FLT0103 bad.yaml:5:1"), "{message}");
    house.commit("bad.yaml", &device("shop-2"));
    becomes(&house, "source", 0, "ok").await;

    // the source goes away, and comes back
    let aside = house.path().join("aside");
    std::fs::rename(house.repository(), &aside).unwrap();
    let message = becomes(&house, "source", 1, "warning").await;
    assert!(
        message.starts_with("following the source failed"),
        "{message}"
    );
    std::fs::rename(&aside, house.repository()).unwrap();
    becomes(&house, "source", 0, "ok").await;
    server.stop().await;

    // no server is as bad as can be
    let output = house.flotta(&["check"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("FLT0508"), "{}", stderr(&output));
}
