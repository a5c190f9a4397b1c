//! Reads and checks the user's own Quadlet files and the files next to them, as Podman's Quadlet and systemd do it: what they
//! would skip on the device is reported while it can still be fixed.
//!
//! | module | does |
//! |---|---|
//! | [`file`] | the text of a unit file, with the place of every key and value |
//! | [`words`] | splits a value into words |
//! | [`names`] | the role of a file, by its name |
//! | [`keys`] | the keys of each kind |
//! | [`unit`] | a unit with its drop-ins |
//! | [`check`] | the rules of all Quadlet files |
//! | [`kinds`] | the rules of each kind |
//! | [`systemd`] | the rules of systemd's own units, such as timers |
//! | `values` | the keys that systemd knows, and the values that it accepts |
//! | [`time`] | times as systemd reads them |
//! | [`references`] | which other units and files a unit needs |
//! | [`install`] | which units there are, and which of them are started |
//! | [`ports`] | published ports |

pub mod check;
pub mod file;
pub mod install;
pub mod keys;
pub mod kinds;
pub mod names;
pub mod ports;
pub mod references;
pub mod systemd;
pub mod time;
pub mod unit;
mod values;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::{Code, code};

use crate::finding::Severity;
use file::Spot;
use keys::Kind;
use names::Role;
use unit::Unit;

pub use references::Need;

/// The most files in a workload: each is searched for the names of the others.
const MAX_FILES: usize = 1_000;

/// An error or a warning about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it is an error or a warning.
    pub severity: Severity,
    /// The stable code.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The file it is in.
    pub file: String,
    /// Where in the file; `None` for the file as a whole.
    pub spot: Option<Spot>,
}

impl Fault {
    fn error(
        code: Code,
        file: &str,
        spot: impl Into<Option<Spot>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
            file: file.to_owned(),
            spot: spot.into(),
        }
    }

    fn warning(self) -> Self {
        Self {
            severity: Severity::Warning,
            ..self
        }
    }

    fn with_help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// The files of one workload.
#[derive(Debug, Clone, Default)]
pub struct Set<'a> {
    /// The content of each file, by name.
    pub files: BTreeMap<&'a str, &'a str>,
    /// Units, Quadlet's and systemd's, by the name of their file.
    pub units: BTreeMap<&'a str, Unit<'a>>,
    /// What is wrong with the names of files.
    faults: Vec<Fault>,
}

impl<'a> Set<'a> {
    /// Reads files by their names: `web.container`, `web.container.d/10.conf`, `site/nginx.conf`.
    pub fn read(files: &'a BTreeMap<String, String>) -> Self {
        let mut set = Self::default();
        if let Some((name, _)) = files.iter().nth(MAX_FILES) {
            let message = format!("more than {MAX_FILES} files in one workload");
            let fault = Fault::error(code::LIMIT, name, None, message);
            set.faults.push(fault);
        }
        let mut folded = BTreeSet::new();
        for (name, content) in files.iter().take(MAX_FILES) {
            let key = name.to_ascii_lowercase();
            let mut folders = key.match_indices('/').map(|(at, _)| &key[..at]);
            let other = folders.find(|folder| folded.contains(*folder));
            let message = match other {
                Some(other) => Some(format!(
                    "`{other}` is both a file and, because of {name}, a folder"
                )),
                None if folded.contains(&key) => {
                    Some(format!("{name} differs from another file only in case"))
                }
                None => None,
            };
            if let Some(message) = message {
                set.faults
                    .push(Fault::error(code::CONFLICT, name, None, message));
            }
            folded.insert(key);
            match names::role(name) {
                Ok(_) => {
                    set.files.insert(name, content);
                }
                Err(why) => {
                    let message =
                        format!("{name:?} is not a file name that can be used here: {why}");
                    set.faults
                        .push(Fault::error(code::BAD_NAME, name, None, message));
                }
            }
        }
        for name in set.files.keys() {
            match names::role(name) {
                Ok(Role::Quadlet(_) | Role::Systemd) => {
                    let unit = set.unit(name);
                    set.units.insert(name, unit);
                }
                Ok(Role::QuadletDropIn(_) | Role::SystemdDropIn(_) | Role::Plain) | Err(_) => {}
            }
        }
        set.check_drop_ins();
        set
    }

    fn unit(&self, name: &'a str) -> Unit<'a> {
        let base = self.content(name);
        let mut files = vec![(base, file::parse(self.files[base]))];
        for drop_in in self.drop_ins(name) {
            files.push((drop_in, file::parse(self.files[drop_in])));
        }
        Unit { name, files }
    }

    /// Returns the file that has the content of a file: an empty file of an instance stands for its template, as a symbolic link
    /// to the template does on a machine.
    pub fn content(&self, name: &'a str) -> &'a str {
        let is_link = file::is_blank(self.files[name]);
        let template =
            names::template(name).filter(|(_, instance)| is_link && !instance.is_empty());
        let template =
            template.and_then(|(template, _)| self.files.get_key_value(template.as_str()));
        template.map_or(name, |(template, _)| template)
    }

    /// Returns the drop-ins of a unit, in the order in which they are read: by name. A drop-in of an instance replaces its
    /// template's of the same name.
    pub fn drop_ins(&self, unit: &str) -> Vec<&'a str> {
        let template = names::template(unit).map(|(template, _)| template);
        let mut found: BTreeMap<&str, &'a str> = BTreeMap::new();
        for of in [Some(unit.to_owned()), template].into_iter().flatten() {
            let folder = format!("{of}.d/");
            for name in self.files.keys() {
                if let Some(file) = name.strip_prefix(folder.as_str()) {
                    found.entry(file).or_insert(name);
                }
            }
        }
        found.into_values().collect()
    }

    /// Reports drop-ins whose unit is not in the workload: they would change a unit of another workload, or of the machine's
    /// owner.
    fn check_drop_ins(&mut self) {
        let instances = install::services(self).into_iter();
        let mut services: BTreeSet<String> = instances.map(|service| service.name).collect();
        services.extend(self.units.values().map(Unit::service));
        for name in self.files.keys() {
            let (unit, is_there) = match names::role(name) {
                Ok(Role::QuadletDropIn(unit)) => (unit, self.units.contains_key(unit)),
                Ok(Role::SystemdDropIn(unit)) => (unit, services.contains(unit)),
                _ => continue,
            };
            if !is_there {
                let message =
                    format!("{name} is a drop-in of {unit}, which is not in this workload");
                self.faults
                    .push(Fault::error(code::MISSING_REFERENCE, name, None, message));
            }
        }
    }

    /// Checks every file. Returns what is wrong, and what the device must have from elsewhere, which only the caller can
    /// check.
    pub fn check(&self) -> (Vec<Fault>, Vec<Need>) {
        let mut faults = self.faults.clone();
        let mut needs = Vec::new();
        for unit in self.units.values() {
            let mut checker = check::Checker::new(self, unit);
            checker.check();
            faults.extend(checker.faults);
            needs.extend(checker.needs);
        }
        self.check_services(&mut faults);
        self.check_templates(&mut faults);
        // an error in a template is reported once, however many instances it has
        let place = |fault: &Fault| (fault.file.clone(), fault.spot, fault.message.clone());
        faults.sort_by_cached_key(place);
        faults.dedup();
        needs.retain(|need| !self.has(&need.name));
        needs.dedup();
        (faults, needs)
    }

    /// Returns the files of the set whose changes restart a unit: its own, its drop-ins, those that it names, and those that
    /// its image is built from.
    pub fn inputs(&self, unit: &Unit<'a>, service: &str) -> BTreeSet<&'a str> {
        let mut inputs = BTreeSet::new();
        let mut open = vec![(unit.clone(), service.to_owned())];
        let mut seen = BTreeSet::new();
        while let Some((unit, service)) = open.pop() {
            if seen.insert(unit.name) {
                let builds = self.own_inputs(&unit, &service, &mut inputs);
                open.extend(
                    builds
                        .into_iter()
                        .map(|build| (build.clone(), build.service())),
                );
            }
        }
        inputs
    }

    /// Adds the inputs of one unit. Returns the units that build an image for it.
    fn own_inputs(
        &self,
        unit: &Unit<'a>,
        service: &str,
        inputs: &mut BTreeSet<&'a str>,
    ) -> Vec<&Unit<'a>> {
        let mut builds = Vec::new();
        inputs.insert(unit.name);
        inputs.extend(unit.files.iter().skip(1).map(|(name, _)| *name));
        let template = names::template(service).map(|(template, _)| template);
        for of in [Some(service), template.as_deref()].into_iter().flatten() {
            inputs.extend(self.drop_ins(of));
        }
        let mut checker = check::Checker::new(self, unit);
        checker.check();
        for need in &checker.needs {
            if Kind::of(&need.name) == Some(Kind::Build) {
                builds.extend(self.units.get(need.name.as_str()));
            } else if Kind::of(&need.name).is_none() {
                inputs.extend(self.below(&need.name));
            }
        }
        if unit.kind() == Some(Kind::Build) && unit.said("Build", "SetWorkingDirectory").is_some() {
            inputs.extend(self.plain());
        }
        // every file whose name is in the unit, except for pods: when a pod restarts, systemd restarts its containers
        let base = self.content(unit.name);
        let words: BTreeSet<&str> = self.files[base].split(|c: char| !is_of_name(c)).collect();
        let named = self.files.keys().filter(|name| {
            let is_pod = Kind::of(name) == Some(Kind::Pod);
            words.contains(**name) && !is_pod && names::role(name) != Ok(Role::Systemd)
        });
        inputs.extend(named);
        // a socket cannot be reopened while its service runs
        let socket = service
            .strip_suffix(".service")
            .map(|stem| format!("{stem}.socket"));
        inputs.extend(
            socket
                .and_then(|socket| self.files.get_key_value(socket.as_str()))
                .map(|(name, _)| *name),
        );
        builds
    }

    /// Returns the files at a path: one file, or those of a folder.
    fn below(&self, path: &str) -> impl Iterator<Item = &'a str> {
        let below = move |file: &&'a str| {
            file.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path.is_empty())
        };
        self.files.keys().copied().filter(below)
    }

    /// Returns the files that are neither units nor drop-ins.
    fn plain(&self) -> impl Iterator<Item = &'a str> {
        let files = self.files.keys().copied();
        files.filter(|name| names::role(name) == Ok(Role::Plain))
    }

    /// Whether a unit, a file or a folder of this name is among the files.
    pub fn has(&self, name: &str) -> bool {
        self.below(name).next().is_some()
    }

    /// Reports templates without instances: they have no effect, and could replace a template of the machine with that name.
    fn check_templates(&self, faults: &mut Vec<Fault>) {
        let services = install::services(self);
        for unit in self.units.values().filter(|unit| unit.is_template()) {
            // an empty file of an instance stands for the template
            let is_of = |made: &Unit<'_>| made.name == unit.name || made.files[0].0 == unit.name;
            let has_instance = services.iter().any(|service| is_of(service.unit));
            let is_accepting = unit
                .name
                .strip_suffix("@.service")
                .and_then(|stem| self.units.get(format!("{stem}.socket").as_str()))
                .is_some_and(|socket| socket.is_on("Socket", "Accept") == Some(true));
            let is_wrong = faults.iter().any(|fault| fault.file == unit.name);
            if !has_instance && !is_accepting && !is_wrong {
                let message = format!(
                    "{} is a template, and nothing in the workload names an instance of it",
                    unit.name
                );
                let help =
                    "set DefaultInstance= in [Install], or add an empty file NAME@INSTANCE.KIND";
                let fault = Fault::error(code::UNIT_FILE, unit.name, None, message);
                faults.push(fault.with_help(help));
            }
        }
    }

    /// Reports files that make the same unit, because only one of them would run.
    fn check_services(&self, faults: &mut Vec<Fault>) {
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for unit in self.units.values() {
            let service = unit.service();
            if let Some(other) = owners.get(&service) {
                let at = unit
                    .kind()
                    .and_then(|kind| unit.said(kind.section(), "ServiceName"));
                let (file, spot) = at.map_or((unit.name, None), |at| (at.file, Some(at.spot())));
                let message = format!("{} and {other} both make the unit {service}", unit.name);
                faults.push(Fault::error(code::CONFLICT, file, spot, message));
            } else {
                owners.insert(service, unit.name);
            }
        }
    }
}

impl Unit<'_> {
    /// Returns its Quadlet kind; `None` for a unit of systemd's own.
    pub fn kind(&self) -> Option<Kind> {
        Kind::of(self.name)
    }

    /// Returns the name of the systemd unit that is made from it.
    pub fn service(&self) -> String {
        let Some(kind) = self.kind() else {
            return self.name.to_owned();
        };
        let name = self.said(kind.section(), "ServiceName");
        let name = name.map_or_else(
            || format!("{}{}", self.stem(), kind.suffix()),
            |name| name.text.to_owned(),
        );
        name + ".service"
    }
}

/// Whether a character may be part of a file name, where a text is split into words.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}
