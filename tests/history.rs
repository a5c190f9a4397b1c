//! `flotta verify-history`, with the histories of two devices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{stderr, stdout};

fn root(text: &str) -> String {
    flotta_bundle::Digest::of(text.as_bytes()).to_string()
}

/// As `flotta-agent history -o json` writes it.
fn history(seen: &[(u64, &str)]) -> String {
    let seen = seen.iter().map(|(sequence, text)| {
        serde_json::json!({
            "sequence": sequence, "root": root(text), "manifest": root("manifest"), "time": "2026-11-23T10:00:00Z",
        })
    });
    seen.collect::<serde_json::Value>().to_string()
}

async fn verify(one: &str, other: &str) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.json"), one).unwrap();
    std::fs::write(folder.path().join("other.json"), other).unwrap();
    let arguments = ["verify-history", "one.json", "other.json"];
    common::flotta_in(folder.path(), &folder.path().join("none.sock"), &arguments).await
}

#[tokio::test]
async fn one_story_is_one() {
    // one device was offline for release 2, the other has not seen 4; release 3 was offered twice, held back the first time
    let one = history(&[(1, "a"), (3, "c"), (3, "c"), (4, "d")]);
    let other = history(&[(1, "a"), (2, "b"), (3, "c")]);
    let output = verify(&one, &other).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = "one story: 2 releases in common, 1 to 3, and one root for each\n";
    assert_eq!(stdout(&output), said);
}

#[tokio::test]
async fn two_stories_are_named_with_both_roots() {
    let one = history(&[(1, "a"), (2, "b"), (3, "c"), (5, "e")]);
    let other = history(&[(1, "a"), (2, "B"), (3, "c"), (5, "E")]);
    let output = verify(&one, &other).await;
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    for (sequence, here, there) in [(2, "b", "B"), (5, "e", "E")] {
        let lines = format!(
            "release {sequence} has two roots\n  one device    {}\n  the other     {}\n",
            root(here),
            root(there)
        );
        assert!(said.contains(&lines), "{said}");
    }
    assert!(!said.contains("release 3"), "{said}");
    assert!(
        stderr(&output).starts_with("FLT0308: two stories in 2 releases"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn one_devices_own_two_stories_are_found_as_well() {
    let one = history(&[(1, "a"), (2, "b"), (2, "B")]);
    let output = verify(&one, &history(&[(1, "a")])).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("the other     not seen\n"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn what_cannot_be_compared_is_an_error() {
    let good = history(&[(1, "a")]);
    for (other, why) in [
        ("[]".to_owned(), "nothing to compare"),
        (history(&[(2, "b")]), "nothing to compare"),
        (
            "{}".to_owned(),
            "other.json: not what `flotta-agent history -o json` says",
        ),
        ("[{\"sequence\":1}]".to_owned(), "missing field `root`"),
        (String::new(), "other.json"),
    ] {
        let output = verify(&good, &other).await;
        assert_eq!(output.status.code(), Some(2), "{other}");
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    let output = common::flotta_in(
        folder.path(),
        folder.path(),
        &["verify-history", "none", "none"],
    )
    .await;
    assert_eq!(output.status.code(), Some(2));
}
