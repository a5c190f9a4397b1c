//! A backup that is killed half-way, and a restore at a terminal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Fixture, device, eventually, stderr, stdout};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A data directory of a stopped server that has published a release.
async fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    server.stop().await;
    fixture
}

/// The temporary files of backups in the data directory.
fn scratch(fixture: &Fixture) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture.path().join("data")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_scratch = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(".backup-")
    };
    let mut found: Vec<_> = paths.filter(is_scratch).collect();
    found.sort();
    found
}

/// Starts a backup that does not end, because one of the files that it reads is a pipe.
async fn hang(fixture: &Fixture) -> (Child, File) {
    let pipe = fixture.path().join("data/keys/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_flotta"))
        .args(["backup", "--to", "b.tar", "--data", "data"])
        .current_dir(fixture.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let written = eventually("the backup reads", || async {
        // this opens when the backup reads it
        let mut write = File::options();
        write
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        write.open(&pipe).ok()
    })
    .await;
    // for everyone else the pipe is gone
    std::fs::remove_file(&pipe).unwrap();
    (child, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_leaves_is_removed_and_what_a_running_one_has_is_not() {
    let fixture = fixture().await;
    let foreign = fixture.path().join("data/.backup-mine");
    std::fs::create_dir(&foreign).unwrap();
    for by_server in [true, false] {
        let (mut child, _pipe) = hang(&fixture).await;
        let during = scratch(&fixture);
        assert_eq!(during.len(), 2, "{during:?}");
        let tidy = async |file: &str| {
            if by_server {
                fixture.start().await.stop().await;
            } else {
                let made = fixture
                    .flotta(&["backup", "--to", file, "--data", "data"])
                    .await;
                assert!(made.status.success(), "{}", stderr(&made));
            }
        };
        tidy("during.tar").await;
        assert_eq!(scratch(&fixture), during, "of a running backup");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(scratch(&fixture), during, "there is something to remove");
        tidy("after.tar").await;
        assert_eq!(
            scratch(&fixture),
            [foreign.as_path()],
            "by a server: {by_server}"
        );
    }
}

/// Runs `flotta restore` at a terminal, with this typed as the answer.
async fn restore(fixture: &Fixture, data: &str, typed: &str) -> (Option<i32>, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let stdin = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let mut terminal = File::from(terminal);
    terminal.write_all(typed.as_bytes()).unwrap();
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_flotta"))
        .args(["restore", "b.tar", "--data", data])
        .current_dir(fixture.path())
        .stdin(Stdio::from(stdin))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(common::DEADLINE, run).await;
    let output = output.unwrap().unwrap();
    (output.status.code(), stdout(&output) + &stderr(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_at_a_terminal_asks_who_was_revoked_since() {
    let fixture = fixture().await;
    let made = fixture
        .flotta(&["backup", "--to", "b.tar", "--data", "data"])
        .await;
    assert!(made.status.success(), "{}", stderr(&made));
    let asks = "Which devices were revoked, or replaced by another machine, since ";

    let (code, said) = restore(&fixture, "none", "\n").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(asks) && !said.contains("revoked\n"), "{said}");

    let (code, said) = restore(&fixture, "two", "shop-7, berlin/shop-9\n").await;
    assert_eq!(code, Some(0), "{said}");
    for name in ["default/shop-7", "berlin/shop-9"] {
        let barred = format!("{name} is not in the backup: no machine joins by this name");
        assert!(said.contains(&barred), "{said}");
    }

    // neither the end of input nor an invalid name is an answer
    for (data, typed, why) in [
        ("ended", "\u{4}", "FLT0633"),
        ("no-name", "Shop 7!\n", "`Shop` is not a"),
    ] {
        let (code, said) = restore(&fixture, data, typed).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(asks) && said.contains(why), "{said}");
        assert!(
            !fixture.path().join(data).exists(),
            "{data}: nothing is written"
        );
    }
}
