//! Convergence, on a machine in memory.

mod crashes;
mod failures;
mod owners;
mod people;
mod templates;

use std::cell::RefCell;

use tempfile::TempDir;

use super::*;
use crate::backend::fake::bundle::{Bundle, Workload};
use crate::backend::fake::{Action, Entry, World};

/// A device: its machine, and the state directory of its agent.
struct Bench {
    state: TempDir,
    world: World,
    /// The running agent; none between a crash and the next start.
    agent: Option<(Ledger, Host<World, World, World>)>,
    /// The host's own files and units, which must stay as they are.
    host: (BTreeMap<String, Entry>, BTreeSet<String>),
}

/// A folder in memory where possible, because the ledger is synced thousands of times.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// Keeps the content of a bundle, as if it had been fetched.
fn fetch(ledger: &Ledger, bundle: &Bundle) {
    for content in &bundle.contents {
        let digest = flotta_bundle::Digest::of(content);
        if !ledger.blobs().has(&digest) {
            let mut partial = ledger.blobs().partial(&digest).expect("a file");
            partial.append(content).expect("written");
            partial.finish().expect("kept").expect("as it should be");
        }
    }
}

impl Bench {
    fn new() -> Self {
        let world = World::default();
        let images = ["hello:1", "hello:2"].map(str::to_owned);
        world.state().registry.extend(images);
        Self {
            state: folder(),
            world,
            agent: None,
            host: (BTreeMap::new(), BTreeSet::new()),
        }
    }

    /// The agent, started if it is not running.
    fn agent(&mut self) -> &mut (Ledger, Host<World, World, World>) {
        let Self {
            state,
            world,
            agent,
            ..
        } = self;
        agent.get_or_insert_with(|| {
            let ledger = Ledger::open(state.path()).expect("a ledger");
            let host = Host::new(world.clone(), world.clone(), world.clone());
            (ledger, host)
        })
    }

    fn converge(&mut self, bundle: &Bundle) -> Outcome {
        self.watched(bundle).0
    }

    /// Converges, and returns the progress reports too.
    fn watched(&mut self, bundle: &Bundle) -> (Outcome, Vec<(Phase, Vec<WorkloadReport>)>) {
        let (ledger, host) = self.agent();
        fetch(ledger, bundle);
        let said = RefCell::new(Vec::new());
        let mut progress =
            |phase, reports: &[WorkloadReport]| said.borrow_mut().push((phase, reports.to_vec()));
        let now = || Timestamp::UNIX_EPOCH;
        let outcome = converge(&bundle.manifest, 7, ledger, host, &now, &mut progress);
        (block_on(outcome), said.into_inner())
    }

    fn plan(&mut self, bundle: &Bundle) -> Plan {
        let (ledger, host) = self.agent();
        block_on(plan_only(&bundle.manifest, ledger, host))
    }

    fn events(&mut self) -> Vec<String> {
        let events = self.agent().0.unacknowledged().iter();
        events
            .map(|event| format!("{} {}", event.reason, event.message))
            .collect()
    }

    /// The units that were started since the last time.
    fn starts(&self) -> Vec<String> {
        let log = self.world.log().into_iter();
        let starts = log.filter_map(|did| match did {
            Action::Start(unit) => Some(unit),
            _ => None,
        });
        starts.collect()
    }

    /// Gives the host a file of its own.
    fn host_file(&mut self, path: &str, content: &str) {
        self.world.put(path, content);
        let thing = self.world.state().files[path].clone();
        self.host.0.insert(path.to_owned(), thing);
    }

    /// Checks that the machine is as the bundle says, with nothing else on it but the host's own files and units.
    #[track_caller]
    fn assert_reached(&mut self, bundle: &Bundle) {
        let plan = self.plan(bundle);
        assert_eq!(plan, Plan::default(), "a reached state needs no steps");
        let manifest = &bundle.manifest;
        let owned = self.agent().0.owned().clone();
        let state = self.world.state();
        let digests: BTreeMap<_, _> = manifest
            .files
            .iter()
            .map(|file| (file.path.to_string(), file.digest))
            .collect();
        for (path, thing) in &state.files {
            if let Some(host) = self.host.0.get(path) {
                assert_eq!(thing, host, "{path} is the host's");
                continue;
            }
            let Entry::File {
                content,
                fits: true,
            } = thing
            else {
                panic!("{path}: {thing:?}");
            };
            let found = flotta_bundle::Digest::of(content);
            assert_eq!(digests.get(path), Some(&found), "{path}");
        }
        assert_eq!(state.files.len(), digests.len() + self.host.0.len());
        let names: BTreeSet<_> = manifest
            .units
            .iter()
            .map(|unit| unit.name.clone())
            .collect();
        let known: BTreeSet<_> = state.loaded.keys().cloned().collect();
        assert_eq!(known, &names | &self.host.1, "units that systemd knows");
        for unit in &manifest.units {
            let run = state.runs.get(&unit.name);
            let run = run.unwrap_or_else(|| panic!("{} never ran", unit.name));
            let once = unit.name.ends_with("-network.service");
            let sub = if once { "exited" } else { "running" };
            assert_eq!((run.active, run.sub), ("active", sub), "{}", unit.name);
            for path in &unit.restart_on {
                let with = run.with.get(path.as_str());
                let wanted = digests.get(path.as_str());
                assert_eq!(with, wanted, "{} runs with {path}", unit.name);
            }
            assert!(owned.units[&unit.name].due.is_none(), "{}", unit.name);
        }
        let ran: BTreeSet<_> = state.runs.keys().cloned().collect();
        assert!(ran.is_subset(&(&names | &self.host.1)), "{ran:?}");
        assert_eq!(state.containers, bundle.containers);
        let files: BTreeSet<_> = owned.files.keys().map(ToString::to_string).collect();
        assert_eq!(files, digests.keys().cloned().collect(), "files owned");
        let units: BTreeSet<_> = owned.units.keys().cloned().collect();
        assert_eq!(units, names, "units owned");
    }
}

fn problem(outcome: &Outcome, workload: &str) -> (WorkloadState, String) {
    let mut reports = outcome.workloads.iter();
    let report = reports.find(|report| report.name == workload);
    let report = report.unwrap_or_else(|| panic!("no report of {workload}"));
    let problem = report.problem.as_ref();
    (
        report.state,
        problem.map_or_else(String::new, ToString::to_string),
    )
}
