//! Commands that work without a server, without root and without Linux: render, lint.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{BAD, device, stderr, stdout};

fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart")
}

async fn flotta(directory: &Path, arguments: &[&str]) -> Output {
    common::flotta_in(directory, &directory.join("none.sock"), arguments).await
}

#[tokio::test]
async fn an_example_is_rendered_for_review() {
    let out = tempfile::tempdir().unwrap();
    let source = quickstart();
    for _ in 0..2 {
        let output = flotta(
            out.path(),
            &["render", source.to_str().unwrap(), "--out", "rendered"],
        )
        .await;
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).ends_with("not signed: for review\n"));
    }
    let devices = out.path().join("rendered/devices/default");
    let one = std::fs::read_dir(devices)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let units = one.join("files/etc/containers/systemd");
    assert!(units.is_dir(), "{}", one.display());
    let manifest = std::fs::read(one.join("manifest.json")).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["units"].is_array());
}

#[tokio::test]
async fn a_folder_that_is_not_ours_is_not_removed() {
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(out.path().join("mine/devices")).unwrap();
    let source = quickstart();
    let output = flotta(
        out.path(),
        &["render", source.to_str().unwrap(), "--out", "mine"],
    )
    .await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(out.path().join("mine/devices").is_dir());
}

#[tokio::test]
async fn lint_says_where_and_answers_by_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = directory.path().join("fleet");
    std::fs::create_dir(&fleet).unwrap();
    std::fs::write(fleet.join("a.yaml"), device("shop-1")).unwrap();
    let output = flotta(directory.path(), &["lint", "fleet"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert_eq!(
        stdout(&output),
        "no findings in 1 file (1 device, 0 workloads)\n"
    );

    std::fs::write(fleet.join("a.yaml"), BAD).unwrap();
    let output = flotta(directory.path(), &["lint", "fleet/"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.starts_with("error[FLT0103]: "), "{text}");
    assert!(text.contains("--> fleet/a.yaml:5:1\n"), "{text}");
    let output = flotta(directory.path(), &["lint", "fleet", "-o", "json"]).await;
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings[0]["code"], "FLT0103");
    assert_eq!(findings[0]["line"], 5);

    for format in ["sarif", "github"] {
        let output = flotta(directory.path(), &["lint", "fleet", "-o", format]).await;
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert!(stdout(&output).contains("FLT0103"), "{format}");
    }

    let output = flotta(directory.path(), &["lint", "none"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("error[FLT0112]: `none` is neither"),
        "{}",
        stderr(&output)
    );
    let output = flotta(directory.path(), &["lint", "--explain", "flt0103"]).await;
    assert!(stdout(&output).starts_with("FLT0103  unknown field\n"));
}

/// Two workloads that want the same port: an error that does not refuse the commit, but holds back the device with both.
#[tokio::test]
async fn lint_and_render_end_alike() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = directory.path().join("fleet");
    std::fs::create_dir(&fleet).unwrap();
    let workload = |name: &str| {
        format!(
            "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata: {{name: {name}}}\nspec:\n  type: pod\n  device: shop-1\n  pod:\n    spec:\n      containers:\n      - {{name: a, image: registry.example/a:1, ports: [{{containerPort: 80, hostPort: 80}}]}}\n"
        )
    };
    let (one, two) = (workload("one"), workload("two"));
    let fine = device("shop-1") + &one;
    let clash = format!("{fine}{two}");
    for (content, code) in [(fine.as_str(), 0), (&clash, 1), (BAD, 1)] {
        std::fs::write(fleet.join("a.yaml"), content).unwrap();
        for arguments in [&["lint", "fleet"][..], &["render", "fleet", "--out", "out"]] {
            let output = flotta(directory.path(), arguments).await;
            let said = stdout(&output) + &stderr(&output);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        }
    }
    for arguments in [&["lint", "none"][..], &["render", "none", "--out", "out"]] {
        let output = flotta(directory.path(), arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_signed_depot_grows_by_a_release() {
    let fixture = common::Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    server.stop().await;
    let key = fixture.path().join("data/keys/release.pem");
    for sequence in 1..=2 {
        let arguments = [
            "render", "fleet", "--rev", "HEAD", "--out", "depot", "--fleet", "shops", "--key",
        ];
        let arguments = [arguments.as_slice(), &[key.to_str().unwrap()]].concat();
        let output = flotta(fixture.path(), &arguments).await;
        assert_eq!(
            stdout(&output),
            format!("depot: release {sequence} of shops, 1 device, 1 manifest\n"),
            "{}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn every_command_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        "serve",
        "render",
        "lint",
        "token create",
        "approve",
        "deny",
        "revoke",
        "get",
        "describe",
        "wait",
        "keys",
        "completion",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = flotta(directory.path(), &arguments).await;
        assert!(
            output.status.success() && stdout(&output).contains("Usage: flotta "),
            "{command}"
        );
    }
    let output = flotta(directory.path(), &["--help"]).await;
    assert!(stdout(&output).contains("Exit codes: 0 done"));
    let output = flotta(directory.path(), &["completion", "bash"]).await;
    assert!(stdout(&output).contains("_flotta()"));
}
