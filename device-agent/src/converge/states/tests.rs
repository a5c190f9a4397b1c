use super::*;

fn service(result: &str, exit_status: i32, killed: bool) -> UnitState {
    UnitState {
        result: result.to_owned(),
        exit_status,
        killed,
        ..UnitState::default()
    }
}

/// Lines as systemd and Podman 5.4 leave them in the journal.
#[test]
fn why_a_unit_failed_in_its_own_words() {
    let exited = service("exit-code", 1, false);
    let cases = [
        (
            &exited,
            "no database at db:5432\n\
             3f1c9e0bb6a9cbf1b2a3d1f0c9c8e7d6a5b4c3d2e1f00112233445566778899a\n\
             2026-07-30 12:00:01.123456789 +0000 UTC m=+0.034 container died 3f1c9e0bb6a9 (image=hello:1, name=web)\n\
             web.service: Main process exited, code=exited, status=1/FAILURE\n\
             web.service: Failed with result 'exit-code'.\n\
             web.service: Scheduled restart job, restart counter is at 3.\n\
             Starting web.service - Flotta workload web...",
            "FLT0502: web.service exited 1: no database at db:5432",
        ),
        (
            &exited,
            "Error: rootlessport listen tcp 0.0.0.0:8080: bind: address already in use\n\
             web.service: Main process exited, code=exited, status=126/n/a",
            "FLT0503: web.service: port 8080 is already in use on the device",
        ),
        (
            &exited,
            "Error: cannot listen on the TCP port: listen tcp4 :8080: bind: address already in use\n\
             web.service: Failed with result 'exit-code'.",
            "FLT0503: web.service: port 8080 is already in use on the device",
        ),
        (
            &exited,
            "Error: cannot listen on the TCP port: listen tcp6 [::1]:443: bind: address already in use",
            "FLT0503: web.service: port 443 is already in use on the device",
        ),
        (
            &exited,
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)\n\
             bind: address already in use",
            "FLT0503: web.service: bind: address already in use",
        ),
        (
            &exited,
            "web.service: Main process exited, code=exited, status=1/FAILURE\n\
             web.service: Start request repeated too quickly.\n\
             Failed to start web.service - Flotta workload web.\n\
             Dependency failed for shop-front.service.",
            "FLT0502: web.service exited 1",
        ),
        (
            &exited,
            "other.service: this is what the workload said",
            "FLT0502: web.service exited 1: other.service: this is what the workload said",
        ),
        (
            &service("signal", 9, true),
            "web.service: Main process exited, code=killed, status=9/KILL",
            "FLT0502: web.service was ended by signal 9",
        ),
        (
            &service("timeout", 0, false),
            "web.service: start operation timed out. Terminating.",
            "FLT0502: web.service did not start in time",
        ),
        (
            &exited,
            "\u{1b}[31mred\u{7}",
            "FLT0502: web.service exited 1: [31mred",
        ),
        (&exited, "", "FLT0502: web.service exited 1"),
    ];
    for (unit, journal, expected) in cases {
        let lines: Vec<_> = journal.lines().map(str::to_owned).collect();
        let problem = explain("web.service", unit, &lines).to_string();
        assert_eq!(problem, expected, "{journal}");
    }
}

#[test]
fn a_long_line_is_cut() {
    let lines = ["é".repeat(5_000)];
    let problem = explain("web.service", &service("exit-code", 1, false), &lines);
    assert!(problem.message.chars().count() < MAX_LINE + 50);
}

#[test]
fn the_state_of_a_unit() {
    use WorkloadState::{Failed, Running, Starting, Stopped};
    let short = Some(Duration::from_secs(2));
    let long = Some(Duration::from_secs(20));
    let cases = [
        ("active", "running", 0, short, Wanted::Active, Running),
        ("active", "exited", 0, long, Wanted::Active, Running),
        ("reloading", "reload", 0, long, Wanted::Active, Running),
        ("active", "running", 3, short, Wanted::Active, Failed),
        ("active", "running", 3, long, Wanted::Active, Running),
        ("activating", "start", 0, None, Wanted::Active, Starting),
        ("activating", "start", 2, None, Wanted::Active, Failed),
        (
            "activating",
            "auto-restart",
            0,
            None,
            Wanted::Active,
            Failed,
        ),
        (
            "activating",
            "auto-restart-queued",
            0,
            None,
            Wanted::Active,
            Failed,
        ),
        ("deactivating", "stop", 0, None, Wanted::Active, Stopped),
        ("inactive", "dead", 0, None, Wanted::Active, Stopped),
        ("inactive", "dead", 4, None, Wanted::Active, Failed),
        ("failed", "failed", 0, None, Wanted::Active, Failed),
        ("inactive", "dead", 0, None, Wanted::Loaded, Running),
        ("failed", "failed", 0, None, Wanted::Loaded, Failed),
        ("inactive", "dead", 0, None, Wanted::Once, Running),
        ("activating", "start", 0, None, Wanted::Once, Running),
        ("failed", "failed", 0, None, Wanted::Once, Failed),
    ];
    for (active, sub, restarts, active_for, wanted, expected) in cases {
        let unit = UnitState {
            active: active.to_owned(),
            sub: sub.to_owned(),
            restarts,
            active_for,
            ..UnitState::default()
        };
        assert_eq!(state(&unit, wanted), expected, "{active} {sub} {restarts}");
    }
}
