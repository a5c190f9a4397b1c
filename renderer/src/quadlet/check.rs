//! The rules of Quadlet files: what Podman's Quadlet refuses, and what it would silently drop.

use flotta_bundle::path::is_unit_name;
use flotta_bundle::{Code, code};

use super::file::{Spot, is_blank};
use super::keys::{self, Kind};
use super::unit::{Unit, Value, is_boolean};
use super::words::Broken;
use super::{Fault, Need, Set};

/// The least similarity of a name that is suggested for an unknown one.
const ALIKE: f64 = 0.75;

/// Keys that are split like command lines.
const ARGUMENTS: &[&str] = &[
    "EnvironmentFile",
    "GlobalArgs",
    "Mask",
    "Mount",
    "PodmanArgs",
    "Secret",
    "Unmask",
];
/// Keys that are split like command lines, into `NAME=VALUE`.
const PAIRS: &[&str] = &["Annotation", "Environment", "Label"];
/// Keys that are split like lists of names.
const NAMES: &[&str] = &[
    "AddCapability",
    "AddDevice",
    "AutoUpdate",
    "ConfigMap",
    "DropCapability",
    "GIDMap",
    "LogOpt",
    "RemapGid",
    "RemapUid",
    "Sysctl",
    "UIDMap",
];
/// Keys that are on or off.
const SWITCHES: &[&str] = &[
    "AllTags",
    "Copy",
    "DisableDNS",
    "EnvironmentHost",
    "ForceRM",
    "IPv6",
    "Internal",
    "KubeDownForce",
    "NoNewPrivileges",
    "ReadOnly",
    "ReadOnlyTmpfs",
    "RunInit",
    "SecurityLabelDisable",
    "SecurityLabelNested",
    "StartWithPod",
    "TLSVerify",
    "VolatileTmp",
];
/// Why aliases are refused: with one, the unit could replace a unit of the machine.
pub(super) const NO_ALIAS: &str = "Alias= is not supported: a unit of a workload has one name, that of ServiceName= or of its file";
/// Checks one unit, and collects what is wrong and what it needs.
#[derive(Debug)]
pub struct Checker<'s, 'a> {
    pub(super) set: &'s Set<'a>,
    pub(super) unit: &'s Unit<'a>,
    pub(super) faults: Vec<Fault>,
    pub(super) needs: Vec<Need>,
}

impl<'s, 'a> Checker<'s, 'a> {
    pub(super) fn new(set: &'s Set<'a>, unit: &'s Unit<'a>) -> Self {
        Self {
            set,
            unit,
            faults: Vec::new(),
            needs: Vec::new(),
        }
    }

    /// Applies all rules.
    pub(super) fn check(&mut self) {
        if self.is_link_to_nothing() {
            return;
        }
        self.lines();
        let Some(kind) = self.unit.kind() else {
            self.systemd();
            return;
        };
        self.is_named(kind);
        self.sections(kind);
        self.keys(kind);
        self.values(kind);
        self.install();
        self.passed_through(&["Unit", "Service"]);
        match kind {
            Kind::Container => self.container(),
            Kind::Pod => self.pod_unit(),
            Kind::Volume => self.volume(),
            Kind::Network => self.network(),
            Kind::Kube => self.kube(),
            Kind::Image => self.required(kind, "Image"),
            Kind::Build => self.build(),
        }
    }

    /// Reports an error at a value.
    pub(super) fn refuse(&mut self, value: &Value<'_>, spot: Spot, message: impl Into<String>) {
        self.faults
            .push(Fault::error(code::UNIT_FILE, value.file, spot, message));
    }

    /// Reports an error of the unit as a whole, at the header of a section if it has one.
    pub(super) fn refuse_unit(&mut self, section: &str, message: impl Into<String>) {
        let (file, spot) = match self.unit.header(section) {
            Some((file, spot)) => (file, Some(spot)),
            None => (self.unit.files[0].0, None),
        };
        self.faults
            .push(Fault::error(code::UNIT_FILE, file, spot, message));
    }

    pub(super) fn warn(
        &mut self,
        code: Code,
        value: &Value<'_>,
        spot: Spot,
        message: impl Into<String>,
    ) {
        self.faults
            .push(Fault::error(code, value.file, spot, message).warning());
    }

    fn lines(&mut self) {
        for (name, file) in &self.unit.files {
            for (spot, message) in &file.faults {
                self.faults
                    .push(Fault::error(code::UNIT_FILE, name, *spot, message.as_str()));
            }
        }
    }

    fn is_named(&mut self, kind: Kind) {
        let unit = self.unit;
        let name = unit.said(kind.section(), "ServiceName");
        if let Some(name) = &name {
            let is_template = name.text.ends_with('@');
            let message = if !is_unit_name(&format!("{}.service", name.text)) {
                Some(format!(
                    "`{}` is not a unit name that can be used here",
                    name.text
                ))
            } else if is_template != unit.is_template() {
                let what = if is_template { "is" } else { "is not" };
                Some(format!(
                    "`{}` {what} the name of a template: NAME@",
                    name.text
                ))
            } else {
                None
            };
            if let Some(message) = message {
                self.faults.push(Fault::error(
                    code::BAD_NAME,
                    name.file,
                    name.spot(),
                    message,
                ));
            }
        }
        if unit.instance().is_some() && name.is_none() && !kind.suffix().is_empty() {
            let message = format!(
                "a .{} file cannot be a template: only .container and .kube files can be templates",
                kind.extension()
            );
            self.faults
                .push(Fault::error(code::BAD_NAME, unit.name, None, message));
        }
    }

    /// Reports an empty file of an instance whose template is missing: it would stand for the template. Returns whether it did.
    fn is_link_to_nothing(&mut self) -> bool {
        let unit = self.unit;
        let is_instance = unit.instance().is_some_and(|instance| !instance.is_empty());
        if !is_instance || !is_blank(self.set.files[unit.files[0].0]) {
            return false;
        }
        let message = format!(
            "{} is empty, so it stands for its template, which is missing",
            unit.name
        );
        self.faults.push(Fault::error(
            code::MISSING_REFERENCE,
            unit.name,
            None,
            message,
        ));
        true
    }

    /// Reports sections that neither Quadlet nor systemd reads.
    fn sections(&mut self, kind: Kind) {
        let known = ["Unit", "Service", "Install", "Quadlet", kind.section()];
        for (name, file) in &self.unit.files {
            for (section, spot) in &file.sections {
                let is_read = file.faults.iter().all(|(fault, _)| fault != spot);
                if known.contains(&section.as_str()) || section.starts_with("X-") || !is_read {
                    continue;
                }
                let message = format!("a .{} file has no section [{section}]", kind.extension());
                let fault = Fault::error(code::UNKNOWN_FIELD, name, *spot, message);
                self.faults.push(guess(fault, section, &known));
            }
        }
    }

    fn keys(&mut self, kind: Kind) {
        let unit = self.unit;
        for (section, known) in [(kind.section(), kind.keys()), ("Quadlet", keys::QUADLET)] {
            for value in unit.entries(section) {
                let key = value.entry.key.as_str();
                if known.contains(&key) {
                    continue;
                }
                let message = format!("unknown key `{key}` in [{section}]");
                let fault = Fault::error(code::UNKNOWN_FIELD, value.file, value.entry.at, message);
                let newer = kind.newer().iter().find(|(newer, _)| *newer == key);
                self.faults.push(match newer {
                    Some((_, instead)) => fault.with_help(format!(
                        "Quadlet {} does not know it yet: write {instead}",
                        keys::VERSION
                    )),
                    None => guess(fault, key, known),
                });
            }
        }
    }

    /// Reports values that Quadlet cannot split, which it drops, and switches that are neither on nor off, which it reads as off.
    fn values(&mut self, kind: Kind) {
        let unit = self.unit;
        let section = kind.section();
        for value in unit.entries(section) {
            let key = value.entry.key.as_str();
            let pairs = PAIRS.contains(&key) || kind == Kind::Network && key == "Options";
            if pairs || ARGUMENTS.contains(&key) || key == "Exec" {
                match value.arguments() {
                    Ok(words) if pairs => {
                        for word in words.iter().filter(|word| !word.text.contains('=')) {
                            let message = format!(
                                "`{}` is not NAME=VALUE, so Quadlet drops it: quote a value with spaces, \"NAME=a b\"",
                                word.text
                            );
                            self.refuse(&value, value.spot_of(word), message);
                        }
                    }
                    Ok(_) => {}
                    Err(broken) => self.broken(&value, &broken),
                }
            } else if NAMES.contains(&key) {
                if let Err(broken) = value.names() {
                    self.broken(&value, &broken);
                }
            } else if SWITCHES.contains(&key) {
                self.switch(&value);
            }
        }
        for value in unit.entries("Quadlet") {
            self.switch(&value);
        }
    }

    pub(super) fn switch(&mut self, value: &Value<'_>) {
        let text = value.text.trim_matches('"');
        if !is_boolean(text) {
            let message = format!("`{text}` is not yes or no: Quadlet would read it as no");
            self.refuse(value, value.spot(), message);
        }
    }

    fn broken(&mut self, value: &Value<'_>, broken: &Broken) {
        let spot = value.entry.spot_at(broken.at, 1);
        self.refuse(value, spot, broken.message.as_str());
    }

    /// Reports that a required key is missing, unless there are errors already that may be the reason: a key that is
    /// misspelt or cannot be read.
    pub(super) fn missing(&mut self, section: &str, message: &str) {
        let unread = |fault: &Fault| {
            fault.spot.is_some() && [code::UNKNOWN_FIELD, code::UNIT_FILE].contains(&fault.code)
        };
        if !self.faults.iter().any(unread) {
            self.refuse_unit(section, message);
        }
    }

    pub(super) fn required(&mut self, kind: Kind, key: &str) {
        if self.unit.said(kind.section(), key).is_none() {
            self.missing(kind.section(), &format!("{key}= is missing"));
        }
    }

    /// Checks `[Install]`. Quadlet handles it itself, and supports less of it than systemd.
    fn install(&mut self) {
        let unit = self.unit;
        for value in unit.entries("Install") {
            let key = value.entry.key.as_str();
            let at = value.entry.at;
            match key {
                "Alias" => self.refuse(&value, at, NO_ALIAS),
                "DefaultInstance" if unit.is_template() => {
                    let text = value.text.trim();
                    if !is_unit_name(&format!("x@{text}.service")) {
                        let message = format!("`{text}` cannot be the name of an instance");
                        self.refuse(&value, value.spot(), message);
                    }
                }
                "Also" | "UpheldBy" => {
                    let message = format!("Quadlet does not act on {key}= in [Install]");
                    self.warn(code::NOT_ACTED_ON, &value, at, message);
                }
                key if !keys::INSTALL.contains(&key) => {
                    let message = format!("unknown key `{key}` in [Install]");
                    let fault = Fault::error(code::UNKNOWN_FIELD, value.file, at, message);
                    self.faults.push(guess(fault, key, keys::INSTALL));
                }
                "DefaultInstance" if !unit.is_template() => {
                    let message =
                        "DefaultInstance= is for templates, NAME@.KIND: it has no effect here";
                    self.warn(code::NOT_ACTED_ON, &value, at, message);
                }
                _ => {
                    if let Err(broken) = value.names() {
                        self.broken(&value, &broken);
                    }
                }
            }
        }
    }
}

/// Returns the name of a container as far as Quadlet knows it: what systemd fills in is still a `%` specifier.
pub(super) fn container_name(unit: &Unit<'_>) -> String {
    let service = unit.service();
    let service = service.strip_suffix(".service").unwrap_or(&service);
    let name = unit.said("Container", "ContainerName");
    let name = name.map_or(
        if unit.name.contains('@') {
            "systemd-%p_%i"
        } else {
            "systemd-%N"
        },
        |name| name.text,
    );
    name.replace("%N", service)
}

/// Suggests a similar name, if there is one.
pub(super) fn guess(fault: Fault, said: &str, known: &[&str]) -> Fault {
    let score =
        |known: &str| strsim::jaro_winkler(&known.to_ascii_lowercase(), &said.to_ascii_lowercase());
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    match best {
        Some(best) if score(best) > ALIKE => fault.with_help(format!("did you mean `{best}`?")),
        _ => fault,
    }
}
