//! Traps on the device's own disk, laid by a workload that can write below a mounted folder. What a release writes stays below
//! the folders that a release may use, whatever is there.

use std::os::unix::fs::symlink;
use std::path::Path;

use flotta_bundle::code;
use serde_json::Value;

use crate::bench::{Bench, FIRST, says};
use crate::fleet::{Bundle, file, manifest};

/// The file that a trap is laid for.
const TARGET: &str = "etc/flotta/workloads/web/more/file";
const SECRET: &str = "root:*:20000::::::\n";

struct Trap {
    name: &'static str,
    /// Lays the trap, given the device's root and a folder outside.
    lay: fn(&Path, &Path),
    /// Whether the release is held back with a code; otherwise it is applied in spite of the trap.
    held: bool,
}

fn folders(root: &Path) -> std::path::PathBuf {
    let more = root.join("etc/flotta/workloads/web/more");
    std::fs::create_dir_all(&more).expect("a folder");
    more
}

const TRAPS: &[Trap] = &[
    Trap {
        name: "a link where the file goes",
        lay: |root, outside| {
            symlink(outside.join("shadow"), folders(root).join("file")).expect("a link");
        },
        held: true,
    },
    Trap {
        name: "a link where its folder goes",
        lay: |root, outside| {
            symlink(outside, root.join("etc/flotta/workloads/web/more")).expect("a link");
        },
        held: true,
    },
    Trap {
        name: "a link to a folder above",
        lay: |root, _| {
            symlink("../../../..", root.join("etc/flotta/workloads/web/more")).expect("a link");
        },
        held: true,
    },
    Trap {
        name: "a link that leads nowhere",
        lay: |root, _| symlink("/nowhere", folders(root).join("file")).expect("a link"),
        held: true,
    },
    Trap {
        name: "a folder where the file goes",
        lay: |root, _| std::fs::create_dir(folders(root).join("file")).expect("a folder"),
        held: true,
    },
    Trap {
        name: "a file where its folder goes",
        lay: |root, _| {
            std::fs::write(root.join("etc/flotta/workloads/web/more"), "x").expect("a file");
        },
        held: true,
    },
    Trap {
        name: "a hard link where the file goes",
        lay: |root, outside| {
            std::fs::hard_link(outside.join("shadow"), folders(root).join("file")).expect("a link");
        },
        held: true,
    },
    Trap {
        name: "a link where the file is written before it is whole",
        lay: |root, outside| {
            let name = folders(root).join(".file.flotta-new");
            symlink(outside.join("shadow"), name).expect("a link");
        },
        held: false,
    },
    Trap {
        name: "a hard link where the file is written before it is whole",
        lay: |root, outside| {
            let name = folders(root).join(".file.flotta-new");
            std::fs::hard_link(outside.join("shadow"), name).expect("a link");
        },
        held: false,
    },
];

fn with_file(bundle: &mut Bundle, version: u64) -> Value {
    let mut manifest = manifest(bundle, version);
    let more = file(bundle, &format!("/{TARGET}"), b"from the release", "data");
    let files = manifest["files"].as_array_mut().expect("a list");
    files.push(more);
    files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    manifest
}

#[tokio::test(start_paused = true)]
async fn what_a_release_writes_never_leaves_its_folders() {
    for trap in TRAPS {
        let mut bench = Bench::new().await;
        bench.become_honest();
        bench.run_first().await;
        let root = bench.config.root.clone();
        let outside = bench.folder.path().join("outside");
        std::fs::create_dir(&outside).expect("a folder");
        std::fs::write(outside.join("shadow"), SECRET).expect("written");
        (trap.lay)(&root, &outside);
        let before = bench.state();
        let mut bundle = Bundle::default();
        let text = with_file(&mut bundle, FIRST).to_string();
        bench.truth = bench.signed(FIRST + 1, bundle, &text);
        bench.become_honest();
        if trap.held {
            let code = if trap.name.starts_with("a hard link") {
                code::UNIT_TAKEN
            } else {
                code::FILE_FAILED
            };
            let said = |state: &_| says(state, "Failed", code.id);
            bench.run(bench.until(trap.name, said)).await;
            assert!(bench.state() == before, "{}: something changed", trap.name);
        } else {
            bench.run(bench.well()).await;
            let written = std::fs::read(root.join(TARGET)).expect("a file");
            assert_eq!(written, b"from the release");
        }
        let left: Vec<_> = std::fs::read_dir(&outside).expect("a folder").collect();
        assert_eq!(left.len(), 1, "{}", trap.name);
        let secret = std::fs::read_to_string(outside.join("shadow")).expect("a file");
        assert_eq!(secret, SECRET, "{}", trap.name);
        // without the trap the same release is applied
        if trap.held {
            let more = root.join("etc/flotta/workloads/web/more");
            if more.is_dir() && !more.is_symlink() {
                std::fs::remove_dir_all(&more).expect("removed");
            } else {
                std::fs::remove_file(&more).expect("removed");
            }
            bench.run(bench.well()).await;
        }
        println!("{}", trap.name);
    }
    println!("traps: {} contained of {} laid", TRAPS.len(), TRAPS.len());
}
