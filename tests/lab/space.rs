//! An image that does not fit on the device: that is noticed before anything of the running system changes.

use crate::device::{Device, text, wait};
use crate::site::{HELLO, Site, device, page};

/// Podman's storage for images and containers.
const STORE: &str = "/var/lib/containers";

/// The used space on Podman's disk, in KiB.
fn used(device: &Device) -> u64 {
    let said = device.exec(&["df", "--output=used", STORE]);
    let number = said.split_whitespace().next_back();
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn an_image_that_does_not_fit_changes_nothing_and_comes_when_there_is_space() {
    let site = Site::start(&[
        ("device.yaml", &device("small")),
        ("web.yaml", &page("web", 8080, "the first page")),
    ]);
    let small = Site::install("small");
    small.boot();
    let large = small.publish("large", 64);
    // The agent has not started yet; from now on Podman has a small disk of its own.
    let tmpfs = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", STORE];
    small.exec(&tmpfs);
    small.write("/etc/flotta/join", &site.token(&["small"]));
    small.exec(&["systemctl", "start", "flotta-agent"]);
    site.in_sync("small");
    let before = small.containers();
    let images = ["podman", "images", "--all", "--noheading"];
    let (had, full) = (small.exec(&images), used(&small));
    let runs = site.status("small")["running"].clone();
    let unit = || std::fs::read(small.path("/etc/containers/systemd/web.container"));
    let web = unit().expect("a unit file");

    let second = page("web", 8080, "the second page").replace(HELLO, &large);
    let other = page("other", 8081, "the other page");
    site.commit(
        "a large image, and a small one",
        &[("web.yaml", &second), ("other.yaml", &other)],
    );
    let why = site.problem("small", "web", "FLT0513");
    assert!(
        why.contains(&large) && why.contains("no space left"),
        "{why}"
    );
    wait("both sides say that the device is not well", || {
        let state = site.status("small")["state"].clone();
        let own = small.run(&["flotta-agent", "status"]);
        let said = text(&own.stdout);
        let says = said.contains("FLT0513") && own.status.code() == Some(1) && state == "Failed";
        says.then_some(()).ok_or(format!("{state} {said}"))
    });
    // The workload that fits is running, and the one that does not has changed nothing.
    small.shows(8081, "the other page");
    small.shows(8080, "the first page");
    assert_eq!(small.containers()["web"], before["web"]);
    assert_eq!(unit().expect("a unit file"), web);
    let folder = small.path("/etc/flotta/workloads/web/site");
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
    assert_eq!(site.status("small")["running"], runs);
    assert_eq!(small.exec(&images), had);
    wait("between two tries nothing is left of the image", || {
        let now = used(&small);
        // only a container was added
        (now < full + 8 * 1024)
            .then_some(())
            .ok_or(format!("{now} KiB"))
    });

    let other = small.containers()["other"].clone();
    small.exec(&["mount", "-o", "remount,size=256m", STORE]);
    small.shows(8080, "the second page");
    site.in_sync("small");
    assert_eq!(small.containers()["other"], other);
}
