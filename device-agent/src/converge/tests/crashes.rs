//! The agent crashes at every call that changes the machine, is restarted, and reaches the same state.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::prelude::*;

use super::*;
use crate::backend::fake::Crashed;
use crate::plan::inputs;

impl Bench {
    /// Converges; false when the agent crashed.
    fn survives(&mut self, bundle: &Bundle) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.converge(bundle))) {
            Ok(outcome) => {
                assert!(outcome.complete, "{outcome:?}");
                true
            }
            Err(payload) if payload.is::<Crashed>() => {
                // What it knew but did not write down is gone.
                self.agent = None;
                false
            }
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// How often each unit may be started between one bundle and the next: at least, at most.
fn allowed(before: Option<&Bundle>, after: &Bundle) -> BTreeMap<String, (usize, usize)> {
    let of = |bundle: &Bundle| -> BTreeMap<String, flotta_bundle::Digest> {
        let Manifest { units, files, .. } = &bundle.manifest;
        let units = units.iter();
        units
            .map(|unit| (unit.name.clone(), inputs(unit, files)))
            .collect()
    };
    let (before, after_inputs) = (before.map(of).unwrap_or_default(), of(after));
    let changed = |name: &str| before.get(name) != after_inputs.get(name);
    let units = &after.manifest.units;
    let bounds = units.iter().map(|unit| {
        let mut siblings = units
            .iter()
            .filter(|other| other.workload == unit.workload && other.name != unit.name);
        // A restart of a unit that it requires restarts it as well, and a crash between the two makes it two starts.
        let taken_along = siblings.any(|other| {
            let needed = [
                format!("{}-pod.service", unit.workload),
                format!("{}-network.service", unit.workload),
            ];
            needed.contains(&other.name) && changed(&other.name)
        });
        let bounds = match (changed(&unit.name), taken_along) {
            (false, false) => (0, 0),
            (true, false) => (1, 1),
            (changed, true) => (usize::from(changed), 2),
        };
        (unit.name.clone(), bounds)
    });
    bounds.collect()
}

#[track_caller]
fn assert_starts(bench: &Bench, before: Option<&Bundle>, after: &Bundle) {
    let mut starts: BTreeMap<String, usize> = BTreeMap::new();
    for unit in bench.starts() {
        *starts.entry(unit).or_default() += 1;
    }
    for (unit, (least, most)) in allowed(before, after) {
        let count = starts.remove(&unit).unwrap_or(0);
        assert!(
            (least..=most).contains(&count),
            "{unit} was started {count} times, not {least} to {most}"
        );
    }
    assert!(starts.is_empty(), "also started: {starts:?}");
}

/// Goes through the bundles, and crashes at every call. `overtaken`: after a crash there is already a newer bundle. Returns
/// the number of calls.
fn crash_everywhere(bundles: &[Bundle], overtaken: bool) -> usize {
    for call in 1.. {
        let mut spared = true;
        for after in [false, true] {
            let mut bench = Bench::new();
            bench.world.crash_at(call, after);
            for (at, bundle) in bundles.iter().enumerate() {
                let died = !bench.survives(bundle);
                if died && overtaken && at + 1 < bundles.len() {
                    bench.world.log();
                    let next = &bundles[at + 1];
                    assert!(bench.survives(next), "death comes once");
                    bench.assert_reached(next);
                    bench.world.log();
                    continue;
                }
                if died {
                    assert!(bench.survives(bundle), "death comes once");
                }
                bench.assert_reached(bundle);
                if overtaken {
                    bench.world.log();
                } else {
                    assert_starts(&bench, at.checked_sub(1).map(|at| &bundles[at]), bundle);
                }
            }
            spared &= bench.world.spare();
        }
        if spared {
            return call - 1;
        }
    }
    unreachable!("there are fewer calls than numbers")
}

fn crash_everywhere_both_ways(bundles: &[Bundle]) {
    let calls = crash_everywhere(bundles, false);
    assert!(calls > 5, "only {calls} calls");
    crash_everywhere(bundles, true);
}

fn web() -> Workload {
    Workload::new("web").config("greeting", "hello")
}

fn shop() -> Workload {
    Workload::new("shop")
        .pod(&["front", "back"])
        .config("prices", "1")
}

#[test]
fn a_workload_changes_another_comes_and_goes() {
    crash_everywhere_both_ways(&[
        Bundle::of(&[web(), Workload::new("job")]),
        Bundle::of(&[
            web().config("greeting", "good evening"),
            Workload::new("job"),
            shop(),
        ]),
        Bundle::of(&[web().says("Environment=A=b"), shop()]),
    ]);
}

#[test]
fn a_pod_changes_by_its_own_file_by_a_member_and_by_a_mounted_file() {
    let mut pod = shop();
    pod.pod_says = "HostName=shop".to_owned();
    crash_everywhere_both_ways(&[
        Bundle::of(&[shop(), web()]),
        Bundle::of(&[pod.clone(), web()]),
        Bundle::of(&[pod.config("prices", "2"), web()]),
    ]);
}

#[test]
fn a_container_becomes_a_pod_and_the_other_way_round() {
    let one = Workload::new("shop");
    crash_everywhere_both_ways(&[
        Bundle::of(std::slice::from_ref(&one)),
        Bundle::of(&[shop()]),
        Bundle::of(&[one]),
    ]);
}

#[test]
fn everything_leaves() {
    crash_everywhere_both_ways(&[Bundle::of(&[web(), shop().network()]), Bundle::of(&[])]);
}

#[test]
fn a_mounted_file_becomes_a_folder_and_a_file_again() {
    crash_everywhere_both_ways(&[
        Bundle::of(&[Workload::new("web").config("a", "1")]),
        Bundle::of(&[Workload::new("web").config("a/b", "1").config("a/c", "1")]),
        Bundle::of(&[Workload::new("web").config("a", "1")]),
    ]);
}

#[test]
fn an_image_that_is_always_pulled_and_a_network() {
    let always = |says: &str| {
        let image = Workload::new("web").image("hello:2", flotta_bundle::manifest::Pull::Always);
        Bundle::of(&[image.says(says).network()])
    };
    crash_everywhere_both_ways(&[always("Environment=A=1"), always("Environment=A=2")]);
}

/// A container with `Restart=no` fails, and an agent that crashed meanwhile does not start it a second time.
#[test]
fn a_container_that_ran_once_and_failed_is_not_run_twice() {
    let bundle = Bundle::of(&[Workload::new("job").restart("no")]);
    for call in 1.. {
        let mut bench = Bench::new();
        bench.world.state().faults.exits = [("job.service".to_owned(), (3, "no paper"))].into();
        bench.world.crash_at(call, true);
        let died = catch_unwind(AssertUnwindSafe(|| bench.converge(&bundle))).is_err();
        bench.agent = None;
        bench.converge(&bundle);
        assert_eq!(bench.starts(), ["job.service"], "death at call {call}");
        assert_eq!(bench.plan(&bundle), Plan::default());
        if !died {
            assert!(call > 4);
            return;
        }
    }
}

/// Something that a person does to the machine behind the agent's back.
#[derive(Debug, Clone)]
enum Meddling {
    Delete(usize),
    Overwrite(usize),
    Chmod(usize),
    Stop(usize),
    Reload,
    Reboot,
    LoseImages,
}

fn workload(name: &'static str) -> impl Strategy<Value = Workload> {
    let config = prop_oneof![
        Just(vec![]),
        Just(vec!["a"]),
        Just(vec!["a", "b"]),
        Just(vec!["a/x"]),
    ];
    let members = prop_oneof![
        2 => Just(vec![]),
        1 => Just(vec!["front"]),
        1 => Just(vec!["front", "back"]),
    ];
    let words = (0..2_u8, 0..2_u8, 0..2_u8);
    let choices = (any::<bool>(), any::<bool>());
    (config, members, words, choices).prop_map(move |(config, members, words, choices)| {
        let mut workload = Workload::new(name).pod(&members);
        workload.says = format!("Environment=A={}", words.0);
        workload.pod_says = format!("HostName=h{}", words.1);
        for key in config {
            workload = workload.config(key, &words.2.to_string());
        }
        if choices.0 {
            "hello:2".clone_into(&mut workload.image);
        }
        workload.network = choices.1;
        workload
    })
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let some = |name| proptest::option::of(workload(name));
    (some("job"), some("shop"), some("web")).prop_map(|(job, shop, web)| {
        let workloads: Vec<_> = [job, shop, web].into_iter().flatten().collect();
        Bundle::of(&workloads)
    })
}

fn meddling() -> impl Strategy<Value = Meddling> {
    prop_oneof![
        any::<usize>().prop_map(Meddling::Delete),
        any::<usize>().prop_map(Meddling::Overwrite),
        any::<usize>().prop_map(Meddling::Chmod),
        any::<usize>().prop_map(Meddling::Stop),
        Just(Meddling::Reload),
        Just(Meddling::Reboot),
        Just(Meddling::LoseImages),
    ]
}

impl Meddling {
    fn at(&self, world: &World) {
        let mut state = world.state();
        let nth = |keys: Vec<String>, n: usize| {
            let len = keys.len().max(1);
            keys.into_iter().nth(n % len)
        };
        let files = state.files.keys().cloned().collect();
        let units = state.runs.keys().cloned().collect();
        match self {
            Self::Delete(n) => {
                nth(files, *n).and_then(|path| state.files.remove(&path));
            }
            Self::Overwrite(n) => {
                let thing = nth(files, *n).and_then(|path| state.files.get_mut(&path));
                if let Some(Entry::File { content, .. }) = thing {
                    content.push(b'!');
                }
            }
            Self::Chmod(n) => {
                let thing = nth(files, *n).and_then(|path| state.files.get_mut(&path));
                if let Some(Entry::File { fits, .. }) = thing {
                    *fits = false;
                }
            }
            Self::Stop(n) => {
                if let Some(unit) = nth(units, *n) {
                    state.stop(&unit);
                }
            }
            Self::Reload => state.reload(),
            Self::Reboot => state.boot(),
            Self::LoseImages => state.images.clear(),
        }
    }
}

/// A converged machine after some meddling.
fn meddled(from: &Bundle, meddling: &[Meddling]) -> Bench {
    let mut bench = Bench::new();
    bench.converge(from);
    bench.assert_reached(from);
    for meddling in meddling {
        meddling.at(&bench.world);
    }
    bench
}

fn few(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(few(200))]

    /// From any state of the machine, converging once is enough, and then there is nothing left to do.
    #[test]
    fn any_machine_becomes_what_any_manifest_says(
        from in bundle(),
        meddling in proptest::collection::vec(meddling(), 0..6),
        to in bundle(),
    ) {
        let mut bench = meddled(&from, &meddling);
        let outcome = bench.converge(&to);
        prop_assert!(outcome.complete, "{outcome:?}");
        bench.assert_reached(&to);
    }
}

proptest! {
    #![proptest_config(few(24))]

    #[test]
    fn any_two_manifests_survive_any_death(first in bundle(), second in bundle()) {
        let bundles = [first, second];
        crash_everywhere(&bundles, false);
        crash_everywhere(&bundles, true);
    }

    #[test]
    fn any_machine_survives_any_death(
        from in bundle(),
        meddling in proptest::collection::vec(meddling(), 1..6),
        to in bundle(),
    ) {
        for call in 1.. {
            let mut spared = true;
            for after in [false, true] {
                let mut bench = meddled(&from, &meddling);
                bench.world.crash_at(call, after);
                let survives = bench.survives(&to) || bench.survives(&to);
                prop_assert!(survives, "death comes once");
                bench.assert_reached(&to);
                spared &= bench.world.spare();
            }
            if spared {
                break;
            }
        }
    }
}
