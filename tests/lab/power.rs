//! Kills and power cuts at any moment: the same end state, and nothing unchanged is restarted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use serde_json::Value;

use crate::device::{Device, text, wait};
use crate::site::{HELLO, Site, device, page};

const PORTS: [(&str, u16); 3] = [("one", 8081), ("two", 8082), ("three", 8083)];
/// The agent's state directory.
const STATE: &str = "/var/lib/flotta-agent";

/// A fleet with one workload that never changes, three that do, and one that comes and goes.
struct Bench {
    site: Site,
    device: Device,
    /// The image of every other round for one of the three: `hello` and a layer more.
    twin: String,
    still: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        let site = Site::start(&[
            ("device.yaml", &device(name)),
            ("still.yaml", &page("still", 8080, "never changes")),
        ]);
        let device = site.join(name);
        site.in_sync(name);
        let twin = device.publish("twin", 4);
        let still = device.containers()["still"].clone();
        let bench = Self {
            site,
            device,
            twin,
            still,
        };
        bench.change(0);
        bench.settled(0);
        bench
    }

    /// Changes the three workloads' pages, and the image of one. In odd rounds there is a guest workload.
    fn change(&self, round: u32) {
        let content = shown(round);
        let guest = match round {
            0 => None,
            _ if has_guest(round) => Some(page("guest", 8084, &content)),
            _ => Some(String::new()),
        };
        let guest = guest.map(|page| ("guest.yaml".to_owned(), page));
        let pages: Vec<_> = PORTS
            .iter()
            .map(|(name, port)| (format!("{name}.yaml"), page(name, *port, &content)))
            .map(|(name, page)| match (name.as_str(), round % 2) {
                ("two.yaml", 1) => (name, page.replace(HELLO, &self.twin)),
                _ => (name, page),
            })
            .chain(guest)
            .collect();
        let files: Vec<_> = pages
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_str()))
            .collect();
        self.site.commit(&content, &files);
    }

    /// Waits until the agent is running. systemd restarts it after a second.
    fn agent_runs(&self) {
        wait("the agent runs", || {
            let active = self.device.run(&["systemctl", "is-active", "flotta-agent"]);
            let up = active.status.success();
            up.then_some(()).ok_or_else(|| self.device.log())
        });
    }

    /// Removes the layer that this round does not need, so that the next one pulls it again.
    fn forget_twin(&self, round: u32) {
        if round > 0 && round.is_multiple_of(2) {
            self.device.exec(&["podman", "rmi", &self.twin]);
        }
    }

    /// Checks that everything is as the commit of this round says, with nothing else there.
    fn settled(&self, round: u32) {
        let orphans = self.settled_but_for_layers(round);
        assert!(orphans.is_empty(), "layers of nothing: {orphans:?}");
    }

    /// The same, except for the returned layers, which belong to no image or container.
    fn settled_but_for_layers(&self, round: u32) -> Vec<String> {
        let device = &self.device;
        for (_, port) in PORTS {
            device.shows(port, &shown(round));
        }
        self.site.in_sync(&device.name);
        let wanted: &[&str] = if has_guest(round) {
            device.shows(8084, &shown(round));
            &["guest", "one", "still", "three", "two"]
        } else {
            let load = ["systemctl", "show", "--property=LoadState", "guest.service"];
            assert_eq!(device.exec(&load), "LoadState=not-found");
            &["one", "still", "three", "two"]
        };
        let containers = device.containers();
        let names: Vec<_> = containers.keys().collect();
        assert_eq!(names, wanted);
        assert_eq!(containers["still"], self.still, "round {round}");
        let all = ["podman", "ps", "--all", "--external", "--format"];
        let all = device.exec(&[&all[..], &["{{.Names}}"]].concat());
        assert_eq!(all.lines().count(), wanted.len(), "{all}");
        let orphans = self.orphans(wanted.len());
        let units = wanted.iter().map(|name| format!("{name}.container"));
        let mut found = names_in(&device.path("/etc/containers/systemd"));
        // a folder of Podman's package
        found.retain(|name| name != "users");
        let units: Vec<_> = units.collect();
        assert_eq!(found, units, "no orphan and no temporary file");
        let folder = device.path("/etc/flotta/workloads");
        assert_eq!(names_in(&folder), wanted);
        for name in wanted {
            let pages = names_in(&folder.join(name).join("site"));
            assert_eq!(pages.len(), 1, "{pages:?}");
        }
        no_half_file(&device.path(STATE));
        assert_eq!(device.exec(&["flotta-agent", "diff"]), "");
        orphans
    }

    /// The orphaned layers, which belong to no image and to none of so many containers. Checks that Podman finds nothing else
    /// wrong with its store, and knows every layer on its disk.
    fn orphans(&self, containers: usize) -> Vec<String> {
        let check = ["podman", "system", "check", "--quick", "--max", "0s"];
        let damage = text(&self.device.run(&check).stdout);
        let lines = damage.lines().map(str::trim);
        let mut orphans = Vec::new();
        for line in lines.filter(|line| !line.is_empty() && !line.ends_with("occurred:")) {
            if let Some(layer) = line.strip_prefix("Damaged layer ") {
                orphans.push(layer.trim_end_matches(':').to_owned());
            } else {
                assert!(
                    line.ends_with("layer not referenced by any images or containers"),
                    "{damage}"
                );
            }
        }
        let images = self.device.exec(&["podman", "images", "--all", "--quiet"]);
        let images: BTreeSet<_> = images.lines().collect();
        let layers = images.iter().map(|image| {
            let layers = "{{len .RootFS.Layers}}";
            let said = self
                .device
                .exec(&["podman", "image", "inspect", "--format", layers, image]);
            said.trim().parse::<usize>().expect("a number")
        });
        // `hello` has one layer, and the twin one more on top of it, so the longer list has them all
        let layers = layers.max().expect("an image");
        assert_eq!(layers, images.len(), "{images:?}");
        let store = self.device.path("/var/lib/containers/storage/overlay");
        let there = std::fs::read_dir(store).expect("a folder");
        let mut there: Vec<_> = there
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        // a layer's folder is named by its identifier; next to them are Podman's own
        there.retain(|name| name.len() == 64);
        let wanted = layers + containers + orphans.len();
        assert_eq!(there.len(), wanted, "unknown to Podman: {there:?}");
        orphans
    }

    /// Checks that, without the server, the device ends up completely in this round or completely in the one before.
    fn whole_alone(&self, round: u32) {
        let device = &self.device;
        wait("the device is of one round", || {
            let pages = PORTS.map(|(_, port)| device.get(port, "/").trim_end().to_owned());
            let round = [round, round - 1]
                .into_iter()
                .find(|round| pages.iter().all(|page| *page == shown(*round)));
            let round = round.ok_or(format!("{pages:?}\n{}", device.log()))?;
            let guest = device.run(&["systemctl", "is-active", "--quiet", "guest.service"]);
            if guest.status.success() == has_guest(round) && !self.is_applying() {
                Ok(())
            } else {
                Err(device.log())
            }
        });
    }

    /// Whether the ledger says that an apply is under way.
    fn is_applying(&self) -> bool {
        let path = self.device.path(&format!("{STATE}/ledger/machine.json"));
        let bytes = std::fs::read(path).expect("a ledger");
        let machine: Value = serde_json::from_slice(&bytes).expect("JSON");
        let units = machine["owned"]["units"].as_object().expect("units");
        units.values().any(|unit| !unit["due"].is_null())
    }
}

fn has_guest(round: u32) -> bool {
    !round.is_multiple_of(2)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Checks that the agent left no temporary or partial file.
fn no_half_file(folder: &Path) {
    for name in names_in(folder) {
        let half = name.starts_with(".new-") || name.contains(".part");
        assert!(!half, "{name} in {}", folder.display());
        let path = folder.join(name);
        if path.is_dir() {
            no_half_file(&path);
        }
    }
}

/// The content of the pages in a round.
fn shown(round: u32) -> String {
    format!("round {round}")
}

/// Waits for a random time: there is no condition to wait for, because the moment itself is tested.
fn moment(random: &mut StdRng, longest: Duration) {
    let end = Instant::now() + random.random_range(Duration::ZERO..longest);
    wait("the moment has come", || {
        if Instant::now() >= end {
            Ok(())
        } else {
            Err(String::new())
        }
    });
}

#[test]
fn the_agent_is_killed_at_random_moments() {
    let rounds = rounds(50);
    let mut random = StdRng::seed_from_u64(6);
    let bench = Bench::new("killed");
    let device = &bench.device;
    let (mut survived, mut in_apply) = (0, 0);
    for round in 1..=rounds {
        bench.change(round);
        // A commit is seen within a second, and applied within another: the kill falls anywhere in it.
        moment(&mut random, Duration::from_millis(2_500));
        let restarts =
            || device.exec(&["systemctl", "show", "--property=NRestarts", "flotta-agent"]);
        let before = restarts();
        device.exec(&["systemctl", "kill", "--signal=KILL", "flotta-agent"]);
        in_apply += u32::from(bench.is_applying());
        // temporary files are removed when it starts
        wait("the agent was started again", || {
            (restarts() != before).then_some(()).ok_or(device.log())
        });
        bench.agent_runs();
        bench.settled(round);
        bench.forget_twin(round);
        survived += 1;
    }
    assert!(in_apply > 0, "no kill fell into an apply");
    println!(
        "kills survived: {survived} of {rounds}, {in_apply} of them in the middle of an apply"
    );
}

#[test]
fn the_power_is_cut_at_random_moments() {
    let rounds = rounds(20);
    let mut random = StdRng::seed_from_u64(7);
    let mut bench = Bench::new("cut");
    let (mut survived, mut left) = (0, 0);
    for round in 1..=rounds {
        bench.change(round);
        moment(&mut random, Duration::from_millis(2_500));
        // Every other time the server is killed too, and comes back last: the accepted release runs without it.
        let alone = round % 4 >= 2;
        if alone {
            bench.site.kill();
        }
        bench.device.cut();
        bench.device.boot();
        bench.device.shows(8080, "never changes");
        if alone {
            bench.whole_alone(round);
            bench.site.serve();
        }
        // a container that starts at boot is a new one
        bench.still = bench.device.containers()["still"].clone();
        // Podman creates a layer before it records its purpose: a power cut in between leaves the layer, and a repair removes it.
        let orphans = bench.settled_but_for_layers(round);
        if !orphans.is_empty() {
            left += orphans.len();
            let repair = [
                "podman", "system", "check", "--quick", "--repair", "--max", "0s",
            ];
            bench.device.run(&repair);
            bench.settled(round);
        }
        bench.forget_twin(round);
        survived += 1;
    }
    println!("power cuts survived: {survived} of {rounds}, {left} layers left by Podman");
}

#[test]
fn the_agent_is_killed_at_every_step_of_an_apply() {
    let bench = Bench::new("steps");
    let device = &bench.device;
    device.install_agent("flotta-agent-faults");
    let drop_in = "/etc/systemd/system/flotta-agent.service.d/fault.conf";
    let fuse = format!("{STATE}/fuse");
    let mut round = 0;
    // An apply that begins a workload has other steps than one that ends it.
    let mut survived = [0, 0];
    for step in 1.. {
        let mut burnt = false;
        device.write(
            drop_in,
            &format!("[Service]\nEnvironment=FLOTTA_ABORT_AT_STEP={step} FLOTTA_FUSE={fuse}\n"),
        );
        device.exec(&["systemctl", "daemon-reload"]);
        device.exec(&["systemctl", "restart", "flotta-agent"]);
        for survived in &mut survived {
            round += 1;
            // The fuse works once: the agent that systemd restarts continues.
            device.write(&fuse, "");
            bench.change(round);
            bench.settled(round);
            if !device.path(&fuse).exists() {
                *survived += 1;
                burnt = true;
            }
            bench.forget_twin(round);
        }
        if !burnt {
            break;
        }
    }
    let [coming, going] = survived;
    assert!(coming > 6 && going > coming, "{coming} and {going} steps");
    println!(
        "steps survived: {coming} of {coming} when a workload comes, {going} of {going} when one goes"
    );
}

#[test]
fn a_full_disk_keeps_what_runs_and_heals_by_itself() {
    let bench = Bench::new("full");
    let (site, device) = (&bench.site, &bench.device);
    let before = device.containers();
    // The agent's state on a small file system of its own.
    device.exec(&["systemctl", "stop", "flotta-agent"]);
    device.exec(&["cp", "-a", STATE, "/root/state"]);
    device.exec(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=4m,mode=700",
        "tmpfs",
        STATE,
    ]);
    device.exec(&["cp", "-a", "/root/state/.", STATE]);
    device.exec(&["systemctl", "start", "flotta-agent"]);
    site.in_sync("full");
    fill(device, STATE);
    bench.change(1);
    wait("both sides say that the device's disk is full", || {
        let status = device.run(&["flotta-agent", "status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let server = site.status("full").to_string();
        let says = text.contains("FLT0507")
            && [&text, &server]
                .iter()
                .all(|said| said.contains("No space left"));
        if says {
            Ok(())
        } else {
            Err(format!("{text}\n{server}\n{}", device.log()))
        }
    });
    assert_eq!(device.containers(), before, "what runs is kept");
    device.shows(8081, "round 0");
    device.exec(&["rm", &format!("{STATE}/filler")]);
    bench.settled(1);

    // A release that is larger than the disk: nothing of it is started, and reverting it needs no help.
    let before = device.containers();
    let part = |n: u16| n.to_string().repeat(900 << 10);
    let parts: Vec<_> = (0..5)
        .map(|n| {
            (
                format!("part-{n}.yaml"),
                page(&format!("part-{n}"), 8090 + n, &part(n)),
            )
        })
        .collect();
    let files: Vec<_> = parts
        .iter()
        .map(|(name, page)| (name.as_str(), page.as_str()))
        .collect();
    site.commit("too large", &files);
    let why = site.event(&["full", "FLT0507", "No space left"]);
    assert!(why.contains("MiB are needed"), "{why}");
    assert_eq!(device.containers(), before, "what runs is kept");
    let files: Vec<_> = parts.iter().map(|(name, _)| (name.as_str(), "")).collect();
    site.commit("taken back", &files);
    bench.settled(1);

    // The same for the folder of the units.
    let before = device.containers();
    device.exec(&["cp", "-a", "/etc/containers/systemd", "/root/units"]);
    device.exec(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=64k",
        "tmpfs",
        "/etc/containers/systemd",
    ]);
    device.exec(&["cp", "-a", "/root/units/.", "/etc/containers/systemd/"]);
    device.exec(&["systemctl", "restart", "flotta-agent"]);
    site.in_sync("full");
    fill(device, "/etc/containers/systemd");
    let limited =
        page("one", 8081, "more").replace("args:", "env: [{name: A, value: b}]\n          args:");
    site.commit("a new unit file", &[("one.yaml", &limited)]);
    let why = site.problem("full", "one", "FLT0505");
    assert!(why.contains("No space left"), "{why}");
    assert_eq!(device.containers(), before, "what runs is kept");
    device.exec(&["rm", "/etc/containers/systemd/filler"]);
    device.shows(8081, "more");
    site.in_sync("full");
}

/// Fills the disk to the last byte.
fn fill(device: &Device, folder: &str) {
    let filler = format!("of={folder}/filler");
    device.run(&["dd", "if=/dev/zero", &filler, "bs=4k"]);
    device.run(&[
        "dd",
        "if=/dev/zero",
        &filler,
        "bs=1",
        "oflag=append",
        "conv=notrunc",
    ]);
}

/// The number of rounds; `ci/soak` sets more.
fn rounds(usual: u32) -> u32 {
    let asked = std::env::var("FLOTTA_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    asked.unwrap_or(usual)
}
