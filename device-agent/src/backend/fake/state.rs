//! The fake machine itself, and the rules it follows.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::path::UNITS;
use flotta_bundle::{DevicePath, Digest};

use super::QUADLET;
use super::links::BOOT;
use crate::backend::{BackendError, Verb, messages};

/// What happened on the machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Start(String),
    Stop(String),
    Pull(String),
    Sweep(String),
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file, and whether its mode and owner are as the fleet wants them.
    File { content: Vec<u8>, fits: bool },
    /// A link or a device.
    Other,
}

/// A unit as systemd has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub source: String,
    pub text: String,
}

/// The state of a unit's last run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    pub active: &'static str,
    pub sub: &'static str,
    pub result: &'static str,
    pub invocation: String,
    pub exit: i32,
    pub restarts: u32,
    /// The content of each file that it was started with.
    pub with: BTreeMap<String, Digest>,
}

impl Run {
    pub fn is_up(&self) -> bool {
        matches!(self.active, "active" | "activating")
    }
}

/// An action to run at a call.
pub(super) struct Hook(pub(super) Box<dyn FnOnce()>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// The machine.
#[derive(Debug, Default)]
pub struct State {
    pub files: BTreeMap<String, Entry>,
    /// The host's own units.
    pub host: BTreeMap<String, Definition>,
    /// The units that systemd knows since its last reload.
    pub loaded: BTreeMap<String, Definition>,
    pub runs: BTreeMap<String, Run>,
    /// Enabled units, and the folders that link to them: `timers.target.wants`.
    pub enabled: BTreeMap<String, BTreeSet<String>>,
    /// Containers by name, and the workload on their label.
    pub containers: BTreeMap<String, String>,
    pub images: BTreeSet<String>,
    pub registry: BTreeSet<String>,
    pub journal: BTreeMap<String, Vec<String>>,
    pub log: Vec<Action>,
    pub faults: Faults,
    /// Podman's note of why it refuses its storage.
    pub remembered: Option<String>,
    /// The files that are watched.
    pub watched: BTreeSet<DevicePath>,
    /// Commands that were started and have not ended.
    pub hanging: usize,
    pub(super) calls: usize,
    /// The call at which the agent crashes, and whether the call still takes effect.
    pub(super) crashes: Option<(usize, bool)>,
    /// The call at which the hook runs, and the hook.
    pub(super) hook: Option<(usize, Hook)>,
    starts: usize,
}

/// The faults of this machine.
#[derive(Debug, Default)]
pub struct Faults {
    /// Units whose container exits at once: with what, and what it says.
    pub exits: BTreeMap<String, (i32, &'static str)>,
    /// Ports that another program holds.
    pub ports: BTreeSet<String>,
    /// Paths that cannot be written.
    pub writes: BTreeSet<String>,
    /// Paths that cannot be removed.
    pub removes: BTreeSet<String>,
    /// Units that systemd has to kill when they stop: they fail by it, and leave their container.
    pub stubborn: BTreeSet<String>,
    /// Units whose jobs systemd refuses.
    pub refused: BTreeSet<String>,
    /// Units that somebody masked.
    pub masked: BTreeSet<String>,
    /// The machine itself could write what the agent cannot: the agent's view of the mounts is out of date.
    pub stale_mounts: bool,
    /// Why Podman's storage does not work; Podman keeps a note of that.
    pub no_storage: Option<&'static str>,
    /// Images that do not fit on the disk.
    pub large: BTreeSet<String>,
    /// Commands that fail in containers.
    pub commands: BTreeSet<String>,
    /// Commands that do not end.
    pub hangs: BTreeSet<String>,
    pub no_reload: bool,
    pub no_sweep: bool,
}

/// The values of a key in a unit file.
pub(super) fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let of_key = move |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    text.lines().filter_map(of_key)
}

/// The units that a unit requires, by Quadlet's rules.
fn needs(text: &str) -> Vec<String> {
    let made = |kind: &'static str| {
        let unit = move |name: &str| {
            let stem = name.strip_suffix(&format!(".{kind}"))?;
            Some(format!("{stem}-{kind}.service"))
        };
        let key = if kind == "pod" { "Pod" } else { "Network" };
        values(text, key).filter_map(unit)
    };
    made("pod").chain(made("network")).collect()
}

/// Whether a unit is a job, which is inactive again when it has finished.
fn is_job(text: &str) -> bool {
    values(text, "Type").any(|kind| kind == "oneshot")
}

pub(super) fn refused(text: String) -> BackendError {
    BackendError::Other(text)
}

/// systemd's error for a unit without a definition, or one that it has never heard of.
pub(super) fn no_unit(name: &str, how: &str) -> BackendError {
    refused(format!(
        "org.freedesktop.systemd1.NoSuchUnit: Unit {name} not {how}."
    ))
}

/// A unit's `Restart=`, with the default of Quadlet or systemd when the file does not say.
pub(super) fn restart(text: &str) -> &str {
    let usual = if text.contains("[Pod]") {
        "on-failure"
    } else {
        "no"
    };
    values(text, "Restart").next().unwrap_or(usual)
}

/// The template of an instance's name.
pub(super) fn template(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{kind}"))
}

impl State {
    /// A unit's own definition, or its template's. A template itself is no unit.
    pub(super) fn definition(&self, name: &str) -> Option<&Definition> {
        let own = self.loaded.get(name).filter(|_| !name.contains("@."));
        own.or_else(|| self.loaded.get(&template(name)?))
    }

    /// Runs the generator and reads its units, as a reload and a boot do.
    pub fn reload(&mut self) {
        let mut loaded = BTreeMap::new();
        for (path, thing) in &self.files {
            if let (Some(unit), Entry::File { content, .. }) = (path.strip_prefix(UNITS), thing)
                && !unit.contains('/')
            {
                let text = String::from_utf8_lossy(content).into_owned();
                let source = path.clone();
                loaded.insert(unit.to_owned(), Definition { source, text });
            }
            let name = path.strip_prefix(QUADLET).unwrap_or_default();
            let (Some((stem, kind)), Entry::File { content, .. }) = (name.rsplit_once('.'), thing)
            else {
                continue;
            };
            let (unit, section) = match kind {
                "container" => (format!("{stem}.service"), "[Container]"),
                "pod" => (format!("{stem}-pod.service"), "[Pod]"),
                "network" => (format!("{stem}-network.service"), "[Network]"),
                _ => continue,
            };
            let text = String::from_utf8_lossy(content).into_owned();
            let has_pod = |pod: &str| self.files.contains_key(&format!("{QUADLET}{pod}"));
            // Quadlet skips what it cannot read.
            if text.contains(section) && values(&text, "Pod").all(has_pod) {
                let source = path.clone();
                loaded.insert(unit, Definition { source, text });
            }
        }
        loaded.extend(self.host.clone());
        self.loaded = loaded;
        let gone = |(name, run): (&String, &Run)| {
            let is_gone = self.definition(name).is_none() && run.active == "inactive";
            is_gone.then(|| name.clone())
        };
        let gone: Vec<_> = self.runs.iter().filter_map(gone).collect();
        for name in gone {
            self.runs.remove(&name);
        }
    }

    /// Reboots the machine: nothing runs, and installed units are started from the files on disk.
    pub fn boot(&mut self) {
        self.runs.clear();
        self.containers.clear();
        self.reload();
        for name in self.loaded.keys().cloned().collect::<Vec<_>>() {
            if !name.ends_with("-network.service") && self.is_installed(&name) {
                let _ = self.start(&name);
            }
        }
    }

    /// Whether a unit is started at boot: Quadlet always applies `[Install]`, other units must be enabled. Units that stay up
    /// are taken to be installed.
    fn is_installed(&self, name: &str) -> bool {
        let definition = &self.loaded[name];
        if definition.source.starts_with(UNITS) {
            let boots = |folder: &String| BOOT.contains(&folder.as_str());
            return self
                .enabled
                .get(name)
                .is_some_and(|links| links.iter().any(boots));
        }
        !is_job(&definition.text) || definition.text.contains("[Install]")
    }

    fn is_up(&self, name: &str) -> bool {
        self.runs.get(name).is_some_and(Run::is_up)
    }

    fn needed_by(&self, name: &str) -> Vec<String> {
        let needing = self.loaded.iter();
        let needing = needing.filter(|(_, def)| needs(&def.text).iter().any(|need| need == name));
        needing.map(|(name, _)| name.clone()).collect()
    }

    /// Starts a unit after what it needs; a pod starts its members.
    pub fn start(&mut self, name: &str) -> Result<(), BackendError> {
        if self.is_up(name) {
            return Ok(());
        }
        if self.faults.masked.contains(name) {
            let why = "org.freedesktop.systemd1.UnitMasked: Unit";
            return Err(refused(format!("{why} {name} is masked.")));
        }
        let known = self.definition(name).cloned();
        let definition = known.ok_or_else(|| no_unit(name, "found"))?;
        let before = self.starts;
        for need in needs(&definition.text) {
            self.start(&need)?;
        }
        // The pod may have started it.
        let started = self.runs.get(name);
        if started
            .is_some_and(|run| usize::from_str_radix(&run.invocation, 16).is_ok_and(|n| n > before))
        {
            return Ok(());
        }
        self.starts += 1;
        self.log.push(Action::Start(name.to_owned()));
        self.pull(&definition.text);
        let sub = match name {
            name if name.ends_with("-network.service") => "exited",
            name if name.strip_suffix(".timer").is_some() => "waiting",
            name if name.strip_suffix(".socket").is_some() => "listening",
            _ => "running",
        };
        let mut run = Run {
            active: "active",
            sub,
            result: "success",
            invocation: format!("{:032x}", self.starts),
            with: self.inputs(&definition),
            ..Run::default()
        };
        if let Some((exit, said)) = self.fate(name, &definition.text) {
            run.exit = exit;
            run.result = "exit-code";
            let lines = vec![
                said,
                format!("{name}: Main process exited, code=exited, status={exit}/n/a"),
                format!("{name}: Failed with result 'exit-code'."),
            ];
            if restart(&definition.text) == "no" {
                (run.active, run.sub) = ("failed", "failed");
            } else {
                // the restart counts once it has happened
                (run.active, run.sub) = ("activating", "auto-restart");
            }
            self.journal
                .entry(name.to_owned())
                .or_default()
                .extend(lines);
        } else if let Some(label) = values(&definition.text, "Label").next() {
            let workload = label.trim_start_matches("flotta.workload=");
            self.containers.insert(name.to_owned(), workload.to_owned());
        }
        let failed = run.exit != 0;
        if !failed && is_job(&definition.text) {
            (run.active, run.sub) = ("inactive", "dead");
            self.containers.remove(name);
        }
        self.runs.insert(name.to_owned(), run);
        if failed {
            return Err(refused("job ended: failed".to_owned()));
        }
        if name.ends_with("-pod.service") {
            for member in self.needed_by(name) {
                let _ = self.start(&member);
            }
        }
        Ok(())
    }

    /// Podman's error when it refuses its storage. Without a note it tries the storage.
    pub(super) fn storage(&mut self) -> Result<(), BackendError> {
        if self.remembered.is_none() {
            self.remembered = self.faults.no_storage.map(str::to_owned);
        }
        match &self.remembered {
            Some(why) => Err(messages::podman(format!("configure storage: {why}"))),
            None => Ok(()),
        }
    }

    /// `podman run` pulls what is missing by itself.
    fn pull(&mut self, text: &str) {
        if self.storage().is_err() {
            return;
        }
        for image in values(text, "Image") {
            let fits = self.registry.contains(image) && !self.faults.large.contains(image);
            if fits && self.images.insert(image.to_owned()) {
                self.log.push(Action::Pull(image.to_owned()));
            }
        }
    }

    /// The exit status and last line of a container that exits at once, if it does.
    fn fate(&mut self, name: &str, text: &str) -> Option<(i32, String)> {
        if let Err(error) = self.storage() {
            return Some((125, format!("Error: {error}")));
        }
        let missing = values(text, "Image").find(|image| !self.images.contains(*image));
        if let Some(image) = missing {
            return Some((125, format!("Error: {image}: manifest unknown")));
        }
        let host = |port: &str| port.split(':').next().unwrap_or_default().to_owned();
        let taken = values(text, "PublishPort").map(host);
        let taken = taken.filter(|port| self.faults.ports.contains(port)).min();
        if let Some(port) = taken {
            let line = format!(
                "Error: cannot listen on the TCP port: listen tcp4 :{port}: bind: address already in use"
            );
            return Some((126, line));
        }
        let exit = self.faults.exits.get(name);
        exit.map(|(exit, said)| (*exit, (*said).to_owned()))
    }

    /// A unit's inputs: its source and those of the units it requires, as systemd loaded them, and the files it mounts as
    /// they are now.
    fn inputs(&self, definition: &Definition) -> BTreeMap<String, Digest> {
        let needs = needs(&definition.text);
        let sources = needs.iter().filter_map(|need| self.loaded.get(need));
        let sources = sources.chain([definition]);
        let mut with: BTreeMap<_, _> = sources
            .map(|def| (def.source.clone(), Digest::of(def.text.as_bytes())))
            .collect();
        for folder in values(&definition.text, "Volume").filter_map(|v| v.split(':').next()) {
            for (path, thing) in &self.files {
                if let Entry::File { content, .. } = thing
                    && path.starts_with(&format!("{folder}/"))
                {
                    with.insert(path.clone(), Digest::of(content));
                }
            }
        }
        with
    }

    /// Stops a unit, after the units that require it.
    pub fn stop(&mut self, name: &str) {
        if !self.is_up(name) {
            return;
        }
        for needing in self.needed_by(name) {
            self.stop(&needing);
        }
        self.log.push(Action::Stop(name.to_owned()));
        let stubborn = self.faults.stubborn.contains(name);
        if let Some(run) = self.runs.get_mut(name) {
            (run.active, run.sub, run.restarts) = ("inactive", "dead", 0);
            (run.result, run.exit) = ("success", 0);
            if stubborn {
                (run.active, run.sub, run.result) = ("failed", "failed", "timeout");
            }
        }
        if !stubborn {
            self.containers.remove(name);
        }
    }

    /// Runs jobs that were queued together: all stops before all starts, each unit once.
    pub(super) fn run_jobs(&mut self, jobs: &[(Verb, String)]) -> Vec<(String, BackendError)> {
        let mut failures = Vec::new();
        let mut starts = Vec::new();
        for (verb, name) in jobs {
            if self.faults.refused.contains(name) {
                failures.push((name.clone(), refused("Connection timed out".to_owned())));
                continue;
            }
            if self.definition(name).is_none() {
                if *verb != Verb::Stop {
                    failures.push((name.clone(), no_unit(name, "found")));
                    continue;
                }
                // systemd keeps a unit that still runs, or has failed.
                if self
                    .runs
                    .get(name)
                    .is_none_or(|run| run.active == "inactive")
                {
                    failures.push((name.clone(), no_unit(name, "loaded")));
                    continue;
                }
            }
            if *verb != Verb::Start {
                let needing = self.needed_by(name).into_iter();
                let again: Vec<_> = needing.filter(|name| self.is_up(name)).collect();
                self.stop(name);
                if *verb == Verb::Restart {
                    starts.extend(again);
                }
            }
            if *verb != Verb::Stop {
                starts.push(name.clone());
            }
        }
        for name in starts {
            if let Err(error) = self.start(&name) {
                failures.push((name, error));
            }
        }
        failures
    }

    /// Another path that is a file where this path needs a folder, or the other way round.
    pub(super) fn blocks(&self, path: &str) -> Option<&String> {
        let above = |folder: &str, path: &str| {
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let mut paths = self.files.keys();
        paths.find(|other| above(other, path) || above(path, other))
    }
}
