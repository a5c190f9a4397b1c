//! The server is lost, and a new one is made from what is left: the drills of docs/recovery.md on real devices, without manual
//! work on any device.

use std::process::Command;

use crate::device::{Device, text, wait};
use crate::site::{Site, device, page};

/// Copies a folder with all that is in it.
fn copy(from: &str, to: &str, site: &Site) {
    let copied = Command::new("cp")
        .arg("-a")
        .args([site.path(from), site.path(to)])
        .status();
    assert!(copied.expect("cp starts").success());
}

/// The device's history, in a file next to the repository.
fn history(site: &Site, device: &Device) -> String {
    let seen = device.exec(&["flotta-agent", "history", "-o", "json"]);
    let file = site.path(&format!("{}.json", device.name));
    std::fs::write(&file, seen).expect("a file");
    file.to_string_lossy().into_owned()
}

#[test]
fn a_second_release_of_one_number_is_refused_seen_and_outgrown() {
    let mut site = Site::start(&[
        ("shop.yaml", &device("shop")),
        ("kiosk.yaml", &device("kiosk")),
        ("web.yaml", &page("web", 8080, "before")),
    ]);
    let (shop, kiosk) = (site.join("shop"), site.join("kiosk"));
    site.in_sync("shop");
    site.in_sync("kiosk");
    site.kill();
    copy("data", "backup", &site);
    site.serve();
    kiosk.cut();
    site.commit(
        "one story",
        &[("web.yaml", &page("web", 8080, "one story"))],
    );
    shop.shows(8080, "one story");
    site.in_sync("shop");

    // the same sequence again, for other content
    site.kill();
    shop.cut();
    std::fs::remove_dir_all(site.path("data")).expect("removed");
    copy("backup", "data", &site);
    site.commit(
        "another story",
        &[("web.yaml", &page("web", 8080, "another story"))],
    );
    site.serve();
    kiosk.boot();
    kiosk.shows(8080, "another story");
    site.in_sync("kiosk");
    // the next release is above both, without another commit and without manual work on the device
    shop.boot();
    site.event(&["shop", "Refused", "FLT0308"]);
    site.hears("devices had accepted release 2");
    shop.shows(8080, "another story");
    site.in_sync("shop");
    // the data was copied into place by hand, so nobody was asked who was revoked, and the server warns about that
    site.event(&[
        "Behind",
        "default/shop has accepted release 2",
        "flotta revoke",
    ]);
    // the two stories can still be detected
    let (one, other) = (history(&site, &shop), history(&site, &kiosk));
    let told = site.run(&["verify-history", &one, &other]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    let said = text(&told.stdout);
    assert!(said.contains("has two roots"), "{said}");

    site.commit("after", &[("web.yaml", &page("web", 8080, "after"))]);
    for device in [&shop, &kiosk] {
        device.shows(8080, "after");
        site.in_sync(&device.name);
    }
}

/// Waits until these devices ask to come back, each with a certificate of this fleet.
#[track_caller]
fn ask_to_come_back(site: &Site, devices: &[&str]) {
    wait(&format!("{devices:?} ask to come back"), || {
        let all = site.flotta(&["get", "requests"]);
        let asks = |device: &&str| {
            all.lines()
                .any(|line| line.starts_with(device) && line.contains("certificate of this fleet"))
        };
        if devices.iter().all(asks) {
            Ok(())
        } else {
            Err(all)
        }
    });
}

#[test]
fn from_the_backup_of_yesterday_every_device_follows_the_next_commit_untouched() {
    let mut site = Site::start(&[
        ("old.yaml", &device("old")),
        ("later.yaml", &device("later")),
        ("thief.yaml", &device("thief")),
        ("web.yaml", &page("web", 8080, "yesterday")),
    ]);
    let (old, thief) = (site.join("old"), site.join("thief"));
    site.in_sync("old");
    site.in_sync("thief");
    let (data, backup) = (site.path("data"), site.path("b.tar"));
    let (data, backup) = (data.to_string_lossy(), backup.to_string_lossy());
    let made = site.flotta(&["backup", "--data", &data, "--to", &backup]);
    assert_eq!(made, backup);

    // after the backup: two commits, one device that joins, one that is revoked
    site.commit("noon", &[("web.yaml", &page("web", 8080, "noon"))]);
    site.in_sync("old");
    let later = site.join("later");
    site.in_sync("later");
    site.commit("evening", &[("web.yaml", &page("web", 8080, "evening"))]);
    for name in ["old", "later", "thief"] {
        site.in_sync(name);
    }
    site.flotta(&["revoke", "thief"]);
    site.kill();
    std::fs::remove_dir_all(&*data).expect("removed");

    let before = (old.containers(), later.containers());
    let restore = ["restore", &backup, "--data", &data];
    let asked = site.run(&restore);
    assert!(
        text(&asked.stderr).contains("FLT0633"),
        "{}",
        text(&asked.stderr)
    );
    let said = site.flotta(&[&restore[..], &["--revoked", "thief"]].concat());
    assert!(said.contains("keys, 2 devices"), "{said}");
    site.serve();
    site.hears("devices had accepted release");
    site.in_sync("old");
    ask_to_come_back(&site, &["later"]);
    let shown = text(&later.run(&["flotta-agent", "status"]).stdout);
    assert!(shown.contains("flotta approve default/later"), "{shown}");
    assert_eq!(
        (old.containers(), later.containers()),
        before,
        "what runs goes on"
    );
    site.flotta(&["approve", "--restored"]);
    site.in_sync("later");
    site.commit("tomorrow", &[("web.yaml", &page("web", 8080, "tomorrow"))]);
    old.shows(8080, "tomorrow");
    later.shows(8080, "tomorrow");
    thief.shows(8080, "evening");
    assert_eq!(site.status("thief")["state"], "Revoked");
    // however often it asks, the log has one line
    let said = site.said();
    let refusals = said.lines().filter(|line| line.contains("FLT0403"));
    let refusals: Vec<_> = refusals
        .filter(|line| line.contains("default/thief"))
        .collect();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

#[test]
fn keys_and_git_alone_are_enough() {
    let mut site = Site::start(&[
        ("one.yaml", &device("one")),
        ("two.yaml", &device("two")),
        ("web.yaml", &page("web", 8080, "first")),
    ]);
    let (one, two) = (site.join("one"), site.join("two"));
    let (data, keys) = (site.path("data"), site.path("flotta-keys"));
    let (data, keys) = (data.to_string_lossy(), keys.to_string_lossy());
    site.flotta(&["keys", "export", &keys, "--data", &data]);
    for story in ["second", "third", "fourth"] {
        site.commit(story, &[("web.yaml", &page("web", 8080, story))]);
        site.in_sync("one");
    }
    site.in_sync("two");
    let before = (one.containers(), two.containers());
    site.kill();
    std::fs::remove_dir_all(&*data).expect("removed");
    site.flotta(&["restore", &keys, "--data", &data, "--none-revoked"]);
    site.serve();
    ask_to_come_back(&site, &["one", "two"]);
    assert_eq!(
        (one.containers(), two.containers()),
        before,
        "what runs goes on"
    );
    site.flotta(&["approve", "--restored"]);
    site.hears("devices had accepted release 4");
    for device in [&one, &two] {
        site.in_sync(&device.name);
        device.shows(8080, "fourth");
    }
    assert_eq!(
        (one.containers(), two.containers()),
        before,
        "nothing restarts for the server's sake"
    );
    site.commit("fifth", &[("web.yaml", &page("web", 8080, "fifth"))]);
    one.shows(8080, "fifth");
    two.shows(8080, "fifth");
}
