//! Measurements on a virtual device, printed as lines of a table: `ci/bench agent`. They assert no figure.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use flotta_bench::process;

use crate::device::{Device, text, wait};
use crate::site::{Site, page};

/// How often a page is polled.
const LOOK: Duration = Duration::from_millis(5);
const ROUNDS: u16 = 10;

/// A device with the default heartbeat.
fn ordinary(name: &str) -> String {
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata:\n  name: {name}\n"
    )
}

/// The process id of the only device's agent, as seen from this machine.
fn agent() -> u32 {
    wait("the agent runs", || {
        let found = Command::new("pgrep").args(["-x", "flotta-agent"]).output();
        let found = found.map_err(|error| error.to_string())?;
        let pids = text(&found.stdout);
        pids.parse().map_err(|_| format!("processes: {pids}"))
    })
}

fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Bytes over the device's network so far, both ways.
fn traffic(pid: u32) -> u64 {
    let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("net/dev");
    let lines = devices.lines().filter_map(|line| line.split_once(':'));
    let ours = lines.filter(|(name, _)| name.trim() != "lo");
    let bytes = ours.map(|(_, counts)| {
        let counts: Vec<u64> = counts
            .split_whitespace()
            .filter_map(|count| count.parse().ok())
            .collect();
        counts[0] + counts[8]
    });
    bytes.sum()
}

#[test]
#[ignore = "a measurement of minutes: ci/bench agent"]
fn an_idle_agent() {
    let minutes: u32 =
        std::env::var("FLOTTA_MINUTES").map_or(10, |minutes| minutes.parse().expect("minutes"));
    let site = Site::start(&[
        ("device.yaml", &ordinary("idle")),
        ("web.yaml", &page("web", 8080, "a page")),
    ]);
    let device = site.join("idle");
    device.shows(8080, "a page");
    site.in_sync("idle");
    let pid = agent();
    // past the first reports
    pause(Duration::from_secs(30));
    let (cpu, bytes) = (process::cpu(pid).expect("cpu"), traffic(pid));
    let whole = Duration::from_secs(60) * minutes;
    pause(whole);
    let used = process::cpu(pid).expect("cpu").saturating_sub(cpu);
    let bytes = traffic(pid) - bytes;
    let memory = process::pss(pid).expect("pss");
    let children = Command::new("pgrep")
        .args(["-P", &pid.to_string()])
        .output()
        .expect("pgrep");
    let children: u64 = text(&children.stdout)
        .lines()
        .filter_map(|pid| process::pss(pid.parse().ok()?).ok())
        .sum();
    let file = tempfile::NamedTempFile::new().expect("a file");
    // counts system calls; the agent is slower meanwhile, but does not make more of them
    let counted = Duration::from_secs(300);
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-S", "calls", "-p", &pid.to_string(), "-o"])
        .arg(file.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace starts");
    pause(counted);
    let interrupt = ["-INT", &strace.id().to_string()];
    let sent = Command::new("kill").args(interrupt).status();
    assert!(sent.expect("kill").success());
    strace.wait().expect("strace ends");
    let summary = std::fs::read_to_string(file.path()).expect("a summary");
    let total = summary
        .lines()
        .find(|line| line.trim_end().ends_with("total"));
    let calls: u64 = total
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .expect(&summary);
    println!(
        "| agent, idle: PSS with children | {} KiB |",
        (memory + children) >> 10
    );
    println!(
        "| agent, idle: processor time in {minutes} min | {} ms ({:.4} %) |",
        used.as_millis(),
        used.as_secs_f64() / whole.as_secs_f64() * 100.0
    );
    println!(
        "| agent, idle: system calls a minute | {} |",
        calls / (counted.as_secs() / 60)
    );
    println!(
        "| agent, idle: bytes an hour on the device's network, both ways, headers and ARP too | {} |",
        bytes * 60 / u64::from(minutes)
    );
    println!("{summary}");
}

/// When the device's journal has the last line with these words.
fn logged(device: &Device, words: &str) -> SystemTime {
    let lines = device.exec(&[
        "journalctl",
        "-u",
        "flotta-agent",
        "--no-pager",
        "-o",
        "json",
        "--output-fields=MESSAGE",
    ]);
    let found = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .rfind(|line| {
            line["MESSAGE"]
                .as_str()
                .is_some_and(|said| said.contains(words))
        })
        .expect("it is logged");
    let micros = found["__REALTIME_TIMESTAMP"].as_str().expect("a time");
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.parse().expect("a number"))
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let all: Vec<_> = times.iter().map(Duration::as_millis).collect();
    format!("median {} ms of {all:?}", all[all.len() / 2])
}

#[test]
#[ignore = "a measurement: ci/bench agent"]
fn a_release_on_a_device() {
    let site = Site::start(&[
        ("device.yaml", &ordinary("quick")),
        ("first.yaml", &page("first", 8080, "page 0")),
    ]);
    let device = site.join("quick");
    device.shows(8080, "page 0");
    site.in_sync("quick");
    let (mut new, mut gaps) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // wait, so that the agent does not take the server for one that does not hold polls
        pause(Duration::from_secs(3));
        let port = 8080 + round;
        let name = format!("new-{round}");
        site.commit(
            "new",
            &[(&format!("{name}.yaml"), &page(&name, port, &name))],
        );
        while device.look(port).is_err() {
            pause(LOOK);
        }
        let up = SystemTime::now();
        let seen = logged(&device, "accepted");
        new.push(up.duration_since(seen).unwrap_or_default());
        site.in_sync("quick");
    }
    for round in 1..=ROUNDS {
        pause(Duration::from_secs(3));
        let wanted = format!("page {round}");
        site.commit("change", &[("first.yaml", &page("first", 8080, &wanted))]);
        let (mut last, mut longest, mut after) = (Instant::now(), Duration::ZERO, None);
        // the new page may be there before the container that serves it restarts
        while after.is_none_or(|after: Instant| after.elapsed() < Duration::from_secs(2)) {
            if let Ok(body) = device.look(8080) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                if body.contains(&wanted) {
                    after.get_or_insert(last);
                }
            }
            pause(LOOK);
        }
        gaps.push(longest);
        site.in_sync("quick");
    }
    println!(
        "| new workload, image present: release accepted -> HTTP 200 | {} |",
        median(new)
    );
    println!(
        "| changed workload: longest time without an answer | {} |",
        median(gaps)
    );
}

#[test]
#[ignore = "a measurement: ci/bench agent"]
fn programs() {
    let built = Path::new(env!("CARGO_BIN_EXE_flotta"));
    for (name, what) in [
        ("flotta", "binary of the server and command line, stripped"),
        ("flotta-agent", "binary of the agent, stripped"),
    ] {
        let bytes = std::fs::metadata(built.with_file_name(name)).expect("it is built");
        println!("| {what} | {} KiB |", bytes.len() >> 10);
    }
}
