//! Wrong clocks, of the server and of a device, before, during and after: no device needs manual work to come back.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::device::{Device, wait};
use crate::site::{FAKETIME, Site, device, page};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Makes this device's clock look synchronised.
fn set_by_network(device: &Device) {
    device.exec(&["mkdir", "-p", "/run/systemd/timesync"]);
    device.exec(&["touch", "/run/systemd/timesync/synchronized"]);
    device.exec(&["systemctl", "restart", "flotta-agent"]);
}

/// The names of all releases, and how far in the future the latest was issued.
fn releases(site: &Site) -> (Vec<String>, SignedDuration) {
    let all = site.json(&["get", "releases"]);
    let items = all["items"].as_array().expect("a list");
    let issued = |item: &Value| item["status"]["issued"].as_str()?.parse::<Timestamp>().ok();
    let latest = items.iter().filter_map(issued).max().expect("a release");
    let names = items
        .iter()
        .map(|item| item["metadata"]["name"].to_string());
    (names.collect(), latest.duration_since(Timestamp::now()))
}

fn restart(site: &mut Site, clock: Option<&'static str>, arguments: &[&'static str]) {
    site.kill();
    site.clock = clock;
    site.arguments = arguments.to_vec();
    site.serve();
}

/// Waits until the server has seen the device, by a clock with this offset.
fn heard(site: &Site, device: &Device, since: Timestamp, off: SignedDuration) {
    wait(&format!("{} reports", device.name), || {
        let status = site.status(&device.name);
        let seen = status["lastSeen"]
            .as_str()
            .and_then(|at| at.parse::<Timestamp>().ok());
        // the server starts with the saved last-seen times
        let fresh = seen.is_some_and(|seen| seen.duration_since(since + off).abs() < HOUR);
        fresh
            .then_some(())
            .ok_or_else(|| format!("{status}\n{}\n{}", site.said(), device.log()))
    });
}

#[test]
fn a_servers_clock_that_was_wrong_costs_no_device() {
    let mut site = Site::start(&[
        ("set.yaml", &device("clock-set")),
        ("unset.yaml", &device("clock-unset")),
        ("web.yaml", &page("web", 8080, "before")),
    ]);
    let devices = [site.join("clock-set"), site.join("clock-unset")];
    for device in &devices {
        site.in_sync(&device.name);
    }
    set_by_network(&devices[0]);
    let containers = devices.each_ref().map(Device::containers);
    let certificate = site.path("data/keys/server.pem");
    let kept = std::fs::read(&certificate).expect("a certificate");

    // it starts with a wrong clock: nothing is signed, all devices are served
    let mut tried = 0;
    for (clock, days) in [
        ("+100d", 100),
        ("-100d", -100),
        ("+730d", 730),
        ("-730d", -730),
        ("+3652d", 3652),
        ("-3652d", -3652),
    ] {
        let off = HOUR * 24 * days;
        let (before, began) = (releases(&site).0, Timestamp::now());
        restart(&mut site, Some(clock), &[]);
        site.hears("FLT0611");
        site.commit(clock, &[("note.txt", clock)]);
        for device in &devices {
            heard(&site, device, began, off);
        }
        assert_eq!(
            std::fs::read(&certificate).expect("a certificate"),
            kept,
            "{clock}"
        );
        assert_eq!(releases(&site).0, before, "{clock}: {}", site.said());
        let token = site.run(&["token", "create", "another"]);
        let said = String::from_utf8_lossy(&token.stderr).into_owned();
        assert!(
            said.contains("FLT0611") && !token.status.success(),
            "{said}"
        );
        // the clock is right again after a restart
        restart(&mut site, None, &[]);
        for device in &devices {
            site.in_sync(&device.name);
        }
        let (after, ahead) = releases(&site);
        assert_eq!(after.len(), before.len() + 1, "{clock}: {}", site.said());
        assert!(ahead < HOUR, "{clock}: {ahead:#}");
        tried += 1;
    }
    assert_eq!(
        devices.each_ref().map(Device::containers),
        containers,
        "nothing was touched"
    );
    println!("the server's clock: {tried} of {tried} wrong ones signed nothing");

    // F1 and F2: a person says that it is right, so a certificate and a release are made in the future
    restart(&mut site, Some("+730d"), &["--name", "second.example"]);
    site.hears("FLT0611");
    let accepted = site.run(&["clock", "accept"]);
    assert!(accepted.status.success(), "{}", site.said());
    site.commit(
        "from the future",
        &[("web.yaml", &page("web", 8080, "from the future"))],
    );
    for device in &devices {
        device.shows(8080, "from the future");
    }
    assert_ne!(std::fs::read(&certificate).expect("a certificate"), kept);
    let (_, ahead) = releases(&site);
    assert!(ahead > HOUR, "it is from the future: {ahead:#}");
    devices[1].reboot();
    devices[1].shows(8080, "from the future");
    // its clock is right: one device with a synchronised clock is enough to know that
    restart(&mut site, None, &[]);
    site.event(&["ClockRight"]);
    wait("the release is signed again", || {
        let current = site.status("clock-set");
        let release = site.json(&["get", "releases"])["items"][0]["status"].clone();
        let issued = release["issued"]
            .as_str()
            .and_then(|at| at.parse::<Timestamp>().ok());
        let right = issued.is_some_and(|issued| issued.duration_since(Timestamp::now()) < HOUR);
        right
            .then_some(())
            .ok_or_else(|| format!("{release} {current}\n{}", site.said()))
    });
    site.commit("after", &[("web.yaml", &page("web", 8080, "after"))]);
    for device in &devices {
        device.shows(8080, "after");
        site.in_sync(&device.name);
    }
    // also devices that restart with what they had learned
    devices[1].reboot();
    site.commit("later", &[("web.yaml", &page("web", 8080, "later"))]);
    devices[1].shows(8080, "later");
    site.in_sync("clock-unset");
}

#[test]
fn a_devices_clock_that_is_wrong_costs_it_nothing() {
    let site = Site::start(&[
        ("device.yaml", &device("astray")),
        ("web.yaml", &page("web", 8080, "before")),
    ]);
    let astray = site.join("astray");
    site.in_sync("astray");
    std::fs::copy(FAKETIME, astray.path("/usr/lib/faketime.so")).expect("ci/lab/lab setup");
    let drop_in = "/etc/systemd/system/flotta-agent.service.d/clock.conf";
    let mut tried = 0;
    for clock in [
        "+10m", "+100d", "-100d", "+730d", "-730d", "+3652d", "-3652d",
    ] {
        let environment = format!(
            "[Service]\nEnvironment=LD_PRELOAD=/usr/lib/faketime.so FAKETIME={clock} FAKETIME_DONT_FAKE_MONOTONIC=1\n"
        );
        astray.write(drop_in, &environment);
        astray.exec(&["systemctl", "daemon-reload"]);
        astray.exec(&["systemctl", "restart", "flotta-agent"]);
        site.commit(clock, &[("web.yaml", &page("web", 8080, clock))]);
        astray.shows(8080, clock);
        tried += 1;
    }
    // once right again, nothing that it remembers holds it up
    std::fs::remove_file(astray.path(drop_in)).expect("a file");
    astray.exec(&["systemctl", "daemon-reload"]);
    astray.exec(&["systemctl", "restart", "flotta-agent"]);
    site.commit("after", &[("web.yaml", &page("web", 8080, "after"))]);
    astray.shows(8080, "after");
    site.in_sync("astray");
    println!("a device's clock: {tried} of {tried} wrong ones followed");
}
