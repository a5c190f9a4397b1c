//! `flotta lint` compared with the real Quadlet: each case of the corpus of the renderer's tests is given to the generator of a
//! device.

#[path = "../../renderer/tests/corpus/mod.rs"]
mod corpus;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use flotta_renderer::Severity;
use flotta_renderer::quadlet::{Fault, Need, Set};

use crate::device::{Device, wait};
use crate::site::{EXITS, HELLO, Site, device};

/// The generator's output, by case.
fn generated(
    device: &Device,
    cases: &[(String, BTreeMap<String, String>)],
) -> BTreeMap<String, String> {
    let mut script = String::from("set -u\n");
    for (at, (_, files)) in cases.iter().enumerate() {
        let folder = format!("/root/quadlet/{at}");
        let set = Set::read(files);
        for name in set.files.keys() {
            // as in a manifest, where a link to a template has the template's content
            device.write(&format!("{folder}/{name}"), set.files[set.content(name)]);
        }
        let _ = writeln!(
            script,
            "mkdir -p {folder}; echo '=== {at}'; QUADLET_UNIT_DIRS={folder} /usr/lib/systemd/system-generators/podman-system-generator --dryrun 2>&1"
        );
    }
    device.write("/root/quadlet.sh", &script);
    let all = String::from_utf8_lossy(&device.run(&["sh", "/root/quadlet.sh"]).stdout).into_owned();
    let parts = all.split("=== ").skip(1).map(|part| {
        let (at, said) = part.split_once('\n').unwrap_or((part, ""));
        let at: usize = at.parse().expect("a number");
        (cases[at].0.clone(), said.to_owned())
    });
    parts.collect()
}

#[test]
fn quadlet_takes_what_lint_passes_and_lint_finds_what_quadlet_refuses() {
    let device = Device::create("quadlet-corpus");
    device.boot();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("renderer/tests/quadlet");
    let cases = corpus::cases(&corpus);
    let generated = generated(&device, &cases);
    let (mut taken, mut refused, mut stricter) = (0, 0, 0);
    for (name, files) in &cases {
        let said = &generated[name];
        let set = Set::read(files);
        let (faults, needs) = set.check();
        let needs = needs.iter().map(Need::fault);
        let faults: Vec<_> = faults.into_iter().chain(needs).collect();
        assert_eq!(
            faults.is_empty(),
            name.starts_with("good/"),
            "{name}: {faults:?}"
        );
        let is_error = |fault: &&Fault| fault.severity == Severity::Error;
        let errors: Vec<_> = faults.iter().filter(is_error).collect();
        for unit in set.units.values().filter(|unit| unit.kind().is_some()) {
            let is_made = said.contains(&format!("---{}---", unit.service()));
            let of_unit = |file: &String| unit.files.iter().any(|(own, _)| own == file);
            let is_found = errors.iter().any(|fault| of_unit(&fault.file));
            match (is_made, is_found) {
                (true, false) => taken += 1,
                (false, true) => refused += 1,
                (true, true) => stricter += 1,
                // a crashed Quadlet generates no unit at all
                (false, false) => assert!(
                    said.contains("panic: ") && !errors.is_empty(),
                    "{name}: lint passes {}, and Quadlet does not make it: {said}",
                    unit.name
                ),
            }
        }
    }
    println!("{taken} taken, {refused} refused by both, {stricter} by lint alone");
    assert!(
        taken >= 60 && refused >= 60 && stricter >= 25,
        "{taken} {refused} {stricter}"
    );
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
