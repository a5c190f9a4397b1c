//! From a commit to a release, with the messages for people: a server in this process, without devices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{BAD, Fixture, device, stderr, stdout};
use flotta_bundle::wire::JoinFile;
use flotta_reconciler::admin::resource::ReleaseObject;
use flotta_reconciler::publish::Notice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_becomes_a_release_and_a_bad_one_does_not() {
    let fixture = Fixture::new();
    let first = fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    fixture.commit("b.yaml", &device("shop-2"));
    server.released(2).await;

    let bad = fixture.commit("bad.yaml", BAD);
    assert_eq!(
        server.refused().await,
        format!(
            "source main@{} refused: 1 error (FLT0103 bad.yaml:5:1); release 2 stays in force",
            &bad[..7]
        )
    );
    let releases: Vec<ReleaseObject> = server.list().await;
    assert_eq!(server.states().await, ["Refused", "InForce", "Superseded"]);
    assert_eq!(releases[2].status.commit.id, first);

    fixture.commit("bad.yaml", &device("shop-3"));
    server.released(3).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_makes_nothing_new() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    assert!(server.about.first_start);
    let before = server.about.facts.clone();
    server.stop().await;

    let server = fixture.start().await;
    let sequence = server
        .said("that nothing changed", |notice| match notice {
            Notice::Unchanged { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .await;
    assert_eq!(sequence, 1);
    assert!(!server.about.first_start);
    assert_eq!(server.about.facts.trust_root, before.trust_root);
    assert_eq!(server.about.facts.device_ca, before.device_ca);
    assert_eq!(server.about.facts.server_expires, before.server_expires);
    assert_eq!(server.about.names, ["localhost"]);
    assert_eq!(server.list::<ReleaseObject>().await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_commit_is_refused_once_over_a_restart() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    fixture.start().await.stop().await;
    let server = fixture.start().await;
    server
        .said("the release", |notice| {
            matches!(notice, Notice::Unchanged { .. } | Notice::Published { .. }).then_some(())
        })
        .await;
    fixture.commit("a.yaml", BAD);
    server.refused().await;
    server.stop().await;

    let server = fixture.start().await;
    server.refused().await;
    let releases: Vec<ReleaseObject> = server.list().await;
    assert_eq!(releases.len(), 2, "{releases:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_with_the_secret_wakes_the_source() {
    const SECRET: &str = "It's a Secret to Everybody";
    // HMAC-SHA256 of "Hello, World!" by that secret, from GitHub's documentation
    const SIGNATURE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start_with(fixture.config_with_hooks(SECRET)).await;
    server.released(1).await;
    fixture.commit("b.yaml", &device("shop-2"));

    let hooks = server.about.hooks.unwrap();
    for (body, status) in [("Hello, World?", "401"), ("Hello, World!", "202")] {
        let mut stream = tokio::net::TcpStream::connect(hooks).await.unwrap();
        let request = format!(
            "POST /hooks/git HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-hub-signature-256: {SIGNATURE}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    server.released(2).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_a_join_file_on_stdout() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;

    let output = fixture
        .flotta(&["token", "create", "shop-17", "--ttl", "30m"])
        .await;
    assert!(output.status.success(), "{}", stderr(&output));
    let join: JoinFile = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(join.device.unwrap().to_string(), "default/shop-17");
    assert_eq!(
        join.server,
        format!("https://localhost:{}", server.about.listen.port())
    );
    assert!(join.token.is_some());
    assert!(
        stderr(&output).contains("flotta-agent enrol"),
        "{}",
        stderr(&output)
    );
    // the secret is only in the file
    assert!(!stderr(&output).contains(join.token.unwrap().expose()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_answers_on_stdout_and_talks_on_stderr() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;

    let output = fixture.flotta(&["get", "releases", "-o", "name"]).await;
    assert_eq!(stdout(&output), "release/1\n");
    let output = fixture.flotta(&["get", "requests"]).await;
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("", Some(0))
    );
    assert_eq!(stderr(&output), "no requests\n");
    let output = fixture.flotta(&["get", "devices", "none"]).await;
    assert_eq!(
        (stderr(&output).as_str(), output.status.code()),
        ("no device default/none\n", Some(1))
    );
    let output = fixture.flotta(&["approve", "nobody"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let output = fixture.flotta(&["get", "releases", "-o", "json"]).await;
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["items"][0]["kind"], "Release");
    let output = fixture.flotta(&["keys", "show"]).await;
    assert!(
        stdout(&output).starts_with("fleet       shops\n"),
        "{}",
        stderr(&output)
    );
    let output = fixture
        .flotta(&[
            "wait",
            "device",
            "none",
            "--for",
            "condition=Ready",
            "--timeout",
            "1s",
        ])
        .await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "default/none was not there after 1s: it has not joined\n"
    );
    server.stop().await;

    let output = fixture.flotta(&["get", "devices"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("error[FLT0508]: no server answers at "),
        "{}",
        stderr(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_has_a_data_directory() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    let mut config = fixture.config();
    config.admin = Some(fixture.path().join("other.sock"));
    let error = flotta_reconciler::serve::Server::open(config)
        .await
        .unwrap_err();
    assert_eq!(error.code().id, "FLT0602", "{error}");
    server.stop().await;
}
