//! Bad commits and workloads that cannot run: what is reported where, and that others are not affected.

use crate::device::wait;
use crate::site::{EXITS, HELLO, Site, device, page, workload};

const API: &str = "apiVersion: management.project-flotta.io/v1alpha1";

#[test]
fn a_bad_commit_says_where_and_the_last_good_release_stays() {
    let site = Site::start(&[
        ("good.yaml", &device("good")),
        ("hurt.yaml", &device("hurt")),
        ("web.yaml", &page("web", 8080, "first")),
    ]);
    let (good, hurt) = (site.join("good"), site.join("hurt"));
    site.in_sync("good");
    site.in_sync("hurt");

    // h. Invalid YAML, an unknown field: the commit is refused and everything stays.
    site.commit(
        "broken",
        &[("broken.yaml", "kind: EdgeDevice\nmetadata: [\n")],
    );
    site.hears("refused: 1 error (FLT0101 broken.yaml:");
    let misspelt = page("web", 8080, "second").replace("hostPort", "hostport");
    site.commit("misspelt", &[("broken.yaml", ""), ("web.yaml", &misspelt)]);
    let refusal = site.hears("FLT0103 web.yaml:14:");
    assert!(refusal.contains("release 1 stays in force"), "{refusal}");
    good.shows(8080, "first");
    site.event(&["Refused", "FLT0103", "web.yaml:14:"]);

    // A missing ConfigMap affects only the devices that use it.
    let lost = workload("lost", HELLO, 8090, "[\"8090\", /index.txt]")
        .replace("deviceSelector: {}", "device: hurt")
        + "          envFrom: [{configMapRef: {name: gone}}]\n";
    let nowhere = workload("nowhere", HELLO, 8091, "[]").replace(
        "deviceSelector: {}",
        "deviceSelector: {matchLabels: {site: moon}}",
    );
    site.commit(
        "second",
        &[
            ("web.yaml", &page("web", 8080, "second")),
            ("lost.yaml", &lost),
            ("nowhere.yaml", &nowhere),
        ],
    );
    good.shows(8080, "second");
    site.in_sync("good");
    hurt.shows(8080, "first");
    site.event(&["FLT0104", "lost.yaml:15:", "gone"]);
    // A selector that matches nothing is only a warning.
    site.event(&["FLT0202", "nowhere.yaml:7:"]);

    // Once it is fixed, the held device follows.
    site.commit("fixed", &[("lost.yaml", "")]);
    hurt.shows(8080, "second");
}

#[test]
fn a_workload_that_cannot_run_is_named_with_its_reason_and_the_others_run() {
    let gone = "registry.example/gone@sha256:00000000000000000000000000000000000000000000000000000000000000aa";
    let site = Site::start(&[("device.yaml", &device("rough"))]);
    let rough = site.join("rough");
    site.in_sync("rough");
    // nothing answers there: Podman's error has its source port, which differs each time
    rough.write("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    let lost = gone.replace("registry.example/gone", "lost.example/lost");
    // The host itself uses a port.
    rough.exec(&[
        "podman",
        "run",
        "--detach",
        "--name",
        "squatter",
        "--publish",
        "8083:8083",
        HELLO,
        "8083",
        "/index.txt",
    ]);
    site.commit(
        "one good, four bad",
        &[
            ("good.yaml", &page("good", 8080, "good page")),
            ("pull.yaml", &workload("pull", gone, 8081, "[]")),
            ("lost.yaml", &workload("lost", &lost, 8085, "[]")),
            ("exits.yaml", &workload("exits", EXITS, 8082, "[\"3\"]")),
            ("port.yaml", &page("port", 8083, "port page")),
        ],
    );
    // k. Which workload and why; other workloads run.
    rough.shows(8080, "good page");
    let why = site.problem("rough", "pull", "FLT0501");
    assert!(why.contains("registry.example/gone"), "{why}");
    let why = site.problem("rough", "exits", "FLT0502");
    assert!(why.contains("exited 3"), "{why}");
    let why = site.problem("rough", "port", "FLT0503");
    assert!(why.contains("8083"), "{why}");
    // the reason is not shown while a workload is being retried
    wait("all three reasons are shown", || {
        let screen = site.flotta(&["describe", "device", "rough"]);
        let codes = ["FLT0501", "FLT0502", "FLT0503"];
        let all = codes.iter().all(|code| screen.contains(code));
        let says = all && site.status("rough")["state"] == "Failed";
        says.then_some(()).ok_or(screen)
    });
    let status = rough.run(&["flotta-agent", "status"]);
    assert_eq!(status.status.code(), Some(1), "the device itself says no");
    // A failure is one event, however often it is retried and however its message varies.
    let first = site.problem("rough", "lost", "FLT0501");
    assert!(first.contains("->127.0.0.1:53"), "{first}");
    wait("it is tried again", || {
        let again = site.problem("rough", "lost", "FLT0501");
        (again != first).then_some(()).ok_or(again)
    });
    site.event(&["rough", "lost: FLT0501"]);
    let events = site.flotta(&["get", "events", "-A", "-o", "wide"]);
    for failure in [
        "lost: FLT0501",
        "pull: FLT0501",
        "exits: FLT0502",
        "port: FLT0503",
    ] {
        let told = events.matches(failure).count();
        assert_eq!(told, 1, "{failure}: {events}");
    }
    let good = rough.containers()["good"].clone();

    // The port is free again: the workload recovers by itself, and nothing else is restarted.
    rough.exec(&["podman", "rm", "--force", "squatter"]);
    rough.shows(8083, "port page");
    // The bad workloads are removed: all is well.
    site.commit(
        "only good ones",
        &[("pull.yaml", ""), ("lost.yaml", ""), ("exits.yaml", "")],
    );
    site.in_sync("rough");
    assert_eq!(rough.containers()["good"], good);

    // A unit that belongs to the host is not taken over.
    rough.write(
        "/etc/systemd/system/own.service",
        "[Service]\nExecStart=/usr/bin/sleep infinity\n",
    );
    rough.exec(&["systemctl", "daemon-reload"]);
    rough.exec(&["systemctl", "start", "own.service"]);
    site.commit(
        "a name that is taken",
        &[(
            "own.yaml",
            &format!(
                "{}\n---\n{API}\nkind: EdgeDevice\nmetadata: {{name: other}}\n",
                workload("own", HELLO, 8084, "[\"8084\", /index.txt]")
            ),
        )],
    );
    site.problem("rough", "own", "FLT0504");
    assert_eq!(
        rough.exec(&["systemctl", "is-active", "own.service"]),
        "active"
    );
    assert!(!rough.path("/etc/containers/systemd/own.container").exists());
}
