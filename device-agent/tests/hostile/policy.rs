//! The device's policy: what its owner allows a release to do.

use std::path::Path;

use flotta_bundle::code;
use flotta_bundle::wire::Report;

use crate::bench::{Bench, FIRST};
use crate::rules::elsewhere;
use crate::server::ServerState;

/// A path is applied as soon as the owner allows it. A policy that cannot be read is reported and allows nothing.
#[tokio::test(start_paused = true)]
async fn a_path_is_forbidden_until_the_devices_policy_allows_it() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let before = bench.state();
    elsewhere(&mut bench, "/etc/myapp/conf");
    let file = bench.config.root.join("etc/myapp/conf");
    let policy = bench.config.policy();
    std::fs::create_dir_all(policy.parent().expect("a folder")).expect("a folder");
    std::fs::write(&policy, "allow = [\n\"/etc/\"]\n").expect("written");
    bench
        .run(async {
            let reported = |state: &ServerState, code: &str, words: &str| {
                let mut problems = state.reports.iter().flat_map(|report| &report.problems);
                problems.any(|it| it.code == code && it.message.contains(words))
            };
            bench
                .until("both are reported", |state| {
                    reported(state, code::PATH_FORBIDDEN.id, "/etc/myapp/conf")
                        && reported(state, code::POLICY.id, "policy.toml:2:1: `/etc/`")
                })
                .await;
            assert!(bench.machine.touched() == before.touched, "nothing changed");
            assert!(!file.exists());
            std::fs::write(&policy, "allow = [\"/etc/myapp/\"]\n").expect("written");
            bench
                .until("the file is written", |state| {
                    let last = state.reports.last().expect("a report");
                    last.problems.is_empty() && file.exists()
                })
                .await;
        })
        .await;
    assert_eq!(std::fs::read(&file).expect("a file"), b"x");
}

type Damage = fn(&Path) -> std::io::Result<()>;

/// A device whose policy cannot be read starts, keeps what runs and applies every release that needs no more than the default
/// folders. It reports where the mistake is until it is fixed.
#[tokio::test(start_paused = true)]
async fn a_device_whose_policy_cannot_be_read_still_follows_its_fleet() {
    let broken: [(Damage, &str); 7] = [
        (|path| std::fs::write(path, "allow = [\n"), "policy.toml:"),
        (
            |path| std::fs::write(path, "\ndeny = [\"/etc/\"]\n"),
            "policy.toml:2:1: unknown field `deny`",
        ),
        (
            |path| std::fs::write(path, "allow = [\"etc/myapp/\"]\n"),
            "policy.toml:1:10: `etc/myapp/` cannot be allowed: not absolute",
        ),
        (
            |path| std::fs::write(path, "allow = [\"/boot/loader/\"]\n"),
            "policy.toml:1:10: `/boot/loader/` cannot be allowed: it is what the machine boots with",
        ),
        (
            |path| std::fs::write(path, "#".repeat(70_000)),
            "longer than 65536 bytes",
        ),
        (|path| std::fs::create_dir(path), "not a plain file"),
        (
            |path| {
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                Ok(rustix::fs::mkfifoat(rustix::fs::CWD, path, mode)?)
            },
            "not a plain file",
        ),
    ];
    for (damage, words) in broken {
        let mut bench = Bench::new().await;
        bench.become_honest();
        let policy = bench.config.policy();
        std::fs::create_dir_all(policy.parent().expect("a folder")).expect("a folder");
        damage(&policy).expect("broken");
        let follows = async |bench: &Bench| {
            let wanted = bench.truth.manifest;
            let has = |report: &Report| {
                let applied = report.applied.map(|applied| applied.manifest);
                let [problem] = &report.problems[..] else {
                    return false;
                };
                let said = problem.code == code::POLICY.id && problem.message.contains(words);
                said && applied == Some(wanted)
            };
            let last = |state: &ServerState| state.reports.last().is_some_and(has);
            bench.until(words, last).await;
        };
        bench.run(follows(&bench)).await;
        bench.publish(FIRST + 1);
        bench.become_honest();
        bench
            .run(async {
                follows(&bench).await;
                std::fs::remove_file(&policy)
                    .or_else(|_| std::fs::remove_dir(&policy))
                    .expect("removed");
                bench.well().await;
            })
            .await;
    }
}
