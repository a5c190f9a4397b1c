//! Which units systemd has from a set, and which of them are started: those that are installed (`[Install]`), and those that
//! are started together with them.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::Wanted;
use flotta_bundle::path::is_unit_name;

use super::Set;
use super::keys::Kind;
use super::names;
use super::unit::Unit;

/// The units that a machine starts when it boots.
const BOOT: [&str; 17] = [
    "basic.target",
    "default.target",
    "getty.target",
    "graphical.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "nss-lookup.target",
    "paths.target",
    "remote-fs.target",
    "slices.target",
    "sockets.target",
    "sysinit.target",
    "time-sync.target",
    "timers.target",
];

/// Keys of `[Unit]` that name units which are started together with the unit.
const BRINGS: [&str; 4] = ["Wants", "Requires", "BindsTo", "Upholds"];

/// A unit of systemd: made from a file, or an instance of a template.
#[derive(Debug, Clone)]
pub struct Service<'s, 'a> {
    /// Its name: `web.service`, `model@small.service`.
    pub name: String,
    /// The unit file that it is made from.
    pub unit: &'s Unit<'a>,
    /// The state that it should have.
    pub wanted: Wanted,
    /// Whether it becomes inactive when its work is done.
    pub ends: bool,
}

/// Returns the units of a set, sorted by name. A template itself is not one of them, but its instances are: those that have a
/// file, the one that `DefaultInstance=` names, and those that other units of the set name.
pub fn services<'s, 'a>(set: &'s Set<'a>) -> Vec<Service<'s, 'a>> {
    let mut found: BTreeMap<String, &'s Unit<'a>> = BTreeMap::new();
    let mut started = BTreeSet::new();
    for unit in set.units.values().filter(|unit| !unit.is_template()) {
        found.insert(unit.service(), unit);
        if is_installed(unit) {
            started.insert(unit.service());
        }
    }
    let named: BTreeSet<String> = set.units.values().flat_map(named).collect();
    for template in set.units.values().filter(|unit| unit.is_template()) {
        let service = template.service();
        let instance = |instance: &str| service.replacen("@.", &format!("@{instance}."), 1);
        let default = template.said("Install", "DefaultInstance");
        let default = default.map(|value| instance(value.text));
        if let Some(default) = default.filter(|name| is_unit_name(name)) {
            if is_installed(template) {
                started.insert(default.clone());
            }
            found.entry(default).or_insert(template);
        }
        for name in &named {
            let of = names::template(name).filter(|(_, instance)| !instance.is_empty());
            if of.is_some_and(|(template, _)| template == service) && is_unit_name(name) {
                found.entry(name.clone()).or_insert(template);
            }
        }
    }
    // a timer, path or socket that names no unit starts the service with its own name
    let implied: Vec<String> = found.keys().filter_map(|name| implied(name)).collect();
    for name in implied {
        let template = names::template(&name).filter(|(_, instance)| !instance.is_empty());
        let template = template.and_then(|(template, _)| {
            let mut templates = set.units.values().filter(|unit| unit.is_template());
            templates.find(|unit| unit.service() == template)
        });
        if let Some(template) = template {
            found.entry(name).or_insert(template);
        }
    }
    let started = with_what_they_bring(set, &found, started);
    let services = found.into_iter().map(|(name, unit)| {
        let ends = ends_by_itself(set, unit, &name);
        let wanted = match started.contains(&name) {
            false => Wanted::Loaded,
            true if ends => Wanted::Once,
            true => Wanted::Active,
        };
        Service {
            name,
            unit,
            wanted,
            ends,
        }
    });
    services.collect()
}

/// Returns the service that a timer, path or socket starts if it names no unit.
fn implied(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    let starts = ["timer", "path", "socket"].contains(&kind);
    starts.then(|| format!("{stem}.service"))
}

/// Returns the units that start this one according to `[Install]`.
fn installed_in(unit: &Unit<'_>) -> Vec<String> {
    let mut keys = vec!["WantedBy", "RequiredBy"];
    if unit.kind().is_none() {
        // Quadlet does not act on this key
        keys.push("UpheldBy");
    }
    let words = keys.iter().flat_map(|key| unit.names("Install", key));
    words.map(|(_, word)| word.text).collect()
}

fn is_installed(unit: &Unit<'_>) -> bool {
    installed_in(unit)
        .iter()
        .any(|target| BOOT.contains(&target.as_str()))
}

/// Returns all units that a unit names.
fn named(unit: &Unit<'_>) -> Vec<String> {
    let in_unit = unit
        .entries("Unit")
        .map(|value| value.entry.key.clone())
        .collect::<BTreeSet<_>>();
    let mut named: Vec<String> = in_unit
        .iter()
        .flat_map(|key| unit.names("Unit", key))
        .map(|(_, word)| word.text)
        .collect();
    for section in ["Timer", "Path"] {
        named.extend(
            unit.said(section, "Unit")
                .map(|value| value.text.to_owned()),
        );
    }
    named.extend(
        unit.said("Socket", "Service")
            .map(|value| value.text.to_owned()),
    );
    named
}

/// Returns the units that are started together with a unit, because of what its own file says.
fn brings(set: &Set<'_>, unit: &Unit<'_>) -> Vec<String> {
    let mut brings: Vec<String> = BRINGS
        .iter()
        .flat_map(|key| unit.names("Unit", key))
        .map(|(_, word)| word.text)
        .collect();
    let service = |name: &str| set.units.get(name).map(Unit::service);
    match unit.kind() {
        Some(Kind::Container) => {
            let pod = unit.said("Container", "Pod");
            brings.extend(pod.and_then(|pod| service(pod.text)));
            for network in unit.all("Container", "Network") {
                if Kind::of(network.text) == Some(Kind::Container) {
                    brings.extend(service(network.text));
                }
            }
        }
        Some(Kind::Pod) => {
            let members = set.units.values().filter(|member| {
                let pod = member.said("Container", "Pod");
                pod.is_some_and(|pod| pod.text == unit.name)
                    && member.is_on("Container", "StartWithPod") != Some(false)
            });
            brings.extend(members.map(Unit::service));
        }
        _ => {}
    }
    brings
}

/// Returns all units that are started if these are: also those that they start, and those that are installed in one of them.
fn with_what_they_bring(
    set: &Set<'_>,
    units: &BTreeMap<String, &Unit<'_>>,
    started: BTreeSet<String>,
) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open: Vec<String> = started.into_iter().collect();
    while let Some(name) = open.pop() {
        let Some(unit) = units.get(&name) else {
            continue;
        };
        if !all.insert(name.clone()) {
            continue;
        }
        let installed = units
            .iter()
            .filter(|(_, unit)| installed_in(unit).contains(&name));
        open.extend(installed.map(|(other, _)| other.clone()));
        // volumes, networks and images do not run: systemd starts their units when a container needs them
        let runs = |other: &String| {
            units.get(other).is_some_and(|unit| {
                matches!(
                    unit.kind(),
                    None | Some(Kind::Container | Kind::Pod | Kind::Kube)
                )
            })
        };
        open.extend(brings(set, unit).into_iter().filter(runs));
    }
    all
}

/// Whether a unit becomes inactive when its work is done.
fn ends_by_itself(set: &Set<'_>, unit: &Unit<'_>, service: &str) -> bool {
    if service
        .rsplit_once('.')
        .is_some_and(|(_, kind)| kind == "timer")
    {
        return unit.is_on("Timer", "RemainAfterElapse") == Some(false);
    }
    // systemd also reads the drop-ins of the service that Quadlet makes
    let mut unit = unit.clone();
    if unit.kind().is_some() {
        let drop_ins = set.drop_ins(service).into_iter();
        unit.files
            .extend(drop_ins.map(|name| (name, super::file::parse(set.files[name]))));
    }
    let said = unit.last("Service", "Type");
    let (is_oneshot, remains) = match unit.kind() {
        None if !unit.name.ends_with(".service") => return false,
        None | Some(Kind::Container | Kind::Kube) => {
            (said.is_some_and(|kind| kind.text == "oneshot"), false)
        }
        Some(Kind::Pod) => (false, false),
        Some(Kind::Build) => (said.is_none_or(|kind| kind.text == "oneshot"), false),
        Some(Kind::Volume | Kind::Network | Kind::Image) => {
            (said.is_none_or(|kind| kind.text == "oneshot"), true)
        }
    };
    let remains = unit
        .last("Service", "RemainAfterExit")
        .map_or(remains, |value| {
            super::unit::is_true(value.text) || ["y", "t"].contains(&value.text)
        });
    is_oneshot && !remains
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the units that files result in. A file is a name and its content.
    fn wanted(files: &[(&str, &str)]) -> Vec<(String, Wanted)> {
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let set = Set::read(&files);
        let services = services(&set);
        services
            .into_iter()
            .map(|service| (service.name, service.wanted))
            .collect()
    }

    fn is(name: &str, wanted: Wanted) -> (String, Wanted) {
        (name.to_owned(), wanted)
    }

    const IMAGE: &str = "[Container]\nImage=quay.io/example/app:1\n";
    const BOOTED: &str = "[Install]\nWantedBy=multi-user.target\n";

    #[test]
    fn units_are_started_as_install_says() {
        let installed = format!("{IMAGE}{BOOTED}");
        let by_another = format!("{IMAGE}[Install]\nWantedBy=docker.service shutdown.target\n");
        let once = format!("{installed}[Service]\nType=oneshot\n");
        let stays = format!("{once}RemainAfterExit=yes\n");
        let found = wanted(&[
            ("a.container", &installed),
            ("b.container", IMAGE),
            ("c.container", &by_another),
            ("d.container", &once),
            ("e.container", &stays),
            ("f.volume", "[Volume]\n"),
            (
                "g.network",
                "[Network]\n[Install]\nWantedBy=default.target\n",
            ),
        ]);
        let expected = [
            is("a.service", Wanted::Active),
            is("b.service", Wanted::Loaded),
            is("c.service", Wanted::Loaded),
            is("d.service", Wanted::Once),
            is("e.service", Wanted::Active),
            is("f-volume.service", Wanted::Loaded),
            is("g-network.service", Wanted::Active),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_timer_starts_its_job_and_nothing_else_does() {
        let job = format!("{IMAGE}[Service]\nType=oneshot\n");
        let timer = "[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n";
        let found = wanted(&[("job.container", &job), ("job.timer", timer)]);
        let expected = [
            is("job.service", Wanted::Loaded),
            is("job.timer", Wanted::Active),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_pod_starts_its_containers_and_they_start_the_pod() {
        let member = format!("{IMAGE}Pod=shop.pod\n");
        let installed = format!("{member}{BOOTED}");
        let later = format!("{member}StartWithPod=no\n");
        let found = wanted(&[
            ("shop.pod", "[Pod]\n"),
            ("a.container", &installed),
            ("b.container", &member),
            ("c.container", &later),
        ]);
        let expected = [
            is("a.service", Wanted::Active),
            is("b.service", Wanted::Active),
            is("c.service", Wanted::Loaded),
            is("shop-pod.service", Wanted::Active),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_unit_starts_what_it_wants_and_what_is_installed_in_it() {
        let target = format!("[Unit]\nWants=a.service\n{BOOTED}");
        let in_target = format!("{IMAGE}[Install]\nWantedBy=site.target\n");
        let files: [(&str, &str); 4] = [
            ("a.container", IMAGE),
            ("b.container", &in_target),
            ("c.container", IMAGE),
            ("site.target", &target),
        ];
        let expected = [
            is("a.service", Wanted::Active),
            is("b.service", Wanted::Active),
            is("c.service", Wanted::Loaded),
            is("site.target", Wanted::Active),
        ];
        assert_eq!(wanted(&files), expected);
    }

    #[test]
    fn only_the_instances_of_a_template_are_units() {
        let template = format!("{IMAGE}{BOOTED}DefaultInstance=small\n");
        let user = format!("[Unit]\nWants=model@named.service\n{IMAGE}");
        let found = wanted(&[
            ("model@.container", &template),
            ("model@large.container", ""),
            ("user.container", &user),
        ]);
        let expected = [
            is("model@large.service", Wanted::Active),
            is("model@named.service", Wanted::Loaded),
            is("model@small.service", Wanted::Active),
            is("user.service", Wanted::Loaded),
        ];
        assert_eq!(found, expected);
    }
}
