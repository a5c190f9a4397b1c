//! A failure affects its own workload only, and its message helps.

mod images;

use flotta_bundle::manifest::Pull;

use super::*;
use crate::backend::fake::{Definition, QUADLET};

const RUNNING: (WorkloadState, String) = (WorkloadState::Running, String::new());

fn two() -> [Workload; 2] {
    [Workload::new("radio"), Workload::new("web")]
}

#[track_caller]
fn assert_failed(outcome: &Outcome, workload: &str, code: &str, words: &str) {
    let (state, said) = problem(outcome, workload);
    assert_eq!(state, WorkloadState::Failed, "{said}");
    assert!(said.starts_with(code), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!outcome.complete && outcome.retry);
}

#[test]
fn a_container_that_exits_at_once_failed_with_its_last_words() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&two());
    let exits = [("web.service".to_owned(), (1, "no database at db:5432"))];
    bench.world.state().faults.exits = exits.into();
    let outcome = bench.converge(&bundle);
    assert_failed(
        &outcome,
        "web",
        "FLT0502",
        "web.service exited 1: no database at db:5432",
    );
    assert_eq!(problem(&outcome, "radio"), RUNNING);
    assert_eq!(bench.plan(&bundle), Plan::default(), "systemd tries again");
    let (ledger, host) = bench.agent();
    let looked = block_on(look(&bundle.manifest, ledger, host));
    assert_eq!(looked, outcome.workloads);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&[
        Workload::new("web").port(8080),
        Workload::new("radio").port(81),
    ]);
    bench.world.state().faults.ports.insert("8080".to_owned());
    let outcome = bench.converge(&bundle);
    assert_failed(
        &outcome,
        "web",
        "FLT0503",
        "web.service: port 8080 is already in use on the device",
    );
    assert_eq!(problem(&outcome, "radio"), RUNNING);
}

#[test]
fn a_file_that_cannot_be_written_concerns_its_workload_alone() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    let web = web.config("old", "1");
    bench.converge(&Bundle::of(&[radio.clone(), web]));
    bench.world.log();
    let path = "/etc/flotta/workloads/web/conf/new";
    bench.world.state().faults.writes.insert(path.to_owned());
    let next = Bundle::of(&[
        radio.says("Environment=A=b"),
        Workload::new("web").config("new", "1"),
    ]);
    let outcome = bench.converge(&next);
    let (state, said) = problem(&outcome, "web");
    assert_eq!(state, WorkloadState::Running, "{said}");
    assert!(
        said.starts_with("FLT0516: ") && said.contains(path),
        "{said}"
    );
    assert_eq!(bench.starts(), ["radio.service"]);
    let old = "/etc/flotta/workloads/web/conf/old";
    assert!(
        bench.world.state().files.contains_key(old),
        "it still runs with it"
    );
    assert!(
        bench
            .events()
            .iter()
            .any(|event| event == "Applied release 7: restarted radio")
    );
    bench.world.state().faults.writes.clear();
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
    assert_eq!(bench.starts(), ["web.service"]);
}

#[test]
fn an_event_is_noted_once_whatever_the_server_has_kept() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&[Workload::new("web").image("gone:1", Pull::Missing)]);
    let event = "Failed web: FLT0501: image gone:1: gone:1: manifest unknown";
    bench.converge(&bundle);
    bench.converge(&bundle);
    assert_eq!(bench.events(), [event]);
    bench.agent().0.acknowledge(1).expect("written");
    bench.converge(&bundle);
    bench.agent = None;
    bench.converge(&bundle);
    assert!(bench.events().is_empty(), "{:?}", bench.events());
    bench.world.state().registry.insert("gone:1".to_owned());
    bench.converge(&bundle);
    bench.converge(&bundle);
    assert_eq!(bench.events(), ["Applied release 7: started web"]);
}

#[test]
fn removing_a_workload_removes_what_is_its_own_and_nothing_else() {
    let mut bench = Bench::new();
    bench.host_file("/etc/flotta/workloads/web/conf/by-hand", "mine");
    bench.host_file(
        "/etc/containers/systemd/host.container",
        "[Container]\nImage=hello:1\n",
    );
    bench.host.1.insert("host.service".to_owned());
    let [radio, web] = two();
    let both = Bundle::of(&[radio.clone(), web.config("greeting", "hello").network()]);
    assert!(bench.converge(&both).complete);
    bench.assert_reached(&both);
    bench.world.log();
    let one = Bundle::of(&[radio]);
    assert!(bench.converge(&one).complete);
    bench.assert_reached(&one);
    assert_eq!(
        bench.world.log(),
        [
            Action::Stop("web.service".to_owned()),
            Action::Stop("web-network.service".to_owned()),
            Action::Sweep("web".to_owned()),
        ]
    );
    assert_eq!(
        bench.events().last().map(String::as_str),
        Some("Applied release 7: removed web")
    );
}

#[test]
fn a_unit_of_the_host_is_not_touched() {
    let mut bench = Bench::new();
    let source = "/etc/systemd/system/web.service".to_owned();
    let text = "[Service]\nExecStart=/usr/sbin/nginx\n".to_owned();
    {
        let mut state = bench.world.state();
        let definition = Definition { source, text };
        state.host.insert("web.service".to_owned(), definition);
        state.reload();
        state.start("web.service").expect("started");
    }
    bench.world.log();
    let [radio, web] = two();
    let outcome = bench.converge(&Bundle::of(&[radio.clone(), web]));
    // The host's unit is running, but is not the workload.
    let expected = "unit web.service exists already, from /etc/systemd/system/web.service";
    assert_failed(&outcome, "web", "FLT0504", expected);
    assert_eq!(bench.starts(), ["radio.service"]);
    let files = bench.world.state().files.len();
    assert_eq!(files, 1, "the radio's");
    let only = Bundle::of(&[radio]);
    bench.host.1.insert("web.service".to_owned());
    assert!(bench.converge(&only).complete);
    assert_eq!(bench.world.log(), [], "the host's unit runs on");
}

#[test]
fn a_file_of_the_host_is_not_touched() {
    let mut bench = Bench::new();
    bench.host_file(
        "/etc/containers/systemd/web.container",
        "[Container]\nImage=mine\n",
    );
    let [radio, web] = two();
    let outcome = bench.converge(&Bundle::of(&[radio.clone(), web]));
    let expected =
        "/etc/containers/systemd/web.container exists already and does not belong to this fleet";
    assert_failed(&outcome, "web", "FLT0504", expected);
    bench.host.1.insert("web.service".to_owned());
    let only = Bundle::of(&[radio]);
    assert!(bench.converge(&only).complete);
    bench.assert_reached(&only);
    assert_eq!(bench.starts(), ["radio.service"]);
}

#[test]
fn a_link_in_place_of_a_file_is_not_touched() {
    let mut bench = Bench::new();
    let path = format!("{QUADLET}web.container");
    bench.world.state().files.insert(path.clone(), Entry::Other);
    let outcome = bench.converge(&Bundle::of(&two()));
    assert_failed(&outcome, "web", "FLT0505", "is not a regular file");
    assert_eq!(bench.world.state().files[&path], Entry::Other);
    assert_eq!(bench.starts(), ["radio.service"]);
}

#[test]
fn a_reboot_in_between_starts_nothing_twice() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&[Workload::new("web").config("greeting", "hello")]);
    bench.converge(&bundle);
    bench.agent = None;
    bench.world.state().boot();
    bench.world.log();
    assert!(bench.converge(&bundle).complete);
    bench.assert_reached(&bundle);
    assert_eq!(bench.world.log(), []);
}

#[test]
fn a_reload_that_fails_is_done_at_the_next_try() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    bench.converge(&Bundle::of(&[radio, web.clone()]));
    bench.world.log();
    bench.world.state().faults.no_reload = true;
    let next = Bundle::of(&[web.says("Environment=A=b")]);
    let outcome = bench.converge(&next);
    let (_, said) = problem(&outcome, "web");
    assert_eq!(
        said,
        "FLT0506: systemd cannot reload its units: Connection timed out"
    );
    assert!(bench.starts().is_empty());
    bench.world.state().faults.no_reload = false;
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
    assert_eq!(bench.starts(), ["web.service"]);
}

#[test]
fn a_unit_that_does_not_stop_is_not_forgotten() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    let both = Bundle::of(&[radio.clone(), web]);
    bench.converge(&both);
    bench
        .world
        .state()
        .faults
        .refused
        .insert("web.service".to_owned());
    let next = Bundle::of(&[radio]);
    let outcome = bench.converge(&next);
    let said: Vec<_> = outcome.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["FLT0506: web.service cannot be stopped: Connection timed out"]
    );
    assert!(
        bench
            .world
            .state()
            .files
            .contains_key(&format!("{QUADLET}web.container"))
    );
    bench.world.state().faults.refused.clear();
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
}

#[test]
fn a_unit_that_had_to_be_killed_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    bench.converge(&Bundle::of(&[radio.clone(), web]));
    bench
        .world
        .state()
        .faults
        .stubborn
        .insert("web.service".to_owned());
    let next = Bundle::of(&[radio]);
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
}

#[test]
fn what_cannot_be_swept_or_removed_is_tried_again() {
    for path in [None, Some(format!("{QUADLET}web.container"))] {
        let mut bench = Bench::new();
        let [radio, web] = two();
        bench.converge(&Bundle::of(&[radio.clone(), web]));
        bench.world.state().faults.no_sweep = path.is_none();
        bench.world.state().faults.removes.extend(path);
        let next = Bundle::of(&[radio]);
        let outcome = bench.converge(&next);
        assert!(
            !outcome.complete && outcome.problems.len() == 1,
            "{outcome:?}"
        );
        bench.world.state().faults.no_sweep = false;
        bench.world.state().faults.removes.clear();
        assert!(bench.converge(&next).complete);
        bench.assert_reached(&next);
    }
}

#[test]
fn a_file_that_quadlet_cannot_read_is_named() {
    let mut bench = Bench::new();
    let mut bundle = Bundle::of(&[Workload::new("web")]);
    let broken = b"[Contaner]\n".to_vec();
    bundle.manifest.files[0].digest = flotta_bundle::Digest::of(&broken);
    bundle.contents = vec![broken];
    let outcome = bench.converge(&bundle);
    let (state, said) = problem(&outcome, "web");
    assert_eq!(state, WorkloadState::Failed);
    assert_eq!(
        said,
        "FLT0509: Quadlet generated no unit web.service: systemd says not-found"
    );
    let fixed = Bundle::of(&[Workload::new("web")]);
    assert!(bench.converge(&fixed).complete);
    bench.assert_reached(&fixed);
}

#[test]
fn a_restart_that_was_not_taken_is_not_called_done() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    bench.converge(&Bundle::of(&[radio.clone(), web.clone()]));
    bench
        .world
        .state()
        .faults
        .refused
        .insert("web.service".to_owned());
    let next = Bundle::of(&[radio, web.says("Environment=A=b")]);
    let outcome = bench.converge(&next);
    assert!(!outcome.complete && outcome.retry, "{outcome:?}");
    let digest = flotta_bundle::Digest::of(&next.manifest.clone().encode());
    let applied = |bench: &mut Bench| bench.agent().0.applied().map(|applied| applied.manifest);
    assert_ne!(applied(&mut bench), Some(digest));
    bench.world.state().faults.refused.clear();
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
    assert_eq!(applied(&mut bench), Some(digest));
}

/// From some call on the ledger cannot be written: the apply stops there, what it did is not done again, and the rest is done
/// once the ledger can be written.
#[test]
fn a_ledger_that_fails_in_the_middle_of_an_apply_is_named_and_heals() {
    let [radio, web] = two();
    let before = Bundle::of(&[radio.clone(), web.clone(), Workload::new("gone")]);
    let after = Bundle::of(&[radio.says("Environment=A=b"), web.config("a", "1")]);
    for call in 1.. {
        let mut bench = Bench::new();
        assert!(bench.converge(&before).complete);
        bench.world.log();
        bench.agent().0.acknowledge(u64::MAX).expect("written");
        let path = bench.state.path().join("ledger/machine.json");
        let aside = path.with_extension("aside");
        let spoil = {
            let (path, aside) = (path.clone(), aside.clone());
            move || {
                std::fs::rename(&path, aside).expect("put aside");
                // even root cannot replace a folder with a file
                std::fs::create_dir(path).expect("made");
            }
        };
        bench.world.at_call(call, spoil);
        let outcome = bench.converge(&after);
        if !path.is_dir() {
            assert!(call > 7, "only {} calls", call - 1);
            return;
        }
        let ledger = |problem: &Problem| problem.code == code::LEDGER.id;
        assert!(outcome.problems.iter().any(ledger), "{outcome:?}");
        assert!(!outcome.complete && outcome.retry);
        let applied = |event: &String| event.starts_with("Applied");
        let events = bench.events();
        assert!(!events.iter().any(applied), "{call}: {events:?}");
        let runs = |unit| bench.world.state().runs[unit].active == "active";
        assert!(runs("radio.service") && runs("web.service"), "{call}");
        std::fs::remove_dir(&path).expect("removed");
        std::fs::rename(aside, &path).expect("put back");
        // what it knew but could not write is gone
        bench.agent = None;
        let outcome = bench.converge(&after);
        assert!(outcome.complete, "{call}: {outcome:?}");
        bench.assert_reached(&after);
        let mut starts = bench.starts();
        starts.sort();
        assert_eq!(starts, ["radio.service", "web.service"], "{call}");
    }
}

#[test]
fn all_that_happened_while_no_event_could_be_written_is_told_when_it_can() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    let gone = |workload: Workload| workload.image("gone:1", Pull::Missing);
    let bundle = Bundle::of(&[gone(radio), gone(web), Workload::new("here")]);
    // even root cannot replace a folder with a file
    let path = bench.state.path().join("ledger/events.json");
    bench.agent();
    std::fs::create_dir(&path).expect("made");
    for _ in 0..2 {
        let outcome = bench.converge(&bundle);
        let ledger = |problem: &Problem| problem.code == code::LEDGER.id;
        assert!(outcome.problems.iter().any(ledger), "{outcome:?}");
        assert!(bench.events().is_empty());
    }
    std::fs::remove_dir(&path).expect("removed");
    bench.converge(&bundle);
    let events = bench.events();
    for said in [
        "Applied release 7: started here",
        "Failed radio: FLT0501",
        "Failed web: FLT0501",
    ] {
        let times = events
            .iter()
            .filter(|event| event.starts_with(said))
            .count();
        assert_eq!(times, 1, "{said}: {events:?}");
    }
}
