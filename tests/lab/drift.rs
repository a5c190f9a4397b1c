//! A hand edit on the device: both sides hear of it by file events, and what Git says is put back.

use crate::device::{Device, wait};
use crate::site::{Site, device, page};

const UNIT: &str = "/etc/containers/systemd/web.container";

/// Waits until a file is as it was, and all is well again.
#[track_caller]
fn is_put_back(site: &Site, device: &Device, path: &str, was: &[u8]) {
    wait(&format!("{path} is put back"), || {
        let is = std::fs::read(device.path(path)).unwrap_or_default();
        (is == was)
            .then_some(())
            .ok_or_else(|| format!("{}\n{}", String::from_utf8_lossy(&is), device.log()))
    });
    // until the workload is known to run with it, the agent remembers that it is due
    wait("what uses it runs with it", || {
        let ledger = device.path("/var/lib/flotta-agent/ledger/machine.json");
        let machine = std::fs::read_to_string(ledger).unwrap_or_default();
        let done = !machine.is_empty() && !machine.contains("\"due\"");
        done.then_some(())
            .ok_or_else(|| format!("{machine}\n{}", device.log()))
    });
    site.in_sync(&device.name);
}

#[test]
fn a_hand_edit_is_told_and_put_back_without_a_reload() {
    let site = Site::start(&[
        ("device.yaml", &device("edited")),
        ("web.yaml", &page("web", 8080, "the page")),
        ("other.yaml", &page("other", 8081, "the other page")),
    ]);
    let edited = site.join("edited");
    site.in_sync("edited");
    edited.shows(8080, "the page");
    edited.shows(8081, "the other page");
    let before = edited.containers();
    let unit = std::fs::read(edited.path(UNIT)).expect("a unit file");

    // Nobody tells systemd or the agent.
    edited.exec(&["sed", "-i", "s/^Image=.*/Image=hand.example\\/made/", UNIT]);
    // the condition is there until the file is put back, which is soon: the event stays
    let why = site.event(&["Drifted", "edited", "FLT0514", UNIT]);
    assert!(why.contains("web: "), "{why}");
    is_put_back(&site, &edited, UNIT, &unit);
    edited.shows(8080, "the page");
    let after = edited.containers();
    assert_ne!(
        after["web"], before["web"],
        "what uses the file is started with it again"
    );
    assert_eq!(after["other"], before["other"]);

    // A file that the workload reads, its mode, and a file that is gone.
    let data = edited.exec(&["find", "/etc/flotta/workloads/web", "-type", "f"]);
    let content = std::fs::read(edited.path(&data)).expect("a file");
    edited.exec(&["sed", "-i", "s/the page/by hand/", &data]);
    site.event(&["Drifted", "edited", &data]);
    is_put_back(&site, &edited, &data, &content);
    edited.shows(8080, "the page");
    edited.exec(&["chmod", "0600", &data]);
    wait("its mode is put back", || {
        let mode = edited.exec(&["stat", "--format=%a", &data]);
        (mode == "644").then_some(()).ok_or(mode)
    });
    edited.exec(&["rm", UNIT]);
    is_put_back(&site, &edited, UNIT, &unit);

    // While the agent was away: it is told when it is back.
    edited.exec(&["systemctl", "stop", "flotta-agent"]);
    edited.exec(&["sed", "-i", "s/^Image=.*/Image=hand.example\\/made/", UNIT]);
    edited.exec(&["rm", &data]);
    edited.exec(&["systemctl", "start", "flotta-agent"]);
    is_put_back(&site, &edited, UNIT, &unit);
    is_put_back(&site, &edited, &data, &content);
    site.event(&["Drifted", "edited", "were changed or removed"]);
    assert_eq!(edited.containers()["other"], before["other"]);
}
