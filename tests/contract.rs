//! The documentation is enough to write a client and to manage a fleet's keys.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::joined::Device;
use common::{DEADLINE, Fixture, device, missing, stderr, stdout, tool};
use flotta_bundle::TrustRoot;
use flotta_bundle::wire::JoinFile;
use flotta_reconciler::serve::Config;
use serde_json::Value;

/// A client that shares nothing with this project but docs/contract.md.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/client.py");
const ROTATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rotate-keys");

const WORKLOAD: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata:
  name: web
spec:
  device: shop-2
  type: pod
  pod:
    spec:
      containers:
        - name: web
          image: registry.example/web:1
";

/// A key in the first format of this program: PKCS#8 version 2, which includes the public key.
const VERSION_2: &str = "-----BEGIN PRIVATE KEY-----
MFMCAQEwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
oSMDIQADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==
-----END PRIVATE KEY-----
";
/// The end of its public key's `SubjectPublicKeyInfo`, base64.
const PUBLIC: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

async fn try_run(program: &Path, arguments: &[&str]) -> Output {
    let run = tokio::process::Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap()
}

/// Runs a program that must not fail, and returns its output.
async fn run(program: &Path, arguments: &[&str]) -> String {
    let output = try_run(program, arguments).await;
    let shown = program.display();
    assert!(output.status.success(), "{shown}: {}", stderr(&output));
    stdout(&output)
}

/// A Python with the packages that the client needs.
async fn python() -> Option<PathBuf> {
    // the first may be installed by a person, and lack the packages of the system's Python
    for python in [tool("python3")?, "/usr/bin/python3".into()] {
        let asks = tokio::process::Command::new(&python)
            .args(["-c", "import cryptography"])
            .output();
        if asks.await.is_ok_and(|asks| asks.status.success()) {
            return Some(python);
        }
    }
    missing("Python's cryptography");
    None
}

/// Exports the keys of a fleet.
async fn export(fixture: &Fixture, out: &str) -> PathBuf {
    let arguments = ["keys", "export", out, "--data", "data"];
    let made = fixture.flotta(&arguments).await;
    assert!(made.status.success(), "{}", stderr(&made));
    fixture.path().join(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_keys_are_read_by_openssl() {
    let Some(openssl) = tool("openssl") else {
        return;
    };
    let public = async |path: PathBuf| {
        let path = path.to_str().unwrap();
        run(&openssl, &["pkey", "-pubout", "-in", path]).await
    };
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    fixture.start().await.stop().await;
    let out = export(&fixture, "new").await;
    for key in ["root.pem", "release.pem", "device-ca.pem", "server.pem"] {
        public(out.join(key)).await;
    }

    // a fleet that an earlier version created
    let data = fixture.path().join("data/keys");
    for key in ["root.pem", "release.pem"] {
        std::fs::write(data.join(key), VERSION_2).unwrap();
    }
    let out = export(&fixture, "old").await;
    for key in ["root.pem", "release.pem"] {
        let read = public(out.join(key)).await;
        assert!(read.contains(PUBLIC), "{read}");
        let content = std::fs::read_to_string(data.join(key)).unwrap();
        assert_eq!(content, VERSION_2, "what is in use is left as it is");
    }
}

/// The configuration for the next start: the address in the join files must stay the same.
fn again(fixture: &Fixture, server: &common::Running) -> Config {
    Config {
        listen: server.about.listen,
        ..fixture.config()
    }
}

/// Runs the program that rotates the keys, with an export of them in this folder.
async fn rotate(fixture: &Fixture, python: &Path, export: &Path) -> Output {
    let data = fixture.path().join("data");
    let arguments = [ROTATE, export.to_str().unwrap(), data.to_str().unwrap()];
    try_run(python, &arguments).await
}

/// Rotates the keys of a fleet, for which its server must be stopped.
async fn stop_and_rotate(fixture: &Fixture, python: &Path, server: common::Running) {
    let old = export(fixture, "old-keys").await;
    let refused = stderr(&rotate(fixture, python, &old).await);
    assert!(
        refused.contains("a server uses this directory"),
        "{refused}"
    );
    server.stop().await;
    let rotated = rotate(fixture, python, &old).await;
    let said = stdout(&rotated);
    assert!(
        said.starts_with("trust root 2, sha256:"),
        "{said}{}",
        stderr(&rotated)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_written_from_the_contract_alone_is_served() {
    let (Some(python), Some(_)) = (python().await, tool("openssl")) else {
        return;
    };
    let fixture = Fixture::new();
    // three devices: a tree that is not full
    let names = ["shop-1", "shop-2", "shop-3"].map(device);
    fixture.commit("a.yaml", &names.join("---\n"));
    let server = fixture.start().await;
    server.released(1).await;
    fixture.commit("web.yaml", WORKLOAD);
    server.released(2).await;
    let output = fixture.flotta(&["token", "create", "shop-2"]).await;
    let join = fixture.path().join("shop-2.join");
    std::fs::write(&join, &output.stdout).unwrap();
    let state = fixture.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let client = async |doing: &str| -> Value {
        let paths = [join.to_str().unwrap(), state.to_str().unwrap()];
        let said = run(&python, &[&[CLIENT][..], &paths, &[doing]].concat()).await;
        serde_json::from_str(&said).unwrap()
    };

    let said = client("join").await;
    assert_eq!((&said["sequence"], &said["root"]), (&2.into(), &1.into()));
    assert_eq!(said["size"], 3);
    assert!(said["files"].as_u64().unwrap() > 0, "{said}");
    let manifest = said["manifest"].as_str().unwrap();
    let output = fixture
        .flotta(&["get", "devices", "shop-2", "-o", "json"])
        .await;
    let seen = stdout(&output);
    assert!(seen.contains(manifest), "{seen}");
    let output = fixture.flotta(&["get", "events", "-A"]).await;
    let events = stdout(&output);
    assert!(events.contains("by the contract alone"), "{events}");
    client("renew").await;

    // it does verify: its memory decides
    let memory = state.join("memory.json");
    let good = std::fs::read_to_string(&memory).unwrap();
    let other_root = format!("sha256:{:064}", 0);
    let other_key = format!("ed25519:{PUBLIC}");
    for (place, other, code) in [
        ("/highest/0", Value::from(3), "FLT0307"),
        ("/highest/1", other_root.into(), "FLT0308"),
        ("/trust/release/keys/0", other_key.into(), "FLT0302"),
        ("/trust/fleet", "ships".into(), "FLT0304"),
    ] {
        let mut changed: Value = serde_json::from_str(&good).unwrap();
        *changed.pointer_mut(place).unwrap() = other;
        std::fs::write(&memory, changed.to_string()).unwrap();
        let arguments = [CLIENT, join.to_str().unwrap(), state.to_str().unwrap()];
        let refused = stderr(&try_run(&python, &arguments).await);
        assert!(refused.contains(code), "{code}: {refused}");
    }
    std::fs::write(&memory, good).unwrap();

    let config = again(&fixture, &server);
    stop_and_rotate(&fixture, &python, server).await;
    let server = fixture.start_with(config).await;
    let said = client("").await;
    assert_eq!((&said["sequence"], &said["root"]), (&2.into(), &2.into()));
    fixture.commit("b.yaml", &device("shop-4"));
    server.released(3).await;
    let said = client("").await;
    assert_eq!((&said["sequence"], &said["size"]), (&3.into(), &4.into()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_as_the_contract_says() {
    let (Some(python), Some(_)) = (tool("python3"), tool("openssl")) else {
        return;
    };
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    let folder = tempfile::tempdir().unwrap();
    let mut device_1 = Device::join(&fixture, "shop-1", folder.path()).await;
    let session = device_1.client.connect().await.unwrap();
    let before = device_1.accepted(&session).await.expect("an offer");
    device_1.memory = before.memory.clone();
    let config = again(&fixture, &server);
    stop_and_rotate(&fixture, &python, server).await;

    // no new release is needed, because the one in force is valid with the new trust root
    let server = fixture.start_with(config).await;
    let session = device_1.client.connect().await.unwrap();
    let after = device_1.accepted(&session).await.expect("an offer");
    assert_eq!(after.release, before.release);
    let (old, new) = (&before.memory.trust, &after.memory.trust);
    assert_eq!((old.version, new.version), (1, 2));
    assert!(old.root.keys != new.root.keys && old.release.keys != new.release.keys);
    device_1.memory = after.memory.clone();
    let held = server.about.facts.trust_root.clone();
    assert_eq!(held, new.fingerprint().hex());

    fixture.commit("b.yaml", &device("shop-2"));
    server.released(2).await;
    let next = device_1.accepted(&session).await.expect("an offer");
    assert_eq!(next.release.sequence, 2);

    // a device that joins now starts with the new keys
    let output = fixture.flotta(&["token", "create", "shop-2"]).await;
    let join: JoinFile = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(TrustRoot::open(&join.trust_root).as_ref(), Ok(new));
    let folder = tempfile::tempdir().unwrap();
    let device_2 = Device::join(&fixture, "shop-2", folder.path()).await;
    let session = device_2.client.connect().await.unwrap();
    assert!(device_2.accepted(&session).await.is_some());
    server.stop().await;
}
