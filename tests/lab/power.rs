//! Killed and cut off at any moment: the same end state, and nothing started twice that did not change.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::device::{Device, wait};
use crate::site::{HELLO, Site, device, page};

const PORTS: [(&str, u16); 3] = [("one", 8081), ("two", 8082), ("three", 8083)];

/// A fleet with one workload that never changes and three that do.
struct Ground {
    site: Site,
    device: Device,
    /// The image of every other round for one of the three: `hello` and a layer more.
    twin: String,
    still: String,
}

impl Ground {
    fn new(name: &str) -> Self {
        let site = Site::start(&[
            ("device.yaml", &device(name)),
            ("still.yaml", &page("still", 8080, "never changes")),
        ]);
        let device = site.join(name);
        site.in_sync(name);
        let twin = device.publish("twin", 4);
        let still = device.containers()["still"].clone();
        let ground = Self {
            site,
            device,
            twin,
            still,
        };
        ground.change(0);
        ground.settled(0);
        ground
    }

    /// Changes the three: what they show, and the image of one.
    fn change(&self, round: u32) {
        let content = shown(round);
        let pages: Vec<_> = PORTS
            .iter()
            .map(|(name, port)| (format!("{name}.yaml"), page(name, *port, &content)))
            .map(|(name, page)| match (name.as_str(), round % 2) {
                ("two.yaml", 1) => (name, page.replace(HELLO, &self.twin)),
                _ => (name, page),
            })
            .collect();
        let files: Vec<_> = pages
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_str()))
            .collect();
        self.site.commit(&content, &files);
    }

    /// The layer that no round needs now is pulled anew in the next.
    fn forget_twin(&self, round: u32) {
        if round > 0 && round.is_multiple_of(2) {
            self.device.exec(&["podman", "rmi", &self.twin]);
        }
    }

    /// Everything is as the commit of this round says, and nothing else is there.
    fn settled(&self, round: u32) {
        let device = &self.device;
        for (_, port) in PORTS {
            device.shows(port, &shown(round));
        }
        self.site.in_sync(&device.name);
        let containers = device.containers();
        let names: Vec<_> = containers.keys().collect();
        assert_eq!(names, ["one", "still", "three", "two"]);
        assert_eq!(containers["still"], self.still, "round {round}");
        let all = device.exec(&["podman", "ps", "--all", "--format", "{{.Names}}"]);
        assert_eq!(all.lines().count(), 4, "{all}");
        self.no_orphan_layer();
        let units = device.path("/etc/containers/systemd");
        let units = std::fs::read_dir(units)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"));
        let files = units.filter(|entry| entry.path().is_file());
        let mut names: Vec<_> = files
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let wanted = [
            "one.container",
            "still.container",
            "three.container",
            "two.container",
        ];
        assert_eq!(names, wanted, "no orphan and no temporary file");
        for (name, _) in PORTS {
            let folder = device.path(&format!("/etc/flotta/workloads/{name}/site"));
            assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
        }
        let ledger =
            std::fs::read_dir(device.path("/var/lib/flotta-agent/ledger")).expect("the ledger");
        let names = ledger.map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        });
        assert!(
            names.into_iter().all(|name| !name.starts_with('.')),
            "no temporary file"
        );
        assert_eq!(device.exec(&["flotta-agent", "diff"]), "");
    }

    /// Every layer on Podman's disk is of an image or of one of the four containers.
    fn no_orphan_layer(&self) {
        let images = self.device.exec(&["podman", "images", "--all", "--quiet"]);
        let images: BTreeSet<_> = images.lines().collect();
        let layers = images.iter().map(|image| {
            let layers = "{{len .RootFS.Layers}}";
            let said = self
                .device
                .exec(&["podman", "image", "inspect", "--format", layers, image]);
            said.trim().parse::<usize>().expect("a number")
        });
        // `hello` is one layer, the twin has one on top of it: the longer has them all
        let layers = layers.max().expect("an image");
        assert_eq!(layers, images.len(), "{images:?}");
        let store = self.device.path("/var/lib/containers/storage/overlay");
        let there = std::fs::read_dir(store).expect("a folder");
        let mut there: Vec<_> = there
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        // a layer's folder is named by its identifier; beside them lie Podman's own
        there.retain(|name| name.len() == 64);
        assert_eq!(there.len(), layers + 4, "a layer of nothing: {there:?}");
    }
}

/// What the pages say in a round.
fn shown(round: u32) -> String {
    format!("round {round}")
}

/// Lets a random time pass: there is no condition to wait for, the moment is what is tried.
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
    let ground = Ground::new("killed");
    let device = &ground.device;
    let mut survived = 0;
    for round in 1..=rounds {
        // systemd starts it again after a second: there must be something to kill.
        wait("the agent runs again", || {
            let active = device.run(&["systemctl", "is-active", "flotta-agent"]);
            if active.status.success() {
                Ok(())
            } else {
                Err(device.log())
            }
        });
        ground.change(round);
        // A commit is seen within a second, and applied within another: the kill falls anywhere in it.
        moment(&mut random, Duration::from_millis(2_500));
        device.exec(&["systemctl", "kill", "--signal=KILL", "flotta-agent"]);
        ground.settled(round);
        ground.forget_twin(round);
        survived += 1;
    }
    println!("kills survived: {survived} of {rounds}");
}

#[test]
fn the_power_is_cut_at_random_moments() {
    let rounds = rounds(20);
    let mut random = StdRng::seed_from_u64(7);
    let mut ground = Ground::new("cut");
    let mut survived = 0;
    for round in 1..=rounds {
        ground.change(round);
        moment(&mut random, Duration::from_millis(2_500));
        // Every other time the server goes with it, and comes back last: what was accepted runs without it.
        let alone = round % 4 >= 2;
        if alone {
            ground.site.kill();
        }
        ground.device.cut();
        ground.device.boot();
        ground.device.shows(8080, "never changes");
        if alone {
            for (_, port) in PORTS {
                let body = ground.device.get(port, "/");
                let known = [shown(round), shown(round - 1)];
                assert!(known.iter().any(|page| body.trim_end() == page), "{body}");
            }
            ground.site.serve();
        }
        // a container that starts with the device is another than before
        ground.still = ground.device.containers()["still"].clone();
        ground.settled(round);
        ground.forget_twin(round);
        survived += 1;
    }
    println!("power cuts survived: {survived} of {rounds}");
}

#[test]
fn the_agent_is_killed_at_every_step_of_an_apply() {
    let ground = Ground::new("steps");
    let device = &ground.device;
    device.install_agent("flotta-agent-faults");
    let drop_in = "/etc/systemd/system/flotta-agent.service.d/fault.conf";
    let mut step = 0;
    loop {
        step += 1;
        let fuse = "/var/lib/flotta-agent/fuse";
        // The fuse burns once: the agent that systemd starts again goes on.
        device.write(
            drop_in,
            &format!("[Service]\nEnvironment=FLOTTA_ABORT_AT_STEP={step} FLOTTA_FUSE={fuse}\n"),
        );
        device.write(fuse, "");
        device.exec(&["systemctl", "daemon-reload"]);
        device.exec(&["systemctl", "restart", "flotta-agent"]);
        ground.change(step);
        ground.settled(step);
        if device.path(fuse).exists() {
            break;
        }
    }
    assert!(step > 6, "an apply has more steps than {step}");
    println!("steps survived: {} of {}", step - 1, step - 1);
}

#[test]
fn a_full_disk_keeps_what_runs_and_heals_by_itself() {
    let ground = Ground::new("full");
    let (site, device) = (&ground.site, &ground.device);
    let before = device.containers();
    // The agent's state on a small file system of its own.
    device.exec(&["systemctl", "stop", "flotta-agent"]);
    device.exec(&["cp", "-a", "/var/lib/flotta-agent", "/root/state"]);
    device.exec(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=4m,mode=700",
        "tmpfs",
        "/var/lib/flotta-agent",
    ]);
    device.exec(&["cp", "-a", "/root/state/.", "/var/lib/flotta-agent/"]);
    device.exec(&["systemctl", "start", "flotta-agent"]);
    site.in_sync("full");
    fill(device, "/var/lib/flotta-agent");
    ground.change(1);
    wait("the device says that its disk is full", || {
        let status = device.run(&["flotta-agent", "status"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let says = text.contains("FLT0507") && text.contains("No space left");
        if says {
            Ok(())
        } else {
            Err(format!("{text}\n{}", device.log()))
        }
    });
    assert_eq!(device.containers(), before, "what runs is kept");
    device.shows(8081, "round 0");
    device.exec(&["rm", "/var/lib/flotta-agent/filler"]);
    ground.settled(1);

    // The same for the place that units lie in.
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

/// Leaves no byte free.
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

/// `ci/soak` asks for more.
fn rounds(usual: u32) -> u32 {
    let asked = std::env::var("FLOTTA_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    asked.unwrap_or(usual)
}
