//! Devices that join, wait or are refused, as reported on both sides.

use std::time::{Duration, Instant};

use crate::device::{text, wait};
use crate::site::{Site, device, page};

#[test]
fn tokens_are_good_once_in_time_and_for_their_device() {
    let site = Site::start(&[("device.yaml", &device("first"))]);
    let expiring = site.token(&["--ttl", "1s", "second"]);
    let made = Instant::now();
    let join = site.token(&["first"]);
    let first = Site::install("first");
    first.write("/etc/flotta/join", &join);
    first.boot();
    site.in_sync("first");

    let second = Site::install("second");
    second.boot();
    let enrol = |join: &str, name: &str| {
        second.write("/root/join", join);
        let output = second.run(&[
            "flotta-agent",
            "enrol",
            "--as",
            name,
            "--no-start",
            "/root/join",
        ]);
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    // j. A token used twice, …
    let said = enrol(&join, "first");
    assert!(said.contains("FLT0406"), "{said}");
    site.event(&["FLT0406", "first"]);
    // … expired, …
    wait("a second has passed", || {
        if made.elapsed() > Duration::from_secs(2) {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    let said = enrol(&expiring, "second");
    assert!(said.contains("FLT0407"), "{said}");
    site.event(&["FLT0407", "second"]);
    // … or for another device's name is refused, which is reported on both sides.
    let said = enrol(&site.token(&["third"]), "second");
    assert!(said.contains("FLT0408"), "{said}");
    site.event(&["FLT0408", "second"]);
    assert_eq!(site.status("first")["state"], "Ready");
    assert!(site.status("second").is_null());
}

#[test]
fn without_a_token_a_device_waits_for_a_person() {
    let site = Site::start(&[
        ("device.yaml", &device("till")),
        ("web.yaml", &page("web", 8080, "the page")),
    ]);
    let till = site.join("till");
    site.in_sync("till");
    let (containers, key) = (
        till.containers(),
        site.status("till")["identity"]["fingerprint"].clone(),
    );
    let ask = site.token(&["--ask"]);

    // j. Two devices that ask for one name: the second waits, the first is untouched.
    let twin = Site::install("twin");
    twin.write("/root/join", &ask);
    twin.boot();
    let said = twin.exec(&["flotta-agent", "enrol", "--as", "till", "/root/join"]);
    assert!(
        said.contains("asked to join as default/till; waiting for approval"),
        "{said}"
    );
    let shown = said
        .split_whitespace()
        .find(|word| word.starts_with("SHA256:") && said.matches(word).count() > 1);
    let shown = shown
        .expect("the key's fingerprint, on both lines")
        .trim_end_matches(')')
        .to_owned();
    let requests = wait("the request is there", || {
        let all = site.flotta(&["get", "requests"]);
        if all.contains("till") {
            Ok(all)
        } else {
            Err(all)
        }
    });
    assert!(
        requests.contains(&shown),
        "the same fingerprint on both sides: {shown}\n{requests}"
    );
    assert_eq!(site.status("till")["identity"]["fingerprint"], key);
    assert_eq!(site.status("till")["state"], "Ready");
    assert_eq!(till.containers(), containers);

    // A refusal, with its reason on the device.
    site.flotta(&["deny", "till", "--reason", "not one of ours"]);
    wait("the device is told", || {
        let log = twin.log();
        if log.contains("FLT0410") && log.contains("not one of ours") {
            Ok(())
        } else {
            Err(log)
        }
    });
    site.event(&["Denied", "till"]);

    // An approval: the device joins, with everything that its set and labels give it.
    let fresh = Site::install("fresh");
    fresh.write("/etc/flotta/join", &ask);
    fresh.boot();
    wait("the request is there", || {
        let all = site.flotta(&["get", "requests"]);
        if all.contains("fresh") {
            Ok(())
        } else {
            Err(format!("{all}{}", fresh.log()))
        }
    });
    site.flotta(&["approve", "fresh"]);
    fresh.shows(8080, "the page");
    wait("it is in the inventory", || {
        let status = site.status("fresh");
        if status["state"] == "Ready" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(site.run(&["get", "requests", "-o", "name"]).stdout, b"");
}
