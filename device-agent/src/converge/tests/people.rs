//! What people and other programs do to the machine: it is reported, workloads keep running, and the agent continues once it
//! can.

use flotta_bundle::manifest::Pull;

use super::*;
use crate::backend::fake::QUADLET;

/// Whether the agent cannot write, and if so, whether only its own view of the mounts is the reason.
fn shut_out(bench: &mut Bench, bundle: &Bundle) -> Option<bool> {
    let (_, host) = bench.agent();
    block_on(is_shut_out(&bundle.manifest, host))
}

#[test]
fn a_masked_unit_is_named_left_masked_and_runs_again_once_it_is_unmasked() {
    let mut bench = Bench::new();
    let [radio, web] = ["radio", "web"].map(Workload::new);
    bench.converge(&Bundle::of(&[radio.clone(), web.clone()]));
    bench.world.log();
    let masked = "web.service".to_owned();
    bench.world.state().faults.masked.insert(masked.clone());
    let next = Bundle::of(&[radio.says("Environment=A=b"), web.says("Environment=A=b")]);
    let outcome = bench.converge(&next);
    let (state, said) = problem(&outcome, "web");
    assert_eq!(said, "FLT0515: web.service is masked");
    assert_eq!(state, WorkloadState::Running, "what runs of it goes on");
    assert!(!outcome.complete && outcome.retry);
    assert_eq!(bench.starts(), ["radio.service"]);
    // somebody stops it, and it stays stopped
    bench.world.state().stop("web.service");
    bench.world.log();
    let outcome = bench.converge(&next);
    assert_eq!(problem(&outcome, "web"), (WorkloadState::Failed, said));
    assert_eq!(bench.starts(), Vec::<String>::new());
    bench.world.state().faults.masked.remove(&masked);
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
    assert_eq!(bench.starts(), ["web.service"]);
}

#[test]
fn a_storage_that_podman_has_given_up_is_looked_at_again_when_something_is_down() {
    let mut bench = Bench::new();
    let two = Bundle::of(&["radio", "web"].map(Workload::new));
    bench.converge(&two);
    bench.world.log();
    let why = "kernel does not support overlay fs: no space left on device";
    let remembered = |bench: &Bench| bench.world.state().remembered.clone();
    // a harmless note is left alone
    bench.world.state().remembered = Some(why.to_owned());
    assert!(bench.converge(&two).complete);
    assert_eq!(remembered(&bench).as_deref(), Some(why));
    bench.world.state().stop("web.service");
    let started = bench.world.state().start("web.service");
    started.expect_err("Podman refuses");
    bench.world.log();
    assert!(bench.converge(&two).complete);
    assert_eq!(remembered(&bench), None);
    bench.assert_reached(&two);
    assert_eq!(bench.starts(), ["web.service"]);
    let events = bench.events();
    let repaired = events.iter().filter(|event| event.starts_with("Repaired "));
    let repaired: Vec<_> = repaired.collect();
    assert!(
        matches!(repaired[..], [event] if event.contains(why)),
        "{events:?}"
    );
}

#[test]
fn a_storage_that_does_not_work_is_named_until_it_does() {
    let mut bench = Bench::new();
    let web = Bundle::of(&[Workload::new("web").image("hello:2", Pull::Missing)]);
    let why = "kernel does not support overlay fs: no space left on device";
    bench.world.state().faults.no_storage = Some(why);
    for _ in 0..3 {
        let outcome = bench.converge(&web);
        let (state, said) = problem(&outcome, "web");
        assert_eq!(state, WorkloadState::Failed);
        assert!(
            said.starts_with("FLT0517: ") && said.contains(why),
            "{said}"
        );
    }
    bench.world.state().faults.no_storage = None;
    // Podman keeps refusing until its note is removed
    assert!(bench.world.state().remembered.is_some());
    assert!(bench.converge(&web).complete);
    bench.assert_reached(&web);
}

#[test]
fn what_is_mounted_over_quadlets_folder_gets_the_files_and_the_folder_below_is_looked_at_again() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&["radio", "web"].map(Workload::new));
    bench.converge(&bundle);
    bench.world.log();
    let units = |bench: &Bench| {
        let state = bench.world.state();
        let units = state.files.clone().into_iter();
        let units = units.filter(|(path, _)| path.starts_with(QUADLET));
        units.collect::<BTreeMap<_, _>>()
    };
    let below = units(&bench);
    assert_eq!(below.len(), 2);
    bench
        .world
        .state()
        .files
        .retain(|path, _| !path.starts_with(QUADLET));
    let (ledger, host) = bench.agent();
    let now = || Timestamp::UNIX_EPOCH;
    look_at_files(&bundle.manifest, ledger, host, &now).expect("noted");
    let looked = block_on(look(&bundle.manifest, ledger, host));
    for report in &looked {
        assert_eq!(report.state, WorkloadState::Running);
        let problem = report.problem.as_ref().map(|problem| problem.code.clone());
        assert_eq!(problem.as_deref(), Some(code::DRIFTED.id));
    }
    assert!(bench.converge(&bundle).complete);
    bench.assert_reached(&bundle);
    assert_eq!(units(&bench), below);
    // without the mount, the old files below are visible again
    let old = Bundle::of(&["radio", "web"].map(|name| Workload::new(name).says("Environment=A=b")));
    assert!(bench.converge(&old).complete);
    bench.world.state().files.extend(below);
    assert!(bench.converge(&old).complete);
    bench.assert_reached(&old);
}

#[test]
fn that_the_agents_mounts_are_from_before_is_told_from_a_machine_that_is_read_only() {
    let mut bench = Bench::new();
    let web = Bundle::of(&[Workload::new("web")]);
    bench.converge(&web);
    assert_eq!(shut_out(&mut bench, &web), None);
    let path = format!("{QUADLET}web.container");
    bench.world.state().faults.writes.insert(path);
    let next = Bundle::of(&[Workload::new("web").says("Environment=A=b")]);
    let (_, said) = problem(&bench.converge(&next), "web");
    assert!(said.starts_with("FLT0516: "), "{said}");
    assert_eq!(shut_out(&mut bench, &next), Some(false));
    bench.world.state().faults.stale_mounts = true;
    assert_eq!(shut_out(&mut bench, &next), Some(true));
    bench.world.state().faults.writes.clear();
    assert_eq!(shut_out(&mut bench, &next), None);
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
}
