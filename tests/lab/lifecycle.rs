//! From commit to HTTP 200, and what a change touches.

use crate::site::{Site, device, page};

#[test]
fn a_commit_runs_a_change_restarts_only_its_unit_and_a_revert_brings_the_old_back() {
    let site = Site::start(&[
        ("device.yaml", &device("walk")),
        ("web.yaml", &page("web", 8080, "first page")),
        ("till.yaml", &page("till", 8081, "till page")),
        ("cam.yaml", &page("cam", 8082, "cam page")),
    ]);
    let walk = Site::install("walk");
    // Another Quadlet file on the same machine, which must stay unchanged throughout.
    let own = format!(
        "[Container]\nImage={}\nContainerName=own\nExec=8099 /index.txt\n[Install]\nWantedBy=multi-user.target\n",
        crate::site::HELLO
    );
    walk.write("/etc/containers/systemd/own.container", &own);
    walk.write("/etc/flotta/join", &site.token(&["walk"]));
    walk.boot();
    // a. Commit to HTTP 200 on the device's published port.
    walk.shows(8080, "first page");
    walk.shows(8081, "till page");
    walk.shows(8082, "cam page");
    site.in_sync("walk");
    assert!(
        !walk.path("/etc/flotta/join").exists(),
        "the join file goes once it has served"
    );
    let before = walk.containers();
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        ["cam", "own", "till", "web"]
    );

    // b. Changing one workload restarts only its unit.
    site.commit(
        "another page",
        &[("web.yaml", &page("web", 8080, "second page"))],
    );
    walk.shows(8080, "second page");
    site.in_sync("walk");
    let after = walk.containers();
    assert_ne!(before["web"], after["web"]);
    for name in ["cam", "own", "till"] {
        assert_eq!(before[name], after[name], "{name} was not to be touched");
    }

    // c. Removing one removes unit, container and files, and nothing else.
    site.commit("no camera", &[("cam.yaml", "")]);
    site.in_sync("walk");
    let without = walk.containers();
    assert_eq!(without.keys().collect::<Vec<_>>(), ["own", "till", "web"]);
    assert!(without.iter().all(|(name, id)| after[name] == *id));
    assert_eq!(
        walk.exec(&[
            "systemctl",
            "show",
            "--value",
            "-p",
            "LoadState",
            "cam.service"
        ]),
        "not-found"
    );
    assert!(!walk.path("/etc/containers/systemd/cam.container").exists());
    assert!(!walk.path("/etc/flotta/workloads/cam").exists());
    assert!(walk.path("/etc/flotta/workloads/till").exists());
    assert_eq!(
        std::fs::read_to_string(walk.path("/etc/containers/systemd/own.container"))
            .expect("it stays"),
        own
    );
    assert_eq!(
        walk.exec(&[
            "podman",
            "ps",
            "--all",
            "--quiet",
            "--filter",
            "label=flotta.workload=cam"
        ]),
        ""
    );

    // d. `git revert` brings the old state back.
    site.git(&["revert", "--no-edit", "HEAD"]);
    walk.shows(8082, "cam page");
    site.git(&["revert", "--no-edit", "HEAD~2"]);
    walk.shows(8080, "first page");
    site.in_sync("walk");
    let back = walk.containers();
    assert_eq!(
        back.keys().collect::<Vec<_>>(),
        ["cam", "own", "till", "web"]
    );
    assert_eq!(
        (&back["till"], &back["own"]),
        (&before["till"], &before["own"])
    );

    // On the device itself: well, verified, and without a difference.
    let status = walk.exec(&["flotta-agent", "status"]);
    assert!(
        status.contains("all is well") && status.contains("3 of 3 running"),
        "{status}"
    );
    walk.exec(&["flotta-agent", "verify"]);
    walk.exec(&["flotta-agent", "diff"]);
    site.event(&["walk", "Applied", "removed cam"]);
}
