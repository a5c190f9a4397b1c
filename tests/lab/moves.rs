//! The server moves to another port and another name: the release says so, and no device is touched.

use std::net::TcpListener;

use serde_json::Value;

use crate::device::{Device, wait};
use crate::site::{Site, device, host, page};

const NAMES: [&str; 3] = ["mover1", "mover2", "mover3"];

/// Checks through which address of the server the device's report came, as shown by the server.
fn by(site: &Site, name: &str, server: &str) {
    wait(&format!("{name} is at {server}"), || {
        let status = site.status(name);
        (status["server"] == server && status["state"] == "Ready")
            .then_some(())
            .ok_or_else(|| format!("{status}\n{}", site.said()))
    });
}

fn link(device: &Device) -> Value {
    let output = device.run(&["flotta-agent", "status", "-o", "json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["status"]["link"].clone()
}

/// A set of all devices that names these addresses.
fn set(servers: &[&str]) -> String {
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDeviceSet\nmetadata: {{name: all}}\n\
         spec:\n  selector: {{}}\n  servers: {servers:?}\n"
    )
}

#[test]
fn a_server_that_moves_takes_its_devices_along() {
    let devices = NAMES.map(device).join("---\n");
    let web = |words: &str| page("web", 8080, words);
    let mut site = Site::start(&[
        ("devices.yaml", &devices),
        ("web.yaml", &web("at the old address")),
    ]);
    let joined = NAMES.map(|name| {
        let device = Site::install(name);
        let hosts = format!(
            "127.0.0.1 localhost {name}\n{} flotta.example moved.example\n",
            host()
        );
        device.write("/etc/hosts", &hosts);
        device.write("/etc/flotta/join", &site.token(&[name]));
        device.boot();
        device
    });
    for name in NAMES {
        site.in_sync(name);
    }
    let (old, old_listen) = (site.url(), site.address().to_owned());
    let free = TcpListener::bind((host(), 0)).and_then(|listener| listener.local_addr());
    let port = free.expect("a free port").port();
    let (new, new_listen) = (
        format!("https://moved.example:{port}"),
        format!("{}:{port}", host()),
    );

    // The old address still answers, and the release names the new one. Nothing is there yet: the devices stay, and report why.
    site.commit("the server will move", &[("set.yaml", &set(&[&new, &old]))]);
    for (name, device) in NAMES.iter().zip(&joined) {
        site.in_sync(name);
        by(&site, name, &old);
        wait("the device says that nobody is at the new address", || {
            let link = link(device);
            (link["passed_over"]["code"] == "FLT0508")
                .then_some(())
                .ok_or_else(|| format!("{link}\n{}", device.log()))
        });
    }

    // The server moves, with a new commit that no device has received.
    site.kill();
    site.commit(
        "served from elsewhere",
        &[("web.yaml", &web("at the new address"))],
    );
    site.moves_to(&new_listen, "moved.example");
    site.serve();
    for (name, device) in NAMES.iter().zip(&joined) {
        site.in_sync(name);
        by(&site, name, &new);
        device.shows(8080, "at the new address");
    }

    // Back at the old address, as after a failed move; then at the new one for good.
    for (listen, server, words) in [
        (&old_listen, &old, "back at the old address"),
        (&new_listen, &new, "at the new address for good"),
    ] {
        site.kill();
        site.commit(words, &[("web.yaml", &web(words))]);
        site.moves_to(listen, "moved.example");
        site.serve();
        for (name, device) in NAMES.iter().zip(&joined) {
            site.in_sync(name);
            by(&site, name, server);
            device.shows(8080, words);
        }
    }

    // After a reboot the new address is tried first, because it is in the ledger.
    let [first, ..] = &joined;
    first.reboot();
    by(&site, NAMES[0], &new);
    assert!(link(first)["passed_over"].is_null(), "{}", link(first));
}
