//! A commit that removes too much, and a missing source.

use crate::device::{Device, wait};
use crate::site::{Site, device, page};

#[test]
fn nothing_stops_until_someone_says_that_it_is_meant() {
    let files = [
        ("keep.yaml", &device("keep")),
        ("gone.yaml", &device("gone")),
        ("web.yaml", &page("web", 8080, "the page")),
        ("till.yaml", &page("till", 8081, "the till")),
    ];
    let files = files.map(|(name, content)| (name, content.as_str()));
    let mut site = Site::start(&files);
    let (keep, gone) = (site.join("keep"), site.join("gone"));
    site.in_sync("keep");
    site.in_sync("gone");
    let before = (keep.containers(), gone.containers());

    // a. A device leaves Git: it keeps what it runs, also while the others change.
    site.commit("one shop less", &[("gone.yaml", "")]);
    site.event(&["LeftGit", "default/gone"]);
    let web = page("web", 8080, "another page");
    site.commit("another page", &[("web.yaml", &web)]);
    keep.shows(8080, "another page");
    site.in_sync("keep");
    gone.shows(8080, "the page");
    assert_eq!(gone.containers(), before.1);
    says(&site, "gone", "left Git, keeps what it runs");

    // b. Everything is removed: the release is held, over a restart too, and nothing stops.
    let running = keep.containers();
    let all = [("keep.yaml", ""), ("web.yaml", ""), ("till.yaml", "")];
    site.commit("tidy up", &all);
    site.hears("release held");
    let commit = site.git(&["rev-parse", "--short=7", "HEAD"]);
    site.kill();
    // c. The source is missing when the server starts: it serves what it has, and reports that.
    let away = site.path("away");
    std::fs::rename(site.repository(), &away).expect("it moves");
    site.serve();
    wait("the status line", || {
        let output = site.run(&["get", "devices"]);
        let said = crate::device::text(&output.stderr);
        let both = said.contains("has been unreadable") && said.contains("held: it would");
        both.then_some(()).ok_or(said)
    });
    let seen = jiff::Timestamp::now();
    for name in ["keep", "gone"] {
        wait(&format!("{name} reports to the server"), || {
            let status = site.status(name);
            let last = status["lastSeen"].as_str().unwrap_or_default();
            let last = last.parse::<jiff::Timestamp>().ok();
            last.filter(|last| *last > seen)
                .ok_or_else(|| status.to_string())
        });
    }
    std::fs::rename(&away, site.repository()).expect("it moves");
    site.event(&["SourceAvailable"]);
    let held = site.flotta(&["get", "releases"]);
    assert!(held.contains("Held"), "{held}");
    assert_eq!((keep.containers(), gone.containers()), (running, before.1));
    let what = site.flotta(&["describe", "release", &commit]);
    assert!(
        what.contains("default/till") && what.contains("default/keep"),
        "{what}"
    );

    // d. The commit is allowed, for the devices that leave with it; the one that left before is decommissioned by name.
    let is_empty = |device: &Device| {
        wait("nothing runs", || {
            let running = device.containers();
            running
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{running:?}"))
        });
    };
    site.flotta(&["release", "allow", &commit]);
    is_empty(&keep);
    says(&site, "gone", "left Git, keeps what it runs");
    site.flotta(&["decommission", "gone"]);
    is_empty(&gone);
    says(&site, "gone", "decommissioned");
    println!("mass changes: 2 tried, 1 held, 1 allowed");
}

/// Waits until the device is well, with these words in its message.
#[track_caller]
fn says(site: &Site, device: &str, words: &str) {
    wait(&format!("{device}: {words}"), || {
        let status = site.status(device);
        let message = status["message"].as_str().unwrap_or_default();
        let found = message.contains(words) && status["state"] == "Ready";
        found.then_some(()).ok_or_else(|| status.to_string())
    });
}

#[test]
fn a_device_takes_another_name_without_an_outage() {
    let site = Site::start(&[
        ("device.yaml", &device("before")),
        ("web.yaml", &page("web", 8080, "the page")),
    ]);
    let machine = site.join("before");
    site.in_sync("before");
    let running = machine.containers();
    site.commit("another name", &[("device.yaml", &device("after"))]);
    says(&site, "before", "left Git, keeps what it runs");
    machine.write("/root/after.join", &site.token(&["after"]));
    machine.exec(&["flotta-agent", "enrol", "--reset", "/root/after.join"]);
    site.in_sync("after");
    assert_eq!(machine.containers(), running, "nothing was restarted");
    site.flotta(&["revoke", "before"]);
    site.in_sync("after");
    assert_eq!(machine.containers(), running);
}
