//! The identity of a device when it joins again, when its state is lost, and when its disk is copied: it never ends up without
//! an identity that it had, workloads keep running, and both sides report what happened.

use std::process::Command;

use crate::device::{Device, text, wait};
use crate::site::{Site, device, page};

fn status(device: &Device) -> String {
    text(&device.run(&["flotta-agent", "status"]).stdout)
}

/// Waits until `flotta-agent status` shows this.
#[track_caller]
fn says(device: &Device, what: &str) {
    wait(&format!("{} says {what:?}", device.name), || {
        let said = status(device);
        if said.contains(what) {
            Ok(())
        } else {
            Err(format!("{said}\n{}", device.log()))
        }
    });
}

#[track_caller]
fn is_active(device: &Device) {
    let state = device.exec(&["systemctl", "is-active", "flotta-agent"]);
    assert_eq!(state, "active");
}

fn key(site: &Site, device: &str) -> String {
    let status = site.status(device);
    let key = status["identity"]["fingerprint"].as_str();
    key.expect("joined").to_owned()
}

#[test]
fn joining_again_leaves_no_device_less_than_it_was() {
    let site = Site::start(&[
        ("device.yaml", &device("rejoin")),
        ("web.yaml", &page("web", 8080, "one")),
    ]);
    let rejoin = site.join("rejoin");
    site.in_sync("rejoin");
    let (before, containers) = (key(&site, "rejoin"), rejoin.containers());

    // a server that does not answer: the device keeps its identity, also after a reboot
    let nowhere = "https://flotta.example:9";
    let join = site.flotta(&["token", "create", "--server", nowhere, "--ask"]);
    rejoin.write("/root/nowhere", &join);
    let reset = ["flotta-agent", "enrol", "--reset", "/root/nowhere"];
    let output = rejoin.run(&reset);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
    is_active(&rejoin);
    // and with the agent stopped manually, as somebody may think is needed
    rejoin.exec(&["systemctl", "stop", "flotta-agent"]);
    assert_eq!(rejoin.run(&reset).status.code(), Some(2));
    rejoin.exec(&["systemctl", "start", "flotta-agent"]);
    is_active(&rejoin);
    assert_eq!(rejoin.containers(), containers);
    rejoin.reboot();
    is_active(&rejoin);
    site.commit("two", &[("web.yaml", &page("web", 8080, "two"))]);
    rejoin.shows(8080, "two");
    site.in_sync("rejoin");

    // while a request is pending, the old identity keeps working
    rejoin.write("/root/ask", &site.token(&["--ask"]));
    let ask = [
        "flotta-agent",
        "enrol",
        "--reset",
        "--as",
        "rejoin",
        "/root/ask",
    ];
    let said = rejoin.exec(&ask);
    assert!(
        said.contains("until then this device stays default/rejoin"),
        "{said}"
    );
    site.commit("three", &[("web.yaml", &page("web", 8080, "three"))]);
    rejoin.shows(8080, "three");
    site.in_sync("rejoin");
    says(&rejoin, "asks       to be default/rejoin of fleet lab");
    assert_eq!(key(&site, "rejoin"), before);

    // denied: the identity stays, and the next request is a new one
    site.flotta(&["deny", "rejoin", "--reason", "not today"]);
    site.event(&["rejoin", "Denied", "FLT0410"]);
    assert_eq!(key(&site, "rejoin"), before);
    site.in_sync("rejoin");
    let containers = rejoin.containers();
    rejoin.exec(&ask);
    wait("the request is there", || {
        let all = site.flotta(&["get", "requests"]);
        if all.contains("rejoin") {
            Ok(())
        } else {
            Err(all)
        }
    });
    site.flotta(&["approve", "rejoin", "--replace"]);
    wait("the new key is in force", || {
        let now = key(&site, "rejoin");
        let state = site.status("rejoin")["state"].clone();
        if now != before && state == "Ready" {
            Ok(())
        } else {
            Err(format!("{now} {state}\n{}", rejoin.log()))
        }
    });
    assert_eq!(
        rejoin.containers(),
        containers,
        "what runs does not restart"
    );
    site.commit("four", &[("web.yaml", &page("web", 8080, "four"))]);
    rejoin.shows(8080, "four");
    site.in_sync("rejoin");
}

#[test]
fn a_device_that_loses_its_state_says_so_and_follows_the_next_commit() {
    let site = Site::start(&[
        ("device.yaml", &device("lossy")),
        ("web.yaml", &page("web", 8080, "0")),
    ]);
    let lossy = site.join("lossy");
    site.in_sync("lossy");
    let lose = |what: &[&str]| {
        lossy.exec(&["systemctl", "stop", "flotta-agent"]);
        let paths: Vec<_> = what
            .iter()
            .map(|name| format!("/var/lib/flotta-agent/{name}"))
            .collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        lossy.exec(&[&["rm", "-r"], &*paths].concat());
        lossy.exec(&["systemctl", "start", "flotta-agent"]);
    };
    for (at, (lost, said)) in [
        (&["ledger/trust.json"][..], "ledger/trust.json is gone"),
        (&["identity/trust.json"], "identity/trust.json is gone"),
        (&["identity/joined.json"], "identity/joined.json is gone"),
        (&["identity/ca.pem"], "identity/ca.pem is gone"),
        (
            &["identity/certificate.pem"],
            "identity/certificate.pem is gone",
        ),
        (&["identity/sealing.key"], "identity/sealing.key is gone"),
        (&["ledger/events.json"], "ledger/events.json is gone"),
        (&["ledger"], "ledger/machine.json is gone"),
    ]
    .into_iter()
    .enumerate()
    {
        let containers = lossy.containers();
        lose(lost);
        site.event(&["lossy", "Repaired", "FLT0518", said]);
        site.in_sync("lossy");
        assert_eq!(
            lossy.containers(),
            containers,
            "{lost:?}: what runs restarted"
        );
        let content = (at + 1).to_string();
        site.commit(&content, &[("web.yaml", &page("web", 8080, &content))]);
        lossy.shows(8080, &content);
        site.in_sync("lossy");
    }

    // Without its trust root it cannot accept anything from the server any more, and has to join again.
    let containers = lossy.containers();
    lose(&["ledger/trust.json", "identity/trust.json"]);
    site.commit("not yet", &[("web.yaml", &page("web", 8080, "trusted"))]);
    says(&lossy, "FLT0519");
    wait("the server says so, too", || {
        let status = site.status("lossy");
        if status["state"] == "Failed" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(lossy.containers(), containers);
    lossy.write("/root/again", &site.token(&["--ask"]));
    let key_before = key(&site, "lossy");
    lossy.exec(&["flotta-agent", "enrol", "--as", "lossy", "/root/again"]);
    lossy.shows(8080, "trusted");
    site.in_sync("lossy");
    assert_eq!(key(&site, "lossy"), key_before, "with the same keys");

    // The whole state is lost: it has no identity, workloads keep running, and the fleet's files are recognised when it joins again.
    let containers = lossy.containers();
    lossy.exec(&["systemctl", "stop", "flotta-agent"]);
    lossy.exec(&["find", "/var/lib/flotta-agent", "-mindepth", "1", "-delete"]);
    lossy.exec(&["flotta-agent", "enrol", "--as", "lossy", "/root/again"]);
    assert_eq!(lossy.containers(), containers);
    site.commit("last", &[("web.yaml", &page("web", 8080, "last"))]);
    wait("the request is there", || {
        let all = site.flotta(&["get", "requests"]);
        if all.contains("lossy") {
            Ok(())
        } else {
            Err(all)
        }
    });
    site.flotta(&["approve", "lossy", "--replace"]);
    lossy.shows(8080, "last");
    site.in_sync("lossy");
}

#[test]
fn a_copied_disk_is_found_and_both_machines_say_so() {
    let site = Site::start(&[
        ("device.yaml", &device("model")),
        ("web.yaml", &page("web", 8080, "one")),
    ]);
    let model = site.join("model");
    site.in_sync("model");
    // a reboot is not a copy
    model.reboot();
    site.in_sync("model");
    model.cut();
    let copy = Site::install("copy");
    let state = "/var/lib/flotta-agent";
    let copied = Command::new("cp")
        .arg("-a")
        .args([model.path(state), copy.path("/var/lib/")])
        .status();
    assert!(copied.expect("cp starts").success());
    model.boot();
    copy.boot();
    let found = site.event(&["model", "Cloned", "FLT0422"]);
    assert!(found.contains("two machines use this identity"), "{found}");
    let status = site.status("model");
    assert_eq!(status["state"], "Failed", "{status}");
    for machine in [&model, &copy] {
        says(machine, "FLT0422");
        machine.shows(8080, "one");
    }
    // neither machine is changed until a person decides
    site.commit("two", &[("web.yaml", &page("web", 8080, "two"))]);
    for machine in [&model, &copy] {
        machine.shows(8080, "two");
    }
    let join = site.token(&["copy"]);
    copy.write("/root/join", &join);
    copy.exec(&["flotta-agent", "enrol", "--reset", "/root/join"]);
    site.in_sync("model");
    copy.shows(8080, "two");
    wait("the copy is a device of its own", || {
        let status = site.status("copy");
        if status["state"] == "Ready" {
            Ok(())
        } else {
            Err(format!("{status}\n{}", copy.log()))
        }
    });
    for machine in [&model, &copy] {
        says(machine, "all is well");
    }
    assert_eq!(site.run(&["get", "requests", "-o", "name"]).stdout, b"");
}
