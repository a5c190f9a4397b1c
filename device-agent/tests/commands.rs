//! The program as a person meets it: answers, exit codes, and nothing made by looking.

use std::path::Path;
use std::process::{Command, Output};

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
