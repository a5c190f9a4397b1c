//! Outages of server, network and power: the device does not need the server.

use crate::device::wait;
use crate::site::{Site, device, page};

#[test]
fn a_device_runs_from_its_ledger_while_the_server_is_away() {
    let mut site = Site::start(&[
        ("device.yaml", &device("alone")),
        ("web.yaml", &page("web", 8080, "the page")),
    ]);
    let alone = site.join("alone");
    site.in_sync("alone");
    // e. Server stopped, device rebooted: workloads run again from the ledger.
    site.kill();
    alone.reboot();
    alone.shows(8080, "the page");
    // A power cut is no different.
    alone.cut();
    alone.boot();
    alone.shows(8080, "the page");
    let status = alone.run(&["flotta-agent", "status"]);
    assert!(
        status.status.code().is_some_and(|code| code < 2),
        "it answers without a server"
    );
    // The server is back: the device reports within its heartbeat.
    let boot = alone.exec(&["cat", "/proc/sys/kernel/random/boot_id"]);
    site.serve();
    let began = jiff::Timestamp::now();
    wait("the device reports again", || {
        let status = site.status("alone");
        let seen = status["lastSeen"]
            .as_str()
            .and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let fresh = seen.is_some_and(|seen| seen > began) && status["state"] == "Ready";
        fresh
            .then_some(())
            .ok_or_else(|| format!("boot {boot}: {status}\n{}", alone.log()))
    });
}

#[test]
fn a_server_that_is_killed_asks_nothing_of_the_device() {
    let mut site = Site::start(&[
        ("device.yaml", &device("calm")),
        ("web.yaml", &page("web", 8080, "the page")),
    ]);
    let calm = site.join("calm");
    site.in_sync("calm");
    let containers = calm.containers();
    let agent = calm.exec(&[
        "systemctl",
        "show",
        "--value",
        "-p",
        "InvocationID",
        "flotta-agent",
    ]);
    let certificate = std::fs::read(calm.path("/var/lib/flotta-agent/identity/certificate.pem"))
        .expect("a certificate");
    let keys = files(&site.path("data/keys"));
    let releases = site.flotta(&["get", "releases", "-o", "name"]);
    // f. The server killed and started again.
    site.kill();
    site.serve();
    let began = jiff::Timestamp::now();
    wait("the device is back", || {
        let status = site.status("calm");
        let seen = status["lastSeen"]
            .as_str()
            .and_then(|at| at.parse::<jiff::Timestamp>().ok());
        seen.filter(|seen| *seen > began)
            .ok_or_else(|| status.to_string())
    });
    site.in_sync("calm");
    assert_eq!(calm.containers(), containers);
    assert_eq!(
        calm.exec(&[
            "systemctl",
            "show",
            "--value",
            "-p",
            "InvocationID",
            "flotta-agent"
        ]),
        agent
    );
    assert_eq!(
        std::fs::read(calm.path("/var/lib/flotta-agent/identity/certificate.pem"))
            .expect("a certificate"),
        certificate
    );
    assert_eq!(
        files(&site.path("data/keys")),
        keys,
        "no key and no certificate is renewed"
    );
    assert_eq!(
        site.flotta(&["get", "releases", "-o", "name"]),
        releases,
        "no release is made for a restart"
    );
    // And it still follows.
    site.commit(
        "another page",
        &[("web.yaml", &page("web", 8080, "after the restart"))],
    );
    calm.shows(8080, "after the restart");
}

/// Every file below a folder, with its content.
fn files(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let content = std::fs::read(&path).expect("a file");
            all.push((path, content));
        }
    }
    all.sort();
    all
}
