//! `flotta check` against a server in this process: what monitoring sees when something goes wrong, and when it recovers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{BAD, Fixture, device, eventually, joined, stderr, stdout};
use serde_json::Value;

/// The grade and message of a fact. The exit code is that of the worst: on a build machine whose disk is nearly full, that one's.
async fn fact(fixture: &Fixture, name: &str) -> (String, String) {
    let output = fixture.flotta(&["check", "-o", "json"]).await;
    let check: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let grades = ["ok", "warning", "critical"];
    let grade = |text: &Value| grades.iter().position(|grade| *text == **grade);
    let facts = check["facts"].as_array().cloned().unwrap_or_default();
    let worst = facts
        .iter()
        .map(|fact| grade(&fact["grade"]))
        .max()
        .unwrap();
    assert_eq!(grade(&check["grade"]), worst);
    let code = output.status.code().unwrap();
    assert_eq!(usize::try_from(code).ok(), worst);
    let found = facts.iter().find(|fact| fact["name"] == name).unwrap();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("grade"), text("message"))
}

async fn becomes(fixture: &Fixture, name: &str, grade: &str) -> String {
    eventually(&format!("{name} is {grade}"), || async {
        let (found, message) = fact(fixture, name).await;
        (found == grade).then_some(message)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_follows_what_happens_to_the_server() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    becomes(&fixture, "source", "ok").await;
    let output = fixture.flotta(&["check"]).await;
    let said = stdout(&output);
    assert!(said.contains("  source        main@"), "{said}");

    // a commit with errors: devices are still served, but someone should look
    fixture.commit("bad.yaml", BAD);
    let message = becomes(&fixture, "source", "warning").await;
    assert!(message.contains("FLT0103 bad.yaml:5:1"), "{message}");
    fixture.commit("bad.yaml", &device("shop-2"));
    becomes(&fixture, "source", "ok").await;

    // the source goes away, and comes back
    let aside = fixture.path().join("aside");
    std::fs::rename(fixture.repository(), &aside).unwrap();
    let message = becomes(&fixture, "source", "warning").await;
    assert!(message.starts_with("since "), "{message}");
    std::fs::rename(&aside, fixture.repository()).unwrap();
    becomes(&fixture, "source", "ok").await;
    server.stop().await;

    // without a server the result is critical
    let output = fixture.flotta(&["check"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("FLT0508"), "{}", stderr(&output));
}

/// Every device is counted once: in Git but not joined, joined but never seen, connected, or revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_counts_the_devices() {
    let fixture = Fixture::new();
    let three: String = ["shop-1", "shop-2", "shop-3"]
        .map(|name| device(name) + "---\n")
        .concat();
    fixture.commit("a.yaml", &three);
    let server = fixture.start().await;
    server.released(1).await;
    assert_eq!(fact(&fixture, "devices").await.1, "3: 3 pending");
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let there = joined::Device::join(&fixture, "shop-1", folders[0].path()).await;
    joined::Device::join(&fixture, "shop-2", folders[1].path()).await;
    let session = there.client.connect().await.unwrap();
    there.accepted(&session).await.unwrap();
    assert_eq!(
        fact(&fixture, "devices").await.1,
        "3: 1 connected, 2 pending"
    );
    let output = fixture.flotta(&["revoke", "shop-1"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fact(&fixture, "devices").await.1, "3: 2 pending, 1 revoked");
    server.stop().await;
}
