mod any;
mod install;
mod owners;

use super::*;
use crate::backend::BackendError;
use crate::backend::Files as _;
use crate::backend::fake::bundle::{Bundle, Workload, file, path};
use crate::backend::fake::{Definition, World};
use crate::backend::files::Disk;

/// A machine with an applied bundle, and its ledger.
fn settled(bundle: &Bundle) -> (Observed, Owned) {
    let (mut observed, mut owned) = (Observed::default(), Owned::default());
    let Manifest { files, units, .. } = &bundle.manifest;
    for file in files {
        owned.files.insert(file.path.clone(), file.object().clone());
        let found = Found::File {
            digest: file.digest,
            fits: true,
        };
        observed.files.insert(file.path.clone(), found);
    }
    for unit in units {
        let known = OwnedUnit {
            workload: unit.workload.clone(),
            inputs: inputs(unit, files),
            due: None,
        };
        owned.units.insert(unit.name.clone(), known);
        let source = unit.restart_on.last().map(ToString::to_string);
        observed
            .units
            .insert(unit.name.clone(), up(&source.unwrap_or_default()));
    }
    (observed, owned)
}

fn up(source: &str) -> UnitState {
    UnitState {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        source: source.to_owned(),
        invocation: "a".to_owned(),
        restart: "always".to_owned(),
        ..UnitState::default()
    }
}

fn unknown() -> UnitState {
    UnitState {
        load: "not-found".to_owned(),
        active: "inactive".to_owned(),
        ..UnitState::default()
    }
}

/// The machine with `from` applied, observed for `to`.
fn towards(from: &Bundle, to: &Bundle) -> (Observed, Owned) {
    let (mut observed, owned) = settled(from);
    let wanted = |path: &DevicePath| to.manifest.files.iter().any(|file| file.path == *path);
    observed.leaving = owned
        .files
        .keys()
        .filter(|path| !wanted(path))
        .cloned()
        .collect();
    observed.files.retain(|path, _| wanted(path));
    for file in &to.manifest.files {
        observed
            .files
            .entry(file.path.clone())
            .or_insert(Found::Absent);
    }
    for unit in &to.manifest.units {
        observed
            .units
            .entry(unit.name.clone())
            .or_insert_with(unknown);
    }
    (observed, owned)
}

fn short(plan: &Plan) -> Vec<String> {
    let name = |path: &DevicePath| path.file_name().to_owned();
    let words = plan.steps.iter().map(|step| match step {
        Step::Begin => "begin".to_owned(),
        Step::Stop(unit) => format!("stop {unit}"),
        Step::StopInstances(path) => format!("stop instances of {}", name(path)),
        Step::Write(file) => format!("write {}", name(&file.path)),
        Step::Remove(path) => format!("remove {}", name(path)),
        Step::Enable(unit) => format!("enable {unit}"),
        Step::Disable(unit) => format!("disable {unit}"),
        Step::Reload => "reload".to_owned(),
        Step::Reloaded => "reloaded".to_owned(),
        Step::ResetFailed(unit) => format!("reset {unit}"),
        Step::Job(Verb::Restart, unit) => format!("restart {unit}"),
        Step::Job(_, unit) => format!("start {unit}"),
        Step::Sweep(workload) => format!("sweep {workload}"),
        Step::Finish => "finish".to_owned(),
    });
    words.collect()
}

/// Plans `to` on the machine with `from` applied, after a change to it.
fn steps(
    from: &[Workload],
    to: &[Workload],
    change: impl FnOnce(&mut Observed, &mut Owned),
) -> (Vec<String>, Vec<String>) {
    let (from, to) = (Bundle::of(from), Bundle::of(to));
    let (mut observed, mut owned) = towards(&from, &to);
    change(&mut observed, &mut owned);
    let plan = plan(&to.manifest, &observed, &owned, &BTreeMap::new());
    let held = plan.held.iter();
    let held = held.map(|(name, problem)| format!("{name} {}", problem.code));
    (short(&plan), held.collect())
}

const NONE: [&str; 0] = [];

fn web() -> Workload {
    Workload::new("web").config("greeting", "hello")
}

fn container() -> DevicePath {
    path("/etc/containers/systemd/web.container")
}

fn set(observed: &mut Observed, change: impl FnOnce(&mut UnitState)) {
    change(observed.units.get_mut("web.service").expect("it is there"));
}

#[test]
fn nothing_to_do() {
    let (steps, held) = steps(&[web()], &[web()], |_, _| ());
    assert_eq!((steps, held), (vec![], vec![]));
}

#[test]
fn new() {
    let (steps, held) = steps(&[], &[web()], |_, _| ());
    let expected = [
        "begin",
        "write web.container",
        "write greeting",
        "reload",
        "reloaded",
        "start web.service",
        "finish",
    ];
    assert_eq!(steps, expected);
    assert_eq!(held, NONE);
}

#[test]
fn a_changed_unit_file_is_read_again_and_a_changed_mounted_file_is_not() {
    let (steps_, _) = steps(&[web()], &[web().says("Environment=A=b")], |_, _| ());
    let expected = [
        "begin",
        "write web.container",
        "reload",
        "reloaded",
        "restart web.service",
        "finish",
    ];
    assert_eq!(steps_, expected);
    let (steps, _) = steps(&[web()], &[web().config("greeting", "hi")], |_, _| ());
    let expected = [
        "begin",
        "write greeting",
        "reloaded",
        "restart web.service",
        "finish",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn only_the_mode_changed() {
    let (steps, _) = steps(&[web()], &[web()], |observed, _| {
        for found in observed.files.values_mut() {
            if let Found::File { fits, .. } = found {
                *fits = false;
            }
        }
    });
    assert_eq!(steps, ["write web.container", "write greeting", "finish"]);
}

#[test]
fn removed() {
    let (steps, _) = steps(
        &[web(), Workload::new("job")],
        &[Workload::new("job")],
        |_, _| (),
    );
    let expected = [
        "stop web.service",
        "remove web.container",
        "remove greeting",
        "reload",
        "reset web.service",
        "sweep web",
        "finish",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn removed_after_a_death_in_the_midst_of_it() {
    let (steps, _) = steps(&[web()], &[], |observed, _| {
        set(observed, |unit| "inactive".clone_into(&mut unit.active));
    });
    let expected = [
        "remove web.container",
        "remove greeting",
        "reload",
        "sweep web",
        "finish",
    ];
    assert_eq!(
        steps, expected,
        "its files may be gone, and systemd not know it"
    );
}

#[test]
fn held_is_left_as_it_is() {
    let problem = Problem::new(code::IMAGE_PULL, "no such image");
    let held = BTreeMap::from([(Owner::workload("web"), problem)]);
    let to = Bundle::of(&[Workload::new("web").says("Environment=A=b")]);
    let (observed, owned) = towards(&Bundle::of(&[web()]), &to);
    let plan = plan(&to.manifest, &observed, &owned, &held);
    assert_eq!(short(&plan), NONE);
    assert_eq!(plan.held, held);
    assert_eq!(plan.to_string(), "hold     web: FLT0501: no such image\n");
}

#[test]
fn what_is_loaded_on_demand_is_restarted_when_it_changed_and_runs_and_else_left() {
    let net = || Workload::new("web").network();
    let stopped = |observed: &mut Observed, _: &mut Owned| {
        let unit = observed
            .units
            .get_mut("web-network.service")
            .expect("there");
        "inactive".clone_into(&mut unit.active);
    };
    assert_eq!(steps(&[net()], &[net()], stopped).0, NONE);
    let change = |observed: &mut Observed| {
        let path = path("/etc/containers/systemd/web.network");
        let digest = Digest::of(b"old");
        observed
            .files
            .insert(path, Found::File { digest, fits: true });
    };
    let (running, _) = steps(&[net()], &[net()], |observed, _| change(observed));
    let expected = [
        "begin",
        "write web.network",
        "reload",
        "reloaded",
        "restart web-network.service",
        "restart web.service",
        "finish",
    ];
    assert_eq!(running, expected);
    let (at_rest, _) = steps(&[net()], &[net()], |observed, owned| {
        change(observed);
        stopped(observed, owned);
    });
    assert!(!at_rest.contains(&"restart web-network.service".to_owned()));
    assert!(!at_rest.contains(&"start web-network.service".to_owned()));
}

#[test]
fn a_unit_at_rest_is_started_unless_it_failed_and_is_to_stay_so() {
    let at_rest = |active: &'static str, restart: &'static str| {
        let (steps, _) = steps(&[web()], &[web()], |observed, _| {
            set(observed, |unit| {
                active.clone_into(&mut unit.active);
                restart.clone_into(&mut unit.restart);
            });
        });
        steps
    };
    assert_eq!(
        at_rest("inactive", "always"),
        ["start web.service", "finish"]
    );
    assert_eq!(at_rest("inactive", "no"), ["start web.service", "finish"]);
    let again = ["reset web.service", "start web.service", "finish"];
    assert_eq!(at_rest("failed", "always"), again);
    assert_eq!(at_rest("failed", "on-failure"), again);
    assert_eq!(at_rest("failed", "no"), NONE);
    for on_its_way in ["activating", "deactivating", "reloading"] {
        assert_eq!(at_rest(on_its_way, "always"), NONE);
    }
}

#[test]
fn a_pod_restarts_by_its_own_file_and_a_member_by_its_own() {
    let pod = || {
        Workload::new("shop")
            .pod(&["front", "back"])
            .config("prices", "1")
    };
    let (steps_, _) = steps(&[pod()], &[pod().config("prices", "2")], |_, _| ());
    let expected = [
        "begin",
        "write prices",
        "reloaded",
        "restart shop-front.service",
        "finish",
    ];
    assert_eq!(steps_, expected);
    let mut other = pod();
    other.pod_says = "HostName=shop".to_owned();
    let (steps_, _) = steps(&[pod()], &[other], |_, _| ());
    let expected = [
        "begin",
        "write shop.pod",
        "reload",
        "reloaded",
        "restart shop-pod.service",
        "finish",
    ];
    assert_eq!(steps_, expected, "systemd takes the members along");
    let (steps, _) = steps(&[pod()], &[Workload::new("shop")], |_, _| ());
    assert_eq!(
        steps[..4],
        [
            "begin",
            "stop shop-back.service",
            "stop shop-front.service",
            "stop shop-pod.service"
        ]
    );
    assert!(
        !steps.contains(&"sweep shop".to_owned()),
        "the workload stays"
    );
}

#[test]
fn a_file_leaves_before_a_folder_of_its_name_comes() {
    let with = |key: &str| [Workload::new("web").config(key, "1").config("z", "1")];
    let (steps, held) = steps(&with("a"), &with("a/b"), |observed, _| {
        observed
            .files
            .remove(&path("/etc/flotta/workloads/web/conf/a/b"));
    });
    assert_eq!(held, NONE);
    assert_eq!(steps[..3], ["begin", "remove a", "write b"]);
}

#[test]
fn what_is_due_says_where_a_death_was() {
    let after = |due: Due, invocation: &'static str, active: &'static str| {
        let (steps, _) = steps(&[web()], &[web()], |observed, owned| {
            owned.units.get_mut("web.service").expect("owned").due = Some(due);
            set(observed, |unit| {
                invocation.clone_into(&mut unit.invocation);
                active.clone_into(&mut unit.active);
                "no".clone_into(&mut unit.restart);
            });
        });
        steps
    };
    let since = || Due::Since("a".to_owned());
    // The files are there, but systemd may not have loaded them.
    assert_eq!(
        after(Due::Files, "a", "active"),
        ["reload", "reloaded", "restart web.service", "finish"]
    );
    // Loaded, but not restarted.
    assert_eq!(
        after(since(), "a", "active"),
        ["begin", "reloaded", "restart web.service", "finish"]
    );
    // Restarted, with whatever result.
    assert_eq!(after(since(), "b", "active"), ["finish"]);
    assert_eq!(after(since(), "b", "failed"), ["finish"]);
    // It failed before.
    assert_eq!(
        after(since(), "a", "failed"),
        [
            "begin",
            "reloaded",
            "reset web.service",
            "start web.service",
            "finish"
        ]
    );
}

#[test]
fn a_plan_reads_well() {
    let from = Bundle::of(&[Workload::new("old"), web()]);
    let to = Bundle::of(&[Workload::new("job"), web().config("greeting", "hi")]);
    let (observed, owned) = towards(&from, &to);
    let plan = plan(&to.manifest, &observed, &owned, &BTreeMap::new());
    insta::assert_snapshot!(plan.to_string(), @r"
    stop     old.service
    write    /etc/containers/systemd/job.container
    write    /etc/flotta/workloads/web/conf/greeting
    remove   /etc/containers/systemd/old.container
    start    job.service
    restart  web.service
    sweep    leftovers of old
    ");
}
