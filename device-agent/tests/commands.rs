//! The program as people use it: answers, exit codes, and queries that create nothing.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flotta_agent::identity::{Identity, Joined};
use flotta_agent::ledger::Ledger;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::verify::Memory;

fn agent(folder: &Path, arguments: &[&str]) -> Output {
    let state = folder.join("state");
    Command::new(env!("CARGO_BIN_EXE_flotta-agent"))
        .args(arguments)
        .arg("--state")
        .arg(&state)
        .arg("--runtime")
        .arg(folder.join("run"))
        .arg("--root")
        .arg(folder)
        .output()
        .expect("the program runs")
}

fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_device_that_has_not_joined_says_so_and_looking_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in ["status", "diff", "verify", "history"] {
        let output = agent(folder.path(), &[command]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{command}: {}",
            talk(&output)
        );
        assert!(
            talk(&output).starts_with("error[FLT0401]: "),
            "{}",
            talk(&output)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!folder.path().join("state").exists());
    let output = agent(folder.path(), &["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", talk(&output));
    assert!(talk(&output).contains("FLT0401"), "{}", talk(&output));
}

#[test]
fn a_spoilt_join_file_is_named_with_its_place_before_a_key_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.join");
    std::fs::write(&path, "{\n  \"schema\": 1,\n  \"tokken\": \"x\"\n}").expect("written");
    let path = path.to_str().expect("text");
    let output = agent(folder.path(), &["enrol", path]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("error[FLT0419]: {path}:3:");
    assert!(talk(&output).starts_with(&expected), "{}", talk(&output));
    assert!(
        talk(&output).contains("help: make a new one"),
        "{}",
        talk(&output)
    );
    assert!(!folder.path().join("state").exists());
}

#[test]
fn wrong_arguments_are_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["enrol", "--wait", "soon"][..], &["fly"], &[]] {
        let output = agent(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
    found
}

#[test]
fn an_enrolment_that_fails_leaves_a_joined_device_as_it_was_and_its_agent_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let key = SigningKey::generate().expect("a key").0;
    let trust = TrustRoot {
        schema: root::SCHEMA,
        fleet: "shops".parse().expect("a fleet"),
        version: 1,
        root: Role::any_of([key.public()]),
        release: Role::any_of([key.public()]),
    };
    let root = Envelope::sign(root::PAYLOAD_TYPE, &trust.encode(), &[&key]);
    let ca = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
    let ca = ca.cert.pem();
    let mut ledger = Ledger::open(&state).expect("a ledger");
    let highest = None;
    let fleet = trust.fleet.clone();
    ledger.begin(Memory { trust, highest }).expect("begun");
    let (identity, _) = Identity::open_or_make(&state.join("identity")).expect("keys");
    let joined = Joined {
        fleet: fleet.clone(),
        device: "shop-17".parse().expect("a name"),
        server: "https://localhost".to_owned(),
    };
    identity.keep_joined(&joined, &ca).expect("kept");

    // a port at which nobody listens
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = port.local_addr().expect("an address").port();
    let join = serde_json::json!({
        "schema": 1, "fleet": fleet, "server": format!("https://127.0.0.1:{port}"), "ca": ca,
        "trust_root": root, "device": "default/shop-18", "token": "flotta_secret",
    });
    let path = folder.path().join("new.join");
    std::fs::write(&path, join.to_string()).expect("written");
    let path = path.to_str().expect("text");
    // an agent is running, as its lock says
    let lock = std::fs::File::create(state.join("lock")).expect("made");
    lock.lock().expect("locked");
    std::fs::write(state.join("lock.new"), b"").expect("made");
    let before = files(&state);
    let output = agent(folder.path(), &["enrol", "--reset", path]);
    assert_eq!(output.status.code(), Some(2), "{}", talk(&output));
    assert!(
        talk(&output).contains("error[FLT0508]"),
        "{}",
        talk(&output)
    );
    let stays = "nothing has changed: this device stays default/shop-17 of fleet shops";
    assert!(talk(&output).contains(stays), "{}", talk(&output));
    assert!(files(&state) == before, "{:?}", files(&state).keys());
    // without --reset it says what the device is, whether an agent is running or not
    let output = agent(folder.path(), &["enrol", path]);
    assert_eq!(output.status.code(), Some(1), "{}", talk(&output));
    assert!(
        talk(&output).contains("as default/shop-17"),
        "{}",
        talk(&output)
    );
    assert!(files(&state) == before);
    // when what it joined cannot be read any more, it can still join again
    drop(lock);
    std::fs::write(state.join("identity/joined.json"), b"{").expect("written");
    let output = agent(folder.path(), &["enrol", path]);
    assert!(talk(&output).contains("FLT0511"), "{}", talk(&output));
    let output = agent(folder.path(), &["enrol", "--reset", path]);
    assert!(
        talk(&output).contains("error[FLT0508]"),
        "{}",
        talk(&output)
    );
}
