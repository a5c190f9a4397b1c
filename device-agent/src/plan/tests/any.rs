//! Property tests of the plan for any wanted state, observation and ledger.

use proptest::prelude::*;

use super::*;
use crate::backend::BackendError;
use crate::backend::fake::bundle::Job;
use crate::plan::install::installs;

fn workload(name: &'static str) -> impl Strategy<Value = Workload> {
    let keys = proptest::collection::btree_set(prop_oneof!["a", "b", "c"], 0..3);
    let members = prop_oneof![
        Just(vec![]),
        Just(vec!["front"]),
        Just(vec!["front", "back"])
    ];
    let job = prop_oneof![Just(None), Just(Some(Job::Timer)), Just(Some(Job::Change))];
    let rest = (any::<bool>(), 0..3_u8, job);
    (keys, members, rest).prop_map(move |(keys, members, (network, says, job))| {
        let mut workload = Workload::new(name).pod(&members).says(&says.to_string());
        workload.job = job;
        for key in keys {
            workload = workload.config(&key, &says.to_string());
        }
        workload.network = network;
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

fn unit_state() -> impl Strategy<Value = UnitState> {
    let load = prop_oneof!["loaded", "not-found", "bad-setting", "masked"];
    let active = prop_oneof![
        "active",
        "inactive",
        "failed",
        "activating",
        "deactivating",
        "x"
    ];
    let restart = prop_oneof!["no", "always"];
    let source = prop_oneof![Just(String::new()), Just(container().to_string())];
    let file_state = prop_oneof!["", "enabled", "disabled", "static", "generated"];
    let states = (load, active, file_state);
    (states, restart, source, "[ab]?").prop_map(
        |((load, active, file_state), restart, source, run)| UnitState {
            load,
            file_state,
            active,
            restart,
            source,
            invocation: run,
            ..UnitState::default()
        },
    )
}

fn found() -> impl Strategy<Value = Option<Found>> {
    let file = |content: &'static [u8], fits| Found::File {
        digest: Digest::of(content),
        fits,
    };
    prop_oneof![
        Just(None),
        Just(Some(Found::Absent)),
        Just(Some(Found::Other)),
        Just(Some(file(b"", true))),
        Just(Some(file(b"0", false))),
    ]
}

fn due() -> impl Strategy<Value = Option<Due>> {
    prop_oneof![
        Just(None),
        Just(Some(Due::Files)),
        "[ab]?".prop_map(|run| Some(Due::Since(run))),
    ]
}

proptest! {
    /// For any observation and ledger there is a plan, it only touches what the fleet owns, and its steps are in order.
    #[test]
    fn a_plan_is_total_and_keeps_to_what_is_the_fleets(
        from in bundle(),
        to in bundle(),
        files in proptest::collection::vec(proptest::option::of(found()), 16),
        states in proptest::collection::vec(proptest::option::of(unit_state()), 16),
        dues in proptest::collection::vec(due(), 16),
        forgotten in proptest::collection::vec(any::<bool>(), 16),
        unseen in proptest::collection::vec(prop::bool::weighted(0.1), 32),
        held in any::<bool>(),
    ) {
        let (mut observed, mut owned) = towards(&from, &to);
        for (file, seen) in to.manifest.files.iter().zip(files) {
            match seen {
                None => {}
                Some(None) => { observed.files.remove(&file.path); }
                Some(Some(found)) => { observed.files.insert(file.path.clone(), found); }
            }
        }
        for (unit, state) in to.manifest.units.iter().zip(states) {
            if let Some(state) = state {
                observed.units.insert(unit.name.clone(), state);
            }
        }
        let error = || BackendError::Other("Input/output error".to_owned());
        let mut unseen = unseen.into_iter();
        let mut blind = BTreeMap::new();
        for file in &to.manifest.files {
            if unseen.next().unwrap_or(false) {
                observed.files.remove(&file.path);
                let of = file.object();
                blind.insert(file.path.to_string(), of.to_owned());
            }
        }
        for unit in &to.manifest.units {
            if unseen.next().unwrap_or(false) {
                observed.units.remove(&unit.name);
                blind.insert(unit.name.clone(), unit.workload.clone());
            }
        }
        observed.blind = blind.keys().map(|name| (name.clone(), error())).collect();
        for (unit, due) in owned.units.values_mut().zip(dues) {
            unit.due = due;
        }
        let mut forgotten = forgotten.into_iter();
        owned.units.retain(|_, _| !forgotten.next().unwrap_or(false));
        let problem = Problem::new(code::IMAGE_PULL, "no such image");
        let given: BTreeMap<_, _> = held.then(|| (Owner::workload("web"), problem)).into_iter().collect();
        let plan = plan(&to.manifest, &observed, &owned, &given);

        let workload = |name: &String| {
            let units = &to.manifest.units;
            units.iter().find(|unit| unit.name == *name).map(|unit| unit.workload.clone())
        };
        prop_assert!(given.keys().all(|name| plan.held.contains_key(name)));
        for (path, of) in &blind {
            // a file in the place of one that is removed was not observed
            let goes = |old: &DevicePath| path.parse().is_ok_and(|new| in_the_way(old, &new));
            let held = plan.held.contains_key(of);
            prop_assert!(held || observed.leaving.iter().any(goes), "{} of {}", path, of);
        }
        let order = |step: &Step| match step {
            Step::Begin => 0,
            Step::Stop(_) | Step::StopInstances(_) => 1,
            Step::Disable(_) => 2,
            Step::Write(_) | Step::Remove(_) => 3,
            Step::Enable(_) => 4,
            Step::Reload => 5,
            Step::Reloaded => 6,
            Step::ResetFailed(_) => 7,
            Step::Job(..) => 8,
            Step::Sweep(_) => 9,
            Step::Finish => 10,
        };
        prop_assert!(plan.steps.is_sorted_by_key(order), "{:?}", short(&plan));
        prop_assert!(plan.is_empty() || plan.steps.last() == Some(&Step::Finish));
        let begun = plan.steps.first() == Some(&Step::Begin);
        for step in &plan.steps {
            match step {
                Step::Stop(name) | Step::Disable(name) => {
                    let mut wanted = to.manifest.units.iter();
                    let wanted = wanted.find(|unit| unit.name == *name);
                    let disables = matches!(step, Step::Disable(_));
                    prop_assert!(wanted.is_none_or(|unit| disables && !installs(unit)));
                    prop_assert!(owned.units.contains_key(name));
                    prop_assert!(!plan.held.contains_key(&owned.units[name].workload));
                }
                Step::Write(file) => {
                    let of = file.object();
                    prop_assert!(!plan.held.contains_key(of));
                    prop_assert!(begun || owned.files.contains_key(&file.path));
                    prop_assert!(observed.files.get(&file.path) != Some(&Found::Other));
                }
                Step::Remove(path) => {
                    prop_assert!(!plan.held.contains_key(&owned.files[path]));
                    prop_assert!(to.manifest.files.iter().all(|file| file.path != *path));
                }
                Step::Job(_, name) | Step::Enable(name) => {
                    let workload = workload(name);
                    prop_assert!(workload.is_some_and(|name| !plan.held.contains_key(&name)));
                }
                Step::Sweep(name) => {
                    prop_assert!(to.manifest.units.iter().all(|unit| unit.workload.as_str() != name));
                }
                _ => {}
            }
        }
    }
}
