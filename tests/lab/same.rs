//! Compares the fake machine of the agent's unit tests with a real one: the same script must give the same transcript.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use flotta_agent::backend::files::Disk;
use flotta_agent::backend::podman::Socket;
use flotta_agent::backend::systemd::Bus;
use flotta_agent::backend::{BackendError, Files, Found, Podman, Systemd, UnitState, Verb};

use crate::device::{Device, text};

#[path = "../../device-agent/src/backend/script.rs"]
mod script;

/// Set on a device of the lab, because the script changes the machine that it runs on.
const ON_DEVICE: &str = "FLOTTA_ON_DEVICE";

/// The device, from within.
struct Owner;

fn podman(arguments: &[&str]) -> String {
    let output = Command::new("podman").args(arguments).output();
    let output = output.expect("podman starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

impl script::Environment for Owner {
    fn host_unit(&mut self, name: &str) {
        let unit = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
        std::fs::write(format!("/etc/systemd/system/{name}"), unit).expect("a file");
    }

    fn stray(&mut self, workload: &str) {
        let label = format!("flotta.workload={workload}");
        let image = script::HELLO;
        podman(&["create", "--name", workload, "--label", &label, image]);
    }

    fn chmod(&mut self, path: &str) {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("a file");
    }

    fn lose(&mut self, image: &str) {
        podman(&["rmi", image]);
    }

    fn links(&mut self, name: &str) -> Vec<String> {
        let folders = std::fs::read_dir("/etc/systemd/system").expect("a folder");
        let folders = folders.map(|folder| folder.expect("an entry").path());
        let linked = folders.filter(|folder| folder.join(name).is_symlink());
        let named = linked.map(|folder| folder.file_name().expect("a name").to_owned());
        named
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    fn containers(&mut self) -> Vec<String> {
        let all = podman(&["ps", "--all", "--format", "{{.Names}}"]);
        all.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
#[ignore = "it is for the inside of a device: the test below runs it there"]
async fn the_script_on_this_machine() {
    assert!(
        std::env::var_os(ON_DEVICE).is_some(),
        "no device of the lab"
    );
    let play = script::Script {
        systemd: Bus::open().await.expect("systemd"),
        podman: Socket::new("/run/podman/podman.sock".into()),
        files: Disk::new("/".into()),
        stage: Owner,
        said: String::new(),
        runs: BTreeMap::new(),
    };
    // the transcript, for the test outside
    println!("{}", play.all().await);
}

#[test]
fn a_device_does_what_the_fake_does() {
    let device = Device::create("same");
    let program = std::env::current_exe().expect("this program");
    crate::site::put(&program, &device.path("/root/same"));
    device.boot();
    let here = format!("{ON_DEVICE}=1");
    let test = "same::the_script_on_this_machine";
    let said = device.exec(&[
        "env",
        &here,
        "/root/same",
        "--ignored",
        "--exact",
        "--nocapture",
        test,
    ]);
    assert!(said.contains(script::TRANSCRIPT), "{said}");
}
