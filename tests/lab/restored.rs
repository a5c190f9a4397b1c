//! A server that was restored from a backup, and so gives one number to a second release: a lie that it does not know of.

use std::process::Command;

use crate::device::{Device, text};
use crate::site::{Site, device, page};

/// Copies a folder with all that is in it.
fn copy(from: &str, to: &str, site: &Site) {
    let copied = Command::new("cp")
        .arg("-a")
        .args([site.path(from), site.path(to)])
        .status();
    assert!(copied.expect("cp starts").success());
}

/// What the device has seen, in a file beside the repository.
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
    let before = shop.containers();

    // the same number again, for other content
    site.kill();
    std::fs::remove_dir_all(site.path("data")).expect("removed");
    copy("backup", "data", &site);
    site.commit(
        "another story",
        &[("web.yaml", &page("web", 8080, "another story"))],
    );
    site.serve();
    kiosk.boot();
    kiosk.shows(8080, "another story");
    site.event(&["shop", "Refused", "FLT0308"]);
    shop.shows(8080, "one story");
    assert_eq!(shop.containers(), before, "what runs is kept");
    assert_eq!(shop.exec(&["flotta-agent", "diff"]), "");
    let (one, other) = (history(&site, &shop), history(&site, &kiosk));
    let told = site.run(&["verify-history", &one, &other]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    let said = text(&told.stdout);
    assert!(said.contains("has two roots"), "{said}");

    // The next release is newer than both.
    site.commit("after", &[("web.yaml", &page("web", 8080, "after"))]);
    for device in [&shop, &kiosk] {
        device.shows(8080, "after");
        site.in_sync(&device.name);
    }
}
