//! `flotta lint` compared with the real Quadlet and systemd: each case of the corpus of the renderer's tests is given to the
//! generator of a device, and to `systemd-analyze verify`.

#[path = "../../renderer/tests/corpus/mod.rs"]
mod corpus;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use flotta_renderer::Severity;
use flotta_renderer::quadlet::file::Spot;
use flotta_renderer::quadlet::unit::Unit;
use flotta_renderer::quadlet::{Fault, Need, Set};

use crate::device::{Device, wait};
use crate::site::{EXITS, HELLO, Site, device};

/// A case of the corpus, and what the device says about it.
struct Case {
    name: String,
    files: BTreeMap<String, String>,
    /// Where its files are on the device.
    folder: String,
    /// The output of Quadlet's generator.
    generated: String,
    /// What systemd says about the units, those that Quadlet makes among them.
    verified: String,
}

/// Where Quadlet's generator leaves units of a case.
const MADE: &str = "/root/made";

/// Gives the cases to Quadlet and to systemd.
fn asked(device: &Device, corpus: Vec<(String, BTreeMap<String, String>)>) -> Vec<Case> {
    let mut script = String::from(
        "set -u\ngenerator=/usr/lib/systemd/system-generators/podman-system-generator\n",
    );
    for (at, (_, files)) in corpus.iter().enumerate() {
        let folder = format!("/root/quadlet/{at}");
        let set = Set::read(files);
        for name in set.files.keys() {
            // as in a manifest, where a link to a template has the template's content
            device.write(&format!("{folder}/{name}"), set.files[set.content(name)]);
        }
        let made = format!("{MADE}/{at}");
        let _ = writeln!(
            script,
            "export QUADLET_UNIT_DIRS={folder}; mkdir -p {folder} {made}; echo '=== '\n\
             $generator --dryrun 2>&1; $generator {made} {made} {made} >/dev/null 2>&1; echo '+++ '\n\
             export SYSTEMD_UNIT_PATH={folder}:{made}:"
        );
        for unit in set.units.values() {
            let folder = if unit.kind().is_some() {
                &made
            } else {
                &folder
            };
            let _ = writeln!(
                script,
                "systemd-analyze verify --man=no --recursive-errors=no '{folder}/{}' 2>&1",
                unit.service()
            );
        }
    }
    device.write("/root/quadlet.sh", &script);
    let all = String::from_utf8_lossy(&device.run(&["sh", "/root/quadlet.sh"]).stdout).into_owned();
    let said: Vec<_> = all.split("=== \n").skip(1).collect();
    assert_eq!(said.len(), corpus.len(), "{all}");
    let cases = said.into_iter().zip(corpus).enumerate();
    let case = |(at, (said, (name, files))): (usize, (&str, (String, _)))| {
        let (generated, verified) = said.split_once("+++ \n").expect("both");
        Case {
            name,
            files,
            folder: format!("/root/quadlet/{at}/"),
            generated: generated.to_owned(),
            verified: verified.to_owned(),
        }
    };
    cases.map(case).collect()
}

/// The errors that `lint` finds in a case.
fn errors(set: &Set<'_>) -> Vec<Fault> {
    let (mut faults, needs) = set.check();
    faults.extend(needs.iter().map(Need::fault));
    faults.retain(|fault| fault.severity == Severity::Error);
    faults
}

/// How often the device and `lint` agree.
#[derive(Debug, Default)]
struct Count {
    taken: usize,
    refused: usize,
    /// Refused by `lint` alone.
    stricter: usize,
}

impl Count {
    fn add(&mut self, is_taken: bool) {
        *(if is_taken {
            &mut self.stricter
        } else {
            &mut self.refused
        }) += 1;
    }
}

/// Compares what Quadlet makes of the files with what `lint` finds in them.
fn of_quadlet(case: &Case, set: &Set<'_>, errors: &[Fault], count: &mut Count) {
    let said = &case.generated;
    for unit in set.units.values().filter(|unit| unit.kind().is_some()) {
        let is_made = said.contains(&format!("---{}---", unit.service()));
        match (is_made, has_error(unit, errors)) {
            (true, false) => count.taken += 1,
            // a crashed Quadlet generates no unit at all
            (false, false) => assert!(
                said.contains("panic: ") && !errors.is_empty(),
                "{}: lint passes {}, and Quadlet does not make it: {said}",
                case.name,
                unit.name
            ),
            (_, true) => count.add(is_made),
        }
    }
}

fn has_error(unit: &Unit<'_>, errors: &[Fault]) -> bool {
    let of_unit = |file: &String| unit.files.iter().any(|(own, _)| own == file);
    errors.iter().any(|fault| of_unit(&fault.file))
}

/// Compares what systemd says about the units with what `lint` finds: a line that systemd ignores is an error at that line.
/// Returns what `lint` does not find.
fn of_systemd(case: &Case, set: &Set<'_>, errors: &[Fault], count: &mut Count) -> Vec<String> {
    let mut missed = Vec::new();
    let mut found = BTreeSet::new();
    for said in case.verified.lines() {
        // about the device, which lacks programs and units of the machine's owner
        let elsewhere = ["is not executable", "not loaded, socket cannot be started"];
        if elsewhere.iter().any(|text| said.contains(text)) {
            continue;
        }
        let at = said.strip_prefix(&case.folder).and_then(|rest| {
            let (file, rest) = rest.split_once(':')?;
            let (line, _) = rest.split_once(':')?;
            Some((file.to_owned(), line.parse::<usize>().ok()?))
        });
        let is_found = if let Some((file, line)) = at {
            found.insert((file.clone(), line));
            let is_there = |spot: &Spot| spot.line == line;
            let mut errors = errors.iter();
            errors.any(|fault| fault.file == file && fault.spot.as_ref().is_some_and(is_there))
        } else {
            let about = |unit: &&Unit<'_>| {
                let service = unit.service();
                said.starts_with(&format!("{service}: "))
                    || said.starts_with(&format!("Unit {service} "))
                    || said.contains(&format!("/{service}:")) && said.starts_with(MADE)
            };
            let unit = set.units.values().find(about);
            unit.is_none_or(|unit| has_error(unit, errors))
        };
        if !is_found {
            missed.push(format!("{}: {said}", case.name));
        }
    }
    for unit in set.units.values().filter(|unit| unit.kind().is_none()) {
        if !has_error(unit, errors) {
            count.taken += 1;
        }
        for fault in errors.iter().filter(|fault| fault.file == unit.name) {
            let line = fault.spot.map_or(0, |spot| spot.line);
            let is_refused = case.verified.contains(&format!("{}: ", unit.name));
            count.add(!is_refused && !found.contains(&(fault.file.clone(), line)));
        }
    }
    missed
}

/// Times that systemd does not read as `lint` does.
fn times(device: &Device) -> Vec<String> {
    let cases = include_str!("../../renderer/src/quadlet/time/tests.txt");
    device.write("/root/times", cases);
    let script = "grep -v '^#' /root/times | while read -r word kind text; do \
                  case $kind in span) verb=timespan ;; *) verb=calendar ;; esac; \
                  if systemd-analyze $verb -- \"$text\" >/dev/null 2>&1; then is=ok; else is=bad; fi; \
                  [ $is = $word ] || echo \"$kind $text: $is\"; done; echo asked";
    let said = device.exec(&["sh", "-c", script]);
    let mut said: Vec<_> = said.lines().map(str::to_owned).collect();
    assert_eq!(said.pop().as_deref(), Some("asked"));
    said
}

#[test]
fn quadlet_and_systemd_take_what_lint_passes_and_lint_finds_what_they_refuse() {
    let device = Device::create("quadlet-corpus");
    device.boot();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("renderer/tests/quadlet");
    let cases = asked(&device, corpus::cases(&corpus));
    let (mut quadlet, mut systemd) = (Count::default(), Count::default());
    let mut missed = times(&device);
    for case in &cases {
        let set = Set::read(&case.files);
        let errors = errors(&set);
        of_quadlet(case, &set, &errors, &mut quadlet);
        missed.extend(of_systemd(case, &set, &errors, &mut systemd));
    }
    assert!(missed.is_empty(), "lint does not find: {missed:#?}");
    println!("Quadlet: {quadlet:?}, systemd: {systemd:?}");
    let Count {
        taken,
        refused,
        stricter,
    } = quadlet;
    assert!(
        taken >= 60 && refused >= 60 && stricter >= 25,
        "{quadlet:?}"
    );
    let Count { taken, refused, .. } = systemd;
    assert!(taken >= 10 && refused >= 40, "{systemd:?}");
}

/// A workload of Quadlet files, on all devices.
fn workload(name: &str, files: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata:\n  name: {name}\n\
         spec:\n  type: quadlet\n  deviceSelector: {{}}\n  quadlet:\n"
    );
    for (name, content) in files {
        let _ = writeln!(text, "    {name}: |");
        for line in content.lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    text
}

/// A container that serves a file of its own, with additional files.
fn web(page: &str, mark: &str) -> String {
    let container = format!(
        "[Container]\nImage={HELLO}\nExec=8102 /site/page\nPublishPort=8102:8102\nVolume=./web.page:/site/page:ro\n\
         [Service]\nRestart=always\n[Install]\nWantedBy=multi-user.target"
    );
    let drop_in = format!("[Container]\nEnvironment=MARK={mark}");
    let files = [
        ("web.container", container.as_str()),
        ("web.container.d/10-mark.conf", &drop_in),
        ("web.page", page),
    ];
    workload("web", &files)
}

/// A job that ends, and the unit that starts it.
fn job(name: &str, install: &str) -> (String, String) {
    let text = format!("[Container]\nImage={EXITS}\nExec=0\n[Service]\nType=oneshot\n{install}");
    (format!("{name}.container"), text)
}

fn jobs() -> String {
    let timer = |when: &str| format!("[Timer]\n{when}\n[Install]\nWantedBy=timers.target");
    let mut files = vec![
        job("far", ""),
        job("soon", ""),
        job("once", "[Install]\nWantedBy=multi-user.target"),
    ];
    files.push(("far.timer".to_owned(), timer("OnCalendar=yearly")));
    files.push(("soon.timer".to_owned(), timer("OnActiveSec=1s")));
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    workload("jobs", &files)
}

fn template() -> String {
    let text = format!(
        "[Container]\nImage={HELLO}\nContainerName=page-%i\nExec=81%i /index.txt\nPublishPort=81%i:81%i\n\
         [Install]\nWantedBy=multi-user.target\nDefaultInstance=11"
    );
    let files = [
        ("page@.container", text.as_str()),
        ("page@12.container", "# as its template says"),
    ];
    workload("page", &files)
}

fn show(device: &Device, unit: &str, property: &str) -> String {
    device.exec(&["systemctl", "show", "--value", "-p", property, unit])
}

#[test]
fn timers_jobs_templates_drop_ins_and_plain_files_do_on_a_device_what_they_say() {
    let name = "quadlet-units";
    let site = Site::start(&[
        ("device.yaml", &device(name)),
        ("web.yaml", &web("page 0", "a")),
        ("jobs.yaml", &jobs()),
        ("page.yaml", &template()),
    ]);
    let device = site.join(name);
    site.in_sync(name);
    device.shows(8102, "page 0");

    // timers are waiting, and only they start their jobs
    for timer in ["far.timer", "soon.timer"] {
        assert_eq!(show(&device, timer, "UnitFileState"), "enabled", "{timer}");
        assert_eq!(show(&device, timer, "ActiveState"), "active", "{timer}");
    }
    wait("the timer has started its job", || {
        let result = show(&device, "soon.service", "ExecMainExitTimestamp");
        (!result.is_empty()).then_some(()).ok_or(result)
    });
    assert_eq!(show(&device, "far.service", "InvocationID"), "");
    let once = show(&device, "once.service", "InvocationID");
    assert_ne!(once, "", "it was started once");
    assert_eq!(show(&device, "once.service", "ActiveState"), "inactive");

    // instances of a template: the default one, and the one that has a file
    for instance in ["11", "12"] {
        let unit = format!("page@{instance}.service");
        assert_eq!(show(&device, &unit, "ActiveState"), "active", "{unit}");
        device.get(8100 + instance.parse::<u16>().expect("a number"), "/");
    }

    // a file next to a unit, and its drop-in, restart only that unit
    let before = device.containers();
    site.commit("page", &[("web.yaml", &web("page 1", "a"))]);
    device.shows(8102, "page 1");
    site.in_sync(name);
    let marked = device.containers();
    assert_ne!(marked["systemd-web"], before["systemd-web"]);
    assert_eq!(marked["page-11"], before["page-11"]);
    site.commit("mark", &[("web.yaml", &web("page 1", "b"))]);
    wait("the drop-in is in force", || {
        let inspect = device.run(&["podman", "inspect", "systemd-web"]);
        let inspect = String::from_utf8_lossy(&inspect.stdout).into_owned();
        inspect.contains("MARK=b").then_some(()).ok_or(inspect)
    });
    site.in_sync(name);
    assert_eq!(
        show(&device, "once.service", "InvocationID"),
        once,
        "not again"
    );
    assert_eq!(show(&device, "far.service", "InvocationID"), "");

    // automatically after a reboot
    device.reboot();
    device.shows(8102, "page 1");
    site.in_sync(name);
    assert_eq!(show(&device, "far.timer", "ActiveState"), "active");

    // everything is removed
    let nothing = [("web.yaml", ""), ("jobs.yaml", ""), ("page.yaml", "")];
    site.commit("gone", &nothing);
    let commit = site.git(&["rev-parse", "--short=7", "HEAD"]);
    site.event(&["Held"]);
    site.flotta(&["release", "allow", &commit]);
    wait("nothing of it is left", || {
        let find = ["find", "/etc/systemd/system", "/etc/containers/systemd"];
        let own = [
            "(", "-name", "*far*", "-o", "-name", "*soon*", "-o", "-name", "web*", "-o", "-name",
            "page*", ")",
        ];
        let left = device.exec(&[&find[..], &own].concat());
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left}\n{}\n{}", device.log(), site.said()))
    });
    site.in_sync(name);
    for unit in ["far.timer", "soon.timer", "web.service", "page@12.service"] {
        assert_eq!(show(&device, unit, "ActiveState"), "inactive", "{unit}");
        assert_eq!(show(&device, unit, "LoadState"), "not-found", "{unit}");
    }
    assert!(device.containers().is_empty());
}
