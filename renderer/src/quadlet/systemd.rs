//! The rules of systemd's own units: timers and others next to Quadlet files, and the sections that Quadlet passes on.

use flotta_bundle::code;

use super::Fault;
use super::check::Checker;
use super::unit::Value;
use super::values;

/// Kinds of units that do nothing unless their section has at least one of these keys.
const NEEDED: [(&str, &str, &[&str]); 3] = [
    (
        "timer",
        "Timer",
        &[
            "OnCalendar",
            "OnActiveSec",
            "OnBootSec",
            "OnStartupSec",
            "OnUnitActiveSec",
            "OnUnitInactiveSec",
            "OnClockChange",
            "OnTimezoneChange",
        ],
    ),
    (
        "path",
        "Path",
        &[
            "PathExists",
            "PathExistsGlob",
            "PathChanged",
            "PathModified",
            "DirectoryNotEmpty",
        ],
    ),
    (
        "socket",
        "Socket",
        &[
            "ListenStream",
            "ListenDatagram",
            "ListenSequentialPacket",
            "ListenFIFO",
            "ListenSpecial",
            "ListenNetlink",
            "ListenMessageQueue",
            "ListenUSBFunction",
        ],
    ),
];

/// Keys of `[Unit]` whose values are units.
const UNITS: [&str; 15] = [
    "After",
    "Before",
    "BindsTo",
    "Conflicts",
    "OnFailure",
    "OnSuccess",
    "PartOf",
    "PropagatesReloadTo",
    "PropagatesStopTo",
    "ReloadPropagatedFrom",
    "Requires",
    "Requisite",
    "StopPropagatedFrom",
    "Upholds",
    "Wants",
];

impl Checker<'_, '_> {
    /// Checks a unit that systemd reads as it is.
    pub(super) fn systemd(&mut self) {
        let unit = self.unit;
        let (_, kind) = unit.name.rsplit_once('.').unwrap_or_default();
        let own = match kind {
            "service" => "Service",
            "timer" => "Timer",
            "socket" => "Socket",
            "path" => "Path",
            _ => "Target",
        };
        self.systemd_sections(kind, own);
        self.passed_through(&["Unit", "Install", own]);
        if let Some((_, section, keys)) = NEEDED.iter().find(|(of, ..)| *of == kind)
            && !keys.iter().any(|key| self.is_set(section, key))
        {
            let examples = keys.iter().take(3).map(|key| format!("{key}="));
            let examples: Vec<_> = examples.collect();
            self.missing(
                section,
                &format!("it needs one of {}, …", examples.join(", ")),
            );
        }
        if kind == "service" {
            self.plain_service();
        }
        self.installed();
        for section in ["Timer", "Path"] {
            if let Some(other) = unit.said(section, "Unit") {
                if other.text.contains('.') {
                    self.is_unit(&other, other.text);
                } else {
                    let name = other.text;
                    let message =
                        format!("`{name}` is not the name of a unit: is it {name}.service?");
                    self.refuse(&other, other.spot(), message);
                }
            }
        }
    }

    /// Whether a key is set; a switch must be on.
    fn is_set(&self, section: &str, key: &str) -> bool {
        let is_off = |value: &Value<'_>| values::is_switch(value.text) == Some(false);
        let values = self.unit.all(section, key);
        values.last().is_some_and(|value| !is_off(value))
    }

    fn systemd_sections(&mut self, kind: &str, own: &str) {
        let known = ["Unit", "Install", own];
        for (name, file) in &self.unit.files {
            for (section, spot) in &file.sections {
                let is_read = file.faults.iter().all(|(fault, _)| fault != spot);
                if known.contains(&section.as_str()) || section.starts_with("X-") || !is_read {
                    continue;
                }
                let message = format!("a .{kind} file has no section [{section}]");
                let fault = Fault::error(code::UNKNOWN_FIELD, name, *spot, message);
                self.faults
                    .push(super::check::guess(fault, section, &known));
            }
        }
    }

    /// Checks `[Install]`, which the agent applies: it must not affect units of others.
    fn installed(&mut self) {
        let unit = self.unit;
        for value in unit
            .entries("Install")
            .filter(|value| value.entry.key == "Alias")
        {
            self.refuse(&value, value.entry.at, super::check::NO_ALIAS);
        }
        for (value, word) in unit.names("Install", "Also") {
            let other = &word.text;
            if !self.set.units.values().any(|unit| unit.service() == *other) {
                let message = format!("`{other}` is not a unit of this workload");
                self.refuse(&value, value.spot_of(&word), message);
            }
        }
        for key in ["WantedBy", "RequiredBy", "UpheldBy"] {
            for (value, word) in unit.names("Install", key) {
                if !word.text.contains('.') {
                    let message = format!(
                        "`{}` is not the name of a unit: add its kind, such as .target",
                        word.text
                    );
                    self.refuse(&value, value.spot_of(&word), message);
                }
            }
        }
    }

    /// Checks a service that runs a program of the machine.
    fn plain_service(&mut self) {
        let unit = self.unit;
        let kind = unit
            .last("Service", "Type")
            .map_or("simple", |kind| kind.text);
        let is_oneshot = kind == "oneshot";
        let starts = unit.all("Service", "ExecStart");
        let remains = unit.said("Service", "RemainAfterExit");
        let remains = remains.is_some_and(|value| values::is_switch(value.text) == Some(true));
        let has_end = remains && !unit.all("Service", "ExecStop").is_empty()
            || unit.said("Unit", "SuccessAction").is_some();
        if starts.is_empty() && !has_end {
            self.missing("Service", "ExecStart= is missing");
        }
        if let Some(bus) = unit.last("Service", "Type").filter(|_| kind == "dbus")
            && unit.said("Service", "BusName").is_none()
        {
            self.refuse(&bus, bus.spot(), "Type=dbus needs BusName=");
        }
        if let Some(second) = starts.get(1)
            && !is_oneshot
        {
            let message = "systemd refuses more than one ExecStart= unless Type=oneshot";
            self.refuse(second, second.entry.at, message);
        }
        for value in starts {
            // characters before the path say how the program is run (systemd.service(5))
            let program = value.text.trim_start_matches(['@', '-', ':', '+', '!']);
            let program = program.split_whitespace().next().unwrap_or_default();
            let program = program.trim_matches(['"', '\'']);
            if program.contains('/') && !program.starts_with('/') && !program.starts_with('%') {
                let message =
                    format!("`{program}` is a relative path: systemd needs an absolute one");
                self.refuse(&value, value.spot(), message);
            }
        }
        self.restart(is_oneshot);
    }

    /// Checks sections that systemd reads: it ignores unknown keys and invalid values.
    pub(super) fn passed_through(&mut self, sections: &[&str]) {
        let unit = self.unit;
        for section in sections {
            let known = values::keys(section);
            for value in unit.entries(section) {
                let key = value.entry.key.as_str();
                if key.starts_with("X-") {
                    continue;
                }
                if !known.contains(&key) {
                    let message = format!("unknown key `{key}` in [{section}]: systemd ignores it");
                    let fault =
                        Fault::error(code::UNKNOWN_FIELD, value.file, value.entry.at, message);
                    self.faults.push(super::check::guess(fault, key, &known));
                } else if let Some(message) = values::fault(section, key, value.text) {
                    self.refuse(&value, value.spot(), message);
                }
            }
        }
        for key in UNITS {
            for (value, word) in unit.names("Unit", key) {
                let spot = value.spot_of(&word);
                self.is_unit_at(&value, spot, &word.text);
            }
        }
    }

    fn is_unit(&mut self, value: &Value<'_>, name: &str) {
        self.is_unit_at(value, value.spot(), name);
    }

    /// Reports the name of a Quadlet file in place of a unit's, because systemd knows only the unit.
    fn is_unit_at(&mut self, value: &Value<'_>, spot: super::file::Spot, name: &str) {
        let Some(kind) = super::keys::Kind::of(name) else {
            return;
        };
        let service = self.set.units.get(name).map(super::unit::Unit::service);
        let service = service.unwrap_or_else(|| {
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            format!("{stem}{}.service", kind.suffix())
        });
        let message = format!("`{name}` is not a unit of systemd: write {service}");
        self.refuse(value, spot, message);
    }
}
