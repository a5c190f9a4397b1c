//! Lost and damaged files: every file of the agent's state in turn, in every way. Each loss is reported with a code, workloads
//! keep running, and the device recovers: by its own copies, from the server, or by joining again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use flotta_agent::enrol::Join;
use flotta_agent::identity::{self, Identity};
use flotta_agent::run;
use flotta_bundle::code;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::root;
use serde_json::json;

use crate::bench::{Bench, FIRST};
use crate::fleet::{Bundle, OURS, device, manifest};
use crate::server::ServerState;

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

const DAMAGES: [(&str, Damage); 6] = [
    ("removed", |_| None),
    ("emptied", |_| Some(Vec::new())),
    ("cut", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        Some(bytes)
    }),
    ("garbled", |mut bytes| {
        let middle = bytes.len() / 2;
        let end = bytes.len().min(middle + 8);
        bytes[middle..end].iter_mut().for_each(|byte| *byte ^= 0xff);
        Some(bytes)
    }),
    ("zeroed", |bytes| Some(vec![0; bytes.len()])),
    (ONE_DIGIT, |mut bytes| {
        let places = [&b"\"release\":"[..], b"\"last\":", b"\"sequence\":"];
        let after = |key: &&[u8]| {
            let at = bytes.windows(key.len()).position(|part| part == *key);
            at.map(|at| at + key.len())
        };
        if let Some(at) = places.iter().find_map(after) {
            bytes[at] = if bytes[at] == b'9' { b'1' } else { b'9' };
        }
        Some(bytes)
    }),
];
/// The one damage that not every file can detect.
const ONE_DIGIT: &str = "one digit changed";

/// Whether a file is only a cache, or can be fetched again by its name, so that its loss is not reported.
fn is_cache(file: &str) -> bool {
    file.starts_with("blobs/") || matches!(file, "clock" | "lock" | "lock.new" | "identity/server")
}

fn repaired(state: &ServerState, file: &str) -> bool {
    let said = format!("{}: {file} is ", code::STATE_LOST.id);
    let mut events = state.reports.iter().flat_map(|report| &report.events);
    events.any(|event| event.reason == "Repaired" && event.message.starts_with(&said))
}

/// A device with the honest release.
async fn at_work() -> Bench {
    let bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    bench
}

/// Checks that the device is well with what it has, and follows the next release.
async fn comes_back(bench: &mut Bench, what: &str, file: Option<&str>) {
    let runs = bench.machine.runs();
    bench.change(|state| state.reports.clear());
    bench
        .run(async {
            bench.well().await;
            if let Some(file) = file {
                let said = |state: &ServerState| repaired(state, file);
                bench.until(what, said).await;
            }
        })
        .await;
    assert_eq!(bench.machine.runs(), runs, "{what}: what ran was touched");
    bench.publish(FIRST + 1);
    bench.become_honest();
    bench.run(bench.well()).await;
    assert_ne!(
        bench.machine.runs(),
        runs,
        "{what}: the next release restarts"
    );
}

#[tokio::test(start_paused = true)]
async fn every_file_of_the_state_may_be_lost() {
    let names: Vec<String> = {
        let bench = at_work().await;
        let top = &bench.config.state;
        let name = |path: &PathBuf| {
            path.strip_prefix(top)
                .map(|path| path.display().to_string())
        };
        let all = files(top);
        all.iter().filter_map(|path| name(path).ok()).collect()
    };
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    let mut blobs = 0;
    for name in &names {
        // blobs are named by their content
        blobs += usize::from(name.starts_with("blobs/"));
        for (how, damage) in DAMAGES {
            let what = format!("{name} {how}");
            let mut bench = at_work().await;
            let path = bench.config.state.join(name);
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
            match damage(bytes.clone()) {
                // this damage does not apply to the file
                Some(same) if same == bytes => continue,
                None => fs::remove_file(&path).expect("removed"),
                Some(bytes) => fs::write(&path, bytes).expect("written"),
            }
            println!("{what}");
            *tally.entry("tried").or_default() += 1;
            if name == "identity/key.pem" {
                asks_to_join(&bench, &what).await;
                *tally.entry("asked to join again").or_default() += 1;
                continue;
            }
            let shows = how != ONE_DIGIT || name.ends_with("trust.json");
            let file = Some(name.as_str()).filter(|name| shows && !is_cache(name));
            comes_back(&mut bench, &what, file).await;
            *tally.entry("healed").or_default() += 1;
        }
    }
    assert!(names.len() - blobs >= 12, "{names:?}");
    println!("files of the state: {tally:?}");
}

/// A file that cannot be restored at the start, as on a full disk, is restored later without a restart of the agent. Here a
/// folder in the file's place keeps it from being written.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_brought_back_at_the_start_is_brought_back_later() {
    for name in ["sealing.key", "ca.pem"] {
        let mut bench = at_work().await;
        let path = bench.config.identity().join(name);
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        bench.publish(FIRST + 1);
        bench.become_honest();
        let down = |link: &flotta_agent::pull::LinkState| {
            link.problem.is_some() && link.connected_since.is_none()
        };
        bench
            .run(async {
                bench.link(name, down).await;
                fs::remove_dir(&path).expect("removed");
                bench.well().await;
            })
            .await;
        assert!(path.is_file(), "{name}");
    }
}

/// A private key cannot be restored: the device says so, and keeps working with what it has.
async fn asks_to_join(bench: &Bench, what: &str) {
    let runs = bench.machine.runs();
    let lost = |link: &flotta_agent::pull::LinkState| {
        let problem = link.problem.as_ref();
        problem.is_some_and(|problem| {
            problem.code == code::IDENTITY.id && problem.help.contains("enrol --reset")
        })
    };
    bench.run(bench.link(what, lost)).await;
    assert_eq!(bench.machine.runs(), runs, "{what}: what ran was touched");
}

#[tokio::test(start_paused = true)]
async fn every_folder_of_the_state_may_be_lost() {
    for name in ["ledger", "blobs"] {
        let mut bench = at_work().await;
        fs::remove_dir_all(bench.config.state.join(name)).expect("removed");
        let file = (name == "ledger").then_some("ledger/machine.json");
        comes_back(&mut bench, name, file).await;
    }
    let bench = at_work().await;
    fs::remove_dir_all(bench.config.identity()).expect("removed");
    asks_to_join(&bench, "identity").await;
}

#[tokio::test(start_paused = true)]
async fn where_the_server_has_moved_to_outlives_the_content_that_said_so() {
    let mut bench = Bench::new().await;
    let mut bundle = Bundle::default();
    let mut manifest = manifest(&mut bundle, FIRST);
    manifest["schema"] = json!(2);
    manifest["settings"]["servers"] = json!([bench.server.url]);
    bench.truth = bench.signed(FIRST, bundle, &manifest.to_string());
    bench.become_honest();
    bench.run_first().await;
    // nobody answers at the address where it joined, and all blobs are gone
    for folder in ["identity", "ledger"] {
        let path = bench.config.state.join(folder).join("joined.json");
        let joined = fs::read_to_string(&path).expect("it is there");
        let moved = joined.replace(&bench.server.url, "https://localhost:9");
        assert_ne!(moved, joined);
        fs::write(&path, moved).expect("written");
    }
    fs::remove_dir_all(bench.config.state.join("blobs")).expect("removed");
    comes_back(&mut bench, "moved", None).await;
}

#[tokio::test(start_paused = true)]
async fn without_its_trust_a_device_takes_nothing_and_says_so_until_it_joins_again() {
    let mut bench = at_work().await;
    for folder in ["identity", "ledger"] {
        let path = bench.config.state.join(folder).join("trust.json");
        fs::write(path, b"{").expect("written");
    }
    let before = bench.state();
    bench.publish(FIRST + 1);
    bench.become_honest();
    bench
        .run(async {
            let said = |state: &ServerState| {
                let last = state.reports.last();
                let first = last.and_then(|report| report.problems.first());
                first.is_some_and(|problem| problem.code == code::TRUST_LOST.id)
            };
            bench.until("it says so", said).await;
        })
        .await;
    assert!(bench.state() == before, "something changed");
    rejoin(&bench);
    bench.run(bench.well()).await;
}

/// Joins with a join file and the existing keys.
fn rejoin(bench: &Bench) {
    let root = Envelope::sign(
        root::PAYLOAD_TYPE,
        &bench.fleet.trust.encode(),
        &bench.fleet.root_keys.each_ref(),
    );
    let file = json!({
        "schema": 1, "fleet": bench.fleet.trust.fleet, "server": bench.server.url,
        "ca": bench.server.authority.pem, "trust_root": root, "device": device(OURS),
    });
    let bytes = serde_json::to_vec(&file).expect("JSON");
    let join = Join::parse(&bytes, "a.join".as_ref(), None).expect("a join file");
    let (identity, _) = Identity::open_or_make(&bench.config.identity()).expect("keys");
    let name = device(OURS).identity(&bench.fleet.trust.fleet);
    let csr = identity.csr(&device(OURS)).expect("a request");
    let pem = bench.server.authority.device(&csr, &name);
    let mut ledger = flotta_agent::ledger::Ledger::open(&bench.config.state).expect("a ledger");
    let kept = join.keep(&identity, &mut ledger, device(OURS), &pem);
    kept.expect("joined");
}

/// Removes the whole state, as a reinstallation of the agent does.
fn forget(bench: &Bench) {
    fs::remove_dir_all(&bench.config.state).expect("removed");
    let prepared = run::prepare(&bench.config, &bench.clock);
    let (_, joined) = prepared.expect("a state that can be opened");
    assert_eq!(joined, None);
    assert_eq!(
        identity::joined(&bench.config.identity()).expect("readable"),
        None
    );
    rejoin(bench);
}

#[tokio::test(start_paused = true)]
async fn after_a_new_join_the_fleets_own_files_are_its_own_and_a_persons_are_not() {
    // the release is unchanged: nothing is written, and nothing restarts
    let mut bench = at_work().await;
    forget(&bench);
    comes_back(&mut bench, "a new join", None).await;
    // the release has changed meanwhile: the changes are applied
    let mut bench = at_work().await;
    forget(&bench);
    bench.publish(FIRST + 1);
    bench.become_honest();
    bench.run(bench.well()).await;
    // a workload has left the fleet meanwhile: it is removed from the machine
    let mut bench = at_work().await;
    let left = bench
        .config
        .root
        .join("etc/flotta/workloads/web/site/index.html");
    assert!(left.exists());
    forget(&bench);
    let empty = json!({"schema": 1, "files": [], "units": [], "images": [], "settings": {"heartbeat_seconds": 60}});
    bench.truth = bench.signed(FIRST + 1, Bundle::default(), &empty.to_string());
    bench.become_honest();
    bench.run(bench.well()).await;
    assert!(!left.exists(), "{:?}", bench.machine.calls());
    assert_eq!(bench.machine.runs(), BTreeMap::new());
    // a file that somebody has changed or replaced is theirs
    for in_place in [true, false] {
        let mut bench = at_work().await;
        let file = bench
            .config
            .root
            .join("etc/flotta/workloads/web/site/index.html");
        if !in_place {
            fs::remove_file(&file).expect("removed");
        }
        fs::write(&file, "by a person").expect("written");
        forget(&bench);
        bench.publish(FIRST + 1);
        bench.become_honest();
        let held = |state: &ServerState| {
            let reports = state.reports.last();
            let workloads = reports.into_iter().flat_map(|report| &report.workloads);
            let mut problems = workloads.filter_map(|workload| workload.problem.as_ref());
            problems.any(|problem| problem.code == code::UNIT_TAKEN.id)
        };
        bench.run(bench.until("it is held", held)).await;
        let content = fs::read_to_string(&file).expect("it is there");
        assert_eq!(content, "by a person");
    }
}
