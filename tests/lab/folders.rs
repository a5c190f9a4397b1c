//! What people and programs do to the folders that the agent writes to: the agent copes, and workloads keep running.

use crate::device::{Device, wait};
use crate::site::{Site, device, page};

const QUADLET: &str = "/etc/containers/systemd";
const UNIT: &str = "/etc/containers/systemd/web.container";

/// Waits until the device itself sees a file.
#[track_caller]
fn has(device: &Device, path: &str) {
    wait(&format!("{} has {path}", device.name), || {
        let seen = device.run(&["test", "-s", path]).status.success();
        seen.then_some(()).ok_or_else(|| device.log())
    });
}

fn fleet(name: &str) -> (Site, Device) {
    let site = Site::start(&[
        ("device.yaml", &device(name)),
        ("web.yaml", &page("web", 8080, "page 0")),
    ]);
    let device = site.join(name);
    site.in_sync(name);
    device.shows(8080, "page 0");
    (site, device)
}

/// A commit reaches the device.
#[track_caller]
fn follows(site: &Site, device: &Device, content: &str) {
    site.commit(content, &[("web.yaml", &page("web", 8080, content))]);
    device.shows(8080, content);
    site.in_sync(&device.name);
}

#[test]
fn folders_that_are_removed_are_made_again_and_written_to() {
    let (site, removed) = fleet("removed");
    let agent = removed.exec(&[
        "systemctl",
        "show",
        "--value",
        "-p",
        "MainPID",
        "flotta-agent",
    ]);
    for (folder, number) in [
        (QUADLET, "1"),
        ("/etc/flotta", "2"),
        ("/etc/containers/systemd", "3"),
    ] {
        removed.exec(&["rm", "-rf", folder]);
        has(&removed, UNIT);
        // systemd does not know about this until now
        removed.exec(&["systemctl", "daemon-reload"]);
        // cancelled if the agent starts it at the same time
        removed.run(&["systemctl", "stop", "web"]);
        let shown = format!("page {}", number.parse::<u32>().expect("a number") - 1);
        removed.shows(8080, &shown);
        follows(&site, &removed, &format!("page {number}"));
    }
    // created again by somebody else, and empty
    removed.exec(&["rm", "-rf", QUADLET]);
    removed.exec(&["mkdir", "-p", QUADLET]);
    has(&removed, UNIT);
    follows(&site, &removed, "page 4");
    let now = removed.exec(&[
        "systemctl",
        "show",
        "--value",
        "-p",
        "MainPID",
        "flotta-agent",
    ]);
    assert_eq!(now, agent, "it needed no restart for that");
}

#[test]
fn what_is_mounted_over_a_folder_gets_the_files_as_well() {
    let (site, mounted) = fleet("mounted");
    mounted.exec(&["mount", "-t", "tmpfs", "tmpfs", QUADLET]);
    has(&mounted, UNIT);
    follows(&site, &mounted, "page 1");
    mounted.exec(&["umount", QUADLET]);
    follows(&site, &mounted, "page 2");
    mounted.exec(&["mkdir", "/root/other"]);
    mounted.exec(&["mount", "--bind", "/root/other", QUADLET]);
    has(&mounted, "/root/other/web.container");
    follows(&site, &mounted, "page 3");
    mounted.exec(&["umount", QUADLET]);
    has(&mounted, UNIT);
    follows(&site, &mounted, "page 4");
}

#[test]
fn a_masked_unit_is_named_and_runs_again_once_it_is_unmasked() {
    let (site, masked) = fleet("masked");
    masked.exec(&["systemctl", "mask", "web"]);
    let why = site.problem("masked", "web", "FLT0515");
    assert!(why.contains("web.service is masked"), "{why}");
    masked.shows(8080, "page 0");
    masked.exec(&["systemctl", "stop", "web"]);
    wait("it is said to be down", || {
        let status = site.status("masked");
        (status["workloads"][0]["state"] == "Failed")
            .then_some(())
            .ok_or(status.to_string())
    });
    site.problem("masked", "web", "FLT0515");
    let screen = masked.run(&["flotta-agent", "status"]);
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    assert!(screen.contains("systemctl unmask web.service"), "{screen}");
    masked.exec(&["systemctl", "unmask", "web"]);
    masked.shows(8080, "page 0");
    follows(&site, &masked, "page 1");
}

#[test]
fn a_read_only_etc_is_named_and_written_to_once_it_can_be() {
    let (site, shut) = fleet("shut");
    let before = shut.containers();
    // The agent sees what is mounted after it was started.
    shut.exec(&["mount", "--bind", "-o", "ro", "/etc", "/etc"]);
    site.commit("1", &[("web.yaml", &page("web", 8080, "page 1"))]);
    let why = site.problem("shut", "web", "FLT0516");
    assert!(why.contains("Read-only file system"), "{why}");
    assert_eq!(shut.containers(), before, "what runs goes on");
    shut.shows(8080, "page 0");
    // some file of it may be open
    shut.exec(&["umount", "--lazy", "/etc"]);
    shut.shows(8080, "page 1");
    site.in_sync("shut");

    // The mounts from its start stay in the agent's view, even when the machine itself can write again. Exiting helped a short
    // time ago, and helps again.
    for (number, undo) in [
        ("2", &["mount", "-o", "remount,bind,rw", "/etc"][..]),
        ("3", &["umount", "--lazy", "/etc"]),
    ] {
        if number == "3" {
            shut.exec(&["umount", "--lazy", "/etc"]);
        }
        shut.exec(&["mount", "--bind", "-o", "ro", "/etc", "/etc"]);
        shut.exec(&["systemctl", "restart", "flotta-agent"]);
        let before = shut.containers();
        let content = format!("page {number}");
        site.commit(number, &[("web.yaml", &page("web", 8080, &content))]);
        site.problem("shut", "web", "FLT0516");
        assert_eq!(shut.containers(), before, "what runs goes on");
        shut.exec(undo);
        shut.shows(8080, &content);
        site.in_sync("shut");
        let show = ["systemctl", "show", "--value", "-p", "NRestarts"];
        let restarts = shut.exec(&[&show[..], &["flotta-agent"]].concat());
        assert_eq!(restarts, "1", "it ended once for a fresh view");
    }
}
