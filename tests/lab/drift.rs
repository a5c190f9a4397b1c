//! A manual edit on the device: it is detected by file events, reported on both sides, and corrected.

use crate::device::{Device, wait};
use crate::site::{Site, device, page};

const UNIT: &str = "/etc/containers/systemd/web.container";

/// Waits until a file is restored, and all is well again.
#[track_caller]
fn is_put_back(site: &Site, device: &Device, path: &str, was: &[u8]) {
    wait(&format!("{path} is put back"), || {
        let is = std::fs::read(device.path(path)).unwrap_or_default();
        (is == was)
            .then_some(())
            .ok_or_else(|| format!("{}\n{}", String::from_utf8_lossy(&is), device.log()))
    });
    // the ledger marks the unit as due until it is known to run with the file
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

    // Neither systemd nor the agent is notified.
    edited.exec(&["sed", "-i", "s/^Image=.*/Image=hand.example\\/made/", UNIT]);
    // the condition ends when the file is restored, which is soon, but the event stays
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

    // An edit while the agent is stopped is reported after its start.
    edited.exec(&["systemctl", "stop", "flotta-agent"]);
    edited.exec(&["sed", "-i", "s/^Image=.*/Image=hand.example\\/made/", UNIT]);
    edited.exec(&["rm", &data]);
    edited.exec(&["systemctl", "start", "flotta-agent"]);
    is_put_back(&site, &edited, UNIT, &unit);
    is_put_back(&site, &edited, &data, &content);
    site.event(&["Drifted", "edited", "were changed or removed"]);
    assert_eq!(edited.containers()["other"], before["other"]);
}
