//! The rules of each kind of Quadlet file.

use flotta_bundle::code;

use super::check::Checker;
use super::keys::Kind;
use super::ports;
use super::unit::Value;
use super::values;

/// The values that systemd accepts for `Restart=`.
const RESTARTS: &[&str] = &[
    "no",
    "always",
    "on-success",
    "on-failure",
    "on-abnormal",
    "on-abort",
    "on-watchdog",
];

impl Checker<'_, '_> {
    pub(super) fn container(&mut self) {
        let unit = self.unit;
        let section = "Container";
        let image = unit.said(section, "Image");
        match unit.said(section, "Rootfs") {
            None if image.is_none() => self.missing(section, "Image= or Rootfs= is missing"),
            Some(rootfs) if image.is_some() => {
                let message = "Image= and Rootfs= exclude each other";
                self.refuse(&rootfs, rootfs.entry.at, message);
            }
            _ => {}
        }
        self.image(section);
        self.service(true);
        self.networks(section);
        self.user();
        self.mappings(section, true);
        self.volumes(section);
        for port in unit.all(section, "ExposeHostPort") {
            let text = port.text.trim();
            let bare = text.strip_suffix("/udp").or(text.strip_suffix("/tcp"));
            if ports::range(bare.unwrap_or(text)).is_err() {
                let message =
                    format!("`{text}` is not a port: PORT or FIRST-LAST, with /tcp or /udp");
                self.refuse(&port, port.spot(), message);
            }
        }
        self.published(section);
        for (value, path) in unit.arguments(section, "EnvironmentFile") {
            self.need_file(&value, value.spot_of(&path), &path.text);
        }
        self.mounts();
        self.pod();
        if let Some(notify) = unit.said(section, "Notify")
            && !notify.text.eq_ignore_ascii_case("healthy")
        {
            self.switch(&notify);
        }
    }

    /// Checks `[Service]` of a unit whose process is Podman. `whole` is true for kinds whose `Type=` may be chosen.
    fn service(&mut self, whole: bool) {
        let unit = self.unit;
        // values that systemd does not know are reported already
        let is_known =
            |value: &Value<'_>| values::fault("Service", &value.entry.key, value.text).is_none();
        if let Some(mode) = unit.last("Service", "KillMode")
            && whole
            && is_known(&mode)
            && !["mixed", "control-group"].contains(&mode.text)
        {
            let message = format!("KillMode=`{}` is not mixed or control-group", mode.text);
            self.refuse(&mode, mode.spot(), message);
        }
        let kind = unit.last("Service", "Type");
        if let Some(kind) = kind
            && whole
            && is_known(&kind)
            && !["notify", "oneshot"].contains(&kind.text)
        {
            let message = format!("Type=`{}` is not notify or oneshot", kind.text);
            self.refuse(&kind, kind.spot(), message);
        }
        let is_oneshot = kind.is_some_and(|kind| kind.text == "oneshot");
        if let Some(start) = unit.all("Service", "ExecStart").first()
            && !is_oneshot
        {
            let message = "Quadlet makes ExecStart= itself, and systemd refuses a unit with two of them: use ExecStartPre= or Exec= in [Container]";
            self.refuse(start, start.entry.at, message);
        }
        self.restart(is_oneshot);
    }

    pub(super) fn restart(&mut self, is_oneshot: bool) {
        let unit = self.unit;
        let Some(restart) = unit.said("Service", "Restart") else {
            return;
        };
        if !RESTARTS.contains(&restart.text) {
            let message = format!(
                "Restart=`{}` is not one of {}",
                restart.text,
                RESTARTS.join(", ")
            );
            self.refuse(&restart, restart.spot(), message);
        } else if is_oneshot && ["always", "on-success"].contains(&restart.text) {
            let message = format!("systemd refuses Restart={} with Type=oneshot", restart.text);
            self.refuse(&restart, restart.spot(), message);
        }
    }

    fn user(&mut self) {
        let unit = self.unit;
        if let Some(group) = unit.said("Container", "Group")
            && unit.said("Container", "User").is_none()
        {
            self.refuse(&group, group.entry.at, "Group= needs User=");
        }
    }

    /// Checks user namespaces: the deprecated keys (`RemapUsers=`) and those that replace them (`UserNS=`).
    fn mappings(&mut self, section: &str, by_hand: bool) {
        let unit = self.unit;
        let said = ["UserNS", "SubUIDMap", "SubGIDMap"]
            .iter()
            .any(|key| unit.said(section, key).is_some());
        let listed = ["UIDMap", "GIDMap"]
            .iter()
            .any(|key| !unit.names(section, key).is_empty());
        let users = unit.last(section, "RemapUsers");
        let old = ["RemapUid", "RemapGid"].map(|key| unit.last(section, key));
        if said || listed {
            for value in old.iter().chain([&users]).flatten() {
                let message = format!(
                    "{}= is deprecated, and cannot be used together with UserNS=, UIDMap= and the like",
                    value.entry.key
                );
                self.refuse(value, value.entry.at, message);
            }
            return;
        }
        let maps = ["RemapUid", "RemapGid"].map(|key| (key, unit.names(section, key)));
        match users.map_or("", |users| users.entry.value.as_str()) {
            "" => {
                for (key, map) in &maps {
                    if let Some((value, _)) = map.first() {
                        let message = format!("{key}= needs RemapUsers=");
                        self.refuse(value, value.entry.at, message);
                    }
                }
            }
            "keep-id" => {
                for (key, map) in &maps {
                    if let Some((value, word)) = map.get(1) {
                        let message = format!("RemapUsers=keep-id allows only one {key}=");
                        self.refuse(value, value.spot_of(word), message);
                    }
                }
            }
            "auto" => {}
            "manual" if by_hand => {}
            other => {
                if let Some(users) = users {
                    let message = format!("RemapUsers=`{other}` is not supported here");
                    self.refuse(&users, users.spot(), message);
                }
            }
        }
    }

    fn published(&mut self, section: &str) {
        let unit = self.unit;
        for value in unit.all(section, "PublishPort") {
            // what systemd fills in is not known here
            if value.text.contains(['%', '$']) {
                continue;
            }
            if let Err(why) = ports::parse(value.text) {
                self.refuse(
                    &value,
                    value.spot(),
                    format!("{why}: [[ADDRESS:][PORT]:]CONTAINERPORT[/PROTOCOL]"),
                );
            }
        }
    }

    fn mounts(&mut self) {
        let unit = self.unit;
        for (value, word) in unit.arguments("Container", "Mount") {
            let spot = value.spot_of(&word);
            let tokens: Vec<&str> = word.text.split(',').collect();
            let kind = tokens.iter().find_map(|token| {
                token
                    .strip_prefix("type=")
                    .filter(|kind| !kind.contains('='))
            });
            let Some(kind) = kind else {
                self.refuse(
                    &value,
                    spot,
                    "type= is missing: type=bind,source=…,destination=…",
                );
                continue;
            };
            if !["volume", "bind", "glob", "image"].contains(&kind) {
                continue;
            }
            let source = tokens.iter().rev().find_map(|token| {
                let (key, source) = token.split_once('=').unwrap_or((token, ""));
                ["source", "src"].contains(&key).then_some(source)
            });
            match source {
                // Quadlet 5.4 exits here, and makes no units at all
                None | Some("") => {
                    let message = format!("source= is missing in a mount of type {kind}");
                    self.refuse(&value, spot, message);
                }
                Some(source) => {
                    let source = source.trim_matches('"');
                    self.storage(&value, spot, source, true);
                }
            }
        }
    }

    pub(super) fn pod_unit(&mut self) {
        self.mappings("Pod", true);
        self.published("Pod");
        self.networks("Pod");
        self.volumes("Pod");
        self.service(false);
    }

    pub(super) fn volume(&mut self) {
        let unit = self.unit;
        let section = "Volume";
        if unit
            .last(section, "Driver")
            .is_some_and(|driver| driver.text == "image")
        {
            if unit.last(section, "Image").is_none() {
                self.missing(section, "Image= is missing: Driver=image needs it");
            }
            self.image(section);
            return;
        }
        for key in ["User", "Group"] {
            if let Some(id) = unit.last(section, key)
                && !is_number(id.text)
            {
                let message = format!(
                    "{key}=`{}` is not a number: Quadlet would read it as 0",
                    id.text
                );
                self.refuse(&id, id.spot(), message);
            }
        }
        if unit.said(section, "Device").is_none() {
            for key in ["Type", "Options"] {
                if let Some(value) = unit.said(section, key) {
                    self.refuse(&value, value.entry.at, format!("{key}= needs Device="));
                }
            }
        }
    }

    pub(super) fn network(&mut self) {
        let unit = self.unit;
        let all = |key| unit.all("Network", key);
        let subnets = all("Subnet").len();
        for key in ["Gateway", "IPRange"] {
            if let Some(value) = all(key).get(subnets) {
                let message = if subnets == 0 {
                    format!("{key}= needs Subnet=")
                } else {
                    format!("there are more {key}= than Subnet=: each belongs to one of them")
                };
                self.refuse(value, value.entry.at, message);
            }
        }
    }

    pub(super) fn kube(&mut self) {
        let unit = self.unit;
        let section = "Kube";
        self.required(Kind::Kube, "Yaml");
        if let Some(yaml) = unit.said(section, "Yaml") {
            self.need_file(&yaml, yaml.spot(), yaml.text);
        }
        self.service(true);
        self.mappings(section, false);
        self.networks(section);
        for (value, path) in unit.names(section, "ConfigMap") {
            self.need_file(&value, value.spot_of(&path), &path.text);
        }
        self.published(section);
        self.working_directory(section);
    }

    pub(super) fn build(&mut self) {
        let unit = self.unit;
        let section = "Build";
        // the first tag is the name of the image, exactly as it is written
        if unit.all(section, "ImageTag").is_empty() {
            self.missing(section, "ImageTag= is missing");
        }
        self.networks(section);
        self.volumes(section);
        self.working_directory(section);
        let file = unit.said(section, "File");
        let service = unit.said("Service", "WorkingDirectory");
        let context = unit.said(section, "SetWorkingDirectory");
        let is_url = |text: &str| {
            text.starts_with("http") || text.starts_with("git://") || text.contains("github.com/")
        };
        match (file, context) {
            (None, None) if service.is_none() => {
                self.missing(section, "File= or SetWorkingDirectory= is missing");
            }
            (Some(file), None)
                if service.is_none() && !file.text.starts_with('/') && !is_url(file.text) =>
            {
                let message =
                    "a relative path needs SetWorkingDirectory=, `unit` for the unit's folder";
                self.refuse(&file, file.spot(), message);
            }
            (Some(file), Some(context)) => {
                let here = ["unit", "file"]
                    .iter()
                    .any(|word| context.text.eq_ignore_ascii_case(word));
                if here && service.is_none() && !is_url(file.text) {
                    self.need_file(&file, file.spot(), file.text);
                }
            }
            (None, Some(context)) if context.text.eq_ignore_ascii_case("unit") => {
                let names = ["Containerfile", "Dockerfile"];
                if service.is_none() && !names.iter().any(|name| self.set.has(name)) {
                    let message = "there is no Containerfile next to the unit, and no File=";
                    self.warn(code::MISSING_REFERENCE, &context, context.spot(), message);
                }
            }
            _ => {}
        }
    }

    fn working_directory(&mut self, section: &str) {
        let unit = self.unit;
        let Some(value) = unit.said(section, "SetWorkingDirectory") else {
            return;
        };
        let (kube, build) = (section == "Kube", section == "Build");
        let message = match value.text.to_ascii_lowercase().as_str() {
            "yaml" if !kube => "SetWorkingDirectory=yaml is for .kube files".to_owned(),
            "file" if !build => "SetWorkingDirectory=file is for .build files".to_owned(),
            "file" if unit.last(section, "File").is_none() => {
                "SetWorkingDirectory=file needs File=".to_owned()
            }
            "yaml" | "file" | "unit" => return,
            _ if build => return,
            _ => format!("SetWorkingDirectory=`{}` is not yaml or unit", value.text),
        };
        self.refuse(&value, value.spot(), message);
    }
}

fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((text, if text.starts_with('0') { 8 } else { 10 }), |hex| {
        (hex, 16)
    });
    u32::from_str_radix(digits, radix).is_ok() && !digits.starts_with('+')
}
