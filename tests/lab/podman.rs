//! Problems of Podman and its images are reported as what they are, and repaired where that does not touch running containers.

use crate::device::wait;
use crate::site::{Site, device, page};

const REGISTRIES: &str = "/etc/containers/registries.conf.d/lab.conf";
/// The folder with Podman's notes about its storage.
const NOTES: &str = "/run/containers/storage/overlay";

#[test]
fn images_that_are_gone_at_boot_are_what_is_said_to_be_missing() {
    let site = Site::start(&[
        ("device.yaml", &device("bare")),
        ("web.yaml", &page("web", 8080, "the page")),
    ]);
    let bare = site.join("bare");
    site.in_sync("bare");
    bare.exec(&["systemctl", "stop", "flotta-agent", "web"]);
    bare.exec(&["podman", "system", "prune", "--all", "--force"]);
    // nothing listens there
    let sed = ["sed", "-i.was", "s/:5000/:5999/", REGISTRIES];
    bare.exec(&sed);
    bare.reboot();
    let why = site.problem("bare", "web", "FLT0501");
    assert!(why.contains("registry.example/hello"), "{why}");
    wait("it stays what is said", || {
        let status = bare.run(&["flotta-agent", "status"]);
        let screen = String::from_utf8_lossy(&status.stdout).into_owned();
        (screen.contains("FLT0501") && !screen.contains("FLT0502"))
            .then_some(())
            .ok_or(screen)
    });
    bare.exec(&["mv", &format!("{REGISTRIES}.was"), REGISTRIES]);
    bare.shows(8080, "the page");
    site.in_sync("bare");
}

#[test]
fn a_storage_that_podman_has_given_up_is_looked_at_again() {
    let site = Site::start(&[
        ("device.yaml", &device("sulky")),
        ("web.yaml", &page("web", 8080, "the page")),
        ("other.yaml", &page("other", 8081, "the other page")),
    ]);
    let sulky = site.join("sulky");
    site.in_sync("sulky");
    sulky.shows(8081, "the other page");
    let other = sulky.containers()["other"].clone();
    // Podman's note after its disk was full while it tested the kernel's features.
    let words = "kernel does not support overlay fs: unable to create kernel-style whiteout: no space left on device";
    sulky.write("/root/note", words);
    sulky.exec(&["rm", &format!("{NOTES}/overlay-true")]);
    sulky.exec(&["cp", "/root/note", &format!("{NOTES}/overlay-false")]);
    assert!(
        !sulky.run(&["podman", "info"]).status.success(),
        "Podman refuses"
    );
    sulky.run(&["systemctl", "restart", "web"]);
    sulky.shows(8080, "the page");
    site.in_sync("sulky");
    site.event(&["sulky", "Repaired", "kernel does not support overlay fs"]);
    assert_eq!(
        sulky.containers()["other"],
        other,
        "what runs is not touched"
    );
    assert_eq!(
        sulky.exec(&["systemctl", "is-active", "podman.socket"]),
        "active"
    );
}
