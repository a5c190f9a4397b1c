//! What the device's owner lets a release do.

use std::path::Path;

use flotta_bundle::code;
use flotta_bundle::wire::Report;

use crate::rules::elsewhere;
use crate::server::World;
use crate::stage::{FIRST, Stage};

/// What a device's owner allows is had as soon as it is allowed, and a policy that cannot be read is said and allows nothing.
#[tokio::test(start_paused = true)]
async fn a_path_is_forbidden_until_the_devices_policy_allows_it() {
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let before = stage.state();
    elsewhere(&mut stage, "/etc/myapp/conf");
    let file = stage.config.root.join("etc/myapp/conf");
    let policy = stage.config.policy();
    std::fs::create_dir_all(policy.parent().expect("a folder")).expect("a folder");
    std::fs::write(&policy, "allow = [\n\"/etc/\"]\n").expect("written");
    stage
        .play(async {
            let said = |world: &World, code: &str, words: &str| {
                let mut problems = world.reports.iter().flat_map(|report| &report.problems);
                problems.any(|it| it.code == code && it.message.contains(words))
            };
            stage
                .until("it is said", |world| {
                    said(world, code::PATH_FORBIDDEN.id, "/etc/myapp/conf")
                        && said(world, code::POLICY.id, "policy.toml:2:1: `/etc/`")
                })
                .await;
            assert!(stage.hand.touched() == before.touched, "nothing changed");
            assert!(!file.exists());
            std::fs::write(&policy, "allow = [\"/etc/myapp/\"]\n").expect("written");
            stage
                .until("it is there", |world| {
                    let last = world.reports.last().expect("one");
                    last.problems.is_empty() && file.exists()
                })
                .await;
        })
        .await;
    assert_eq!(std::fs::read(&file).expect("a file"), b"x");
}

type Spoil = fn(&Path) -> std::io::Result<()>;

/// A device with a policy that cannot be read starts, keeps what runs and follows every release that needs no more than any
/// device allows; it says where the mistake is until that is fixed.
#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_read_keeps_no_device_from_its_fleet() {
    let spoilt: [(Spoil, &str); 7] = [
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
    for (spoil, words) in spoilt {
        let mut stage = Stage::new().await;
        stage.heal();
        let policy = stage.config.policy();
        std::fs::create_dir_all(policy.parent().expect("a folder")).expect("a folder");
        spoil(&policy).expect("spoilt");
        let follows = async |stage: &Stage| {
            let wanted = stage.truth.manifest;
            let has = |report: &Report| {
                let applied = report.applied.map(|applied| applied.manifest);
                let [problem] = &report.problems[..] else {
                    return false;
                };
                let said = problem.code == code::POLICY.id && problem.message.contains(words);
                said && applied == Some(wanted)
            };
            let last = |world: &World| world.reports.last().is_some_and(has);
            stage.until(words, last).await;
        };
        stage.play(follows(&stage)).await;
        stage.plan(FIRST + 1);
        stage.heal();
        stage
            .play(async {
                follows(&stage).await;
                std::fs::remove_file(&policy)
                    .or_else(|_| std::fs::remove_dir(&policy))
                    .expect("removed");
                stage.well().await;
            })
            .await;
    }
}
