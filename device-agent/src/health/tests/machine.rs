//! Health checks on a machine in memory, next to the loop that changes it.

use flotta_bundle::Manifest;
use flotta_bundle::wire::Phase;
use tempfile::TempDir;

use super::*;
use crate::converge::{self, Host, Outcome};
use crate::ledger::Ledger;

struct Bench {
    world: World,
    ledger: Ledger,
    machine: Host<World, World, World>,
    _state: TempDir,
}

impl Bench {
    fn new() -> (Self, Watcher<World>) {
        let state = tempfile::tempdir().expect("a folder");
        let world = World::default();
        world.state().registry.insert("hello:1".to_owned());
        let mut machine = Host::new(world.clone(), world.clone(), world.clone());
        let (health, watcher) = watch(world.clone(), Clock::new(Timestamp::UNIX_EPOCH));
        machine.health = Some(health);
        let ledger = Ledger::open(state.path()).expect("a ledger");
        let bench = Self {
            world,
            ledger,
            machine,
            _state: state,
        };
        (bench, watcher)
    }

    async fn converge(&mut self, bundle: &Bundle) -> Outcome {
        for content in &bundle.contents {
            let digest = flotta_bundle::Digest::of(content);
            if !self.ledger.blobs().has(&digest) {
                let mut partial = self.ledger.blobs().partial(&digest).expect("a file");
                partial.append(content).expect("written");
                partial.finish().expect("kept").expect("as it should be");
            }
        }
        let mut progress = |_: Phase, _: &[WorkloadReport]| {};
        let now = || Timestamp::UNIX_EPOCH;
        let Self {
            ledger, machine, ..
        } = self;
        converge::converge(&bundle.manifest, 7, ledger, machine, &now, &mut progress).await
    }

    async fn look(&mut self, bundle: &Bundle) -> WorkloadReport {
        let reports = converge::look(&bundle.manifest, &self.ledger, &mut self.machine).await;
        reports.into_iter().next().expect("a workload")
    }

    fn stops(&mut self) -> Vec<String> {
        let health = self.machine.health.as_mut().expect("health");
        let stops = health.stops().into_iter();
        stops.map(|problem| problem.to_string()).collect()
    }

    fn fails(&self, command: &str, fails: bool) {
        let commands = &mut self.world.state().faults.commands;
        if fails {
            commands.insert(command.to_owned());
        } else {
            commands.remove(command);
        }
    }
}

/// `web` of this image, whose checks run these commands.
fn bundle(image: &str, commands: &[(Purpose, &str)]) -> Bundle {
    let web = Workload::new("web").image(image, flotta_bundle::manifest::Pull::Missing);
    let mut bundle = Bundle::of(&[web]);
    let checks = commands.iter().map(|(purpose, command)| HealthCheck {
        action: Action::Exec {
            command: vec![(*command).to_owned()],
        },
        ..check(*purpose)
    });
    bundle.manifest.health = checks.collect();
    let bytes = bundle.manifest.encode();
    bundle.manifest = Manifest::parse(&bytes).expect("a manifest by the rules");
    bundle
}

#[tokio::test(start_paused = true)]
async fn what_checks_say_is_reported_and_decides_nothing_else() {
    let both = [(Purpose::Liveness, "live"), (Purpose::Readiness, "ready")];
    let wanted = bundle("hello:1", &both);
    let (mut bench, watcher) = Bench::new();
    let mut watcher = pin!(watcher.run());
    let mut pass = async |seconds| {
        let passed = timeout(Duration::from_secs(seconds), &mut watcher).await;
        passed.expect_err("it runs for ever");
    };
    let outcome = bench.converge(&wanted).await;
    assert!(outcome.complete, "{outcome:?}");
    assert_eq!(outcome.workloads[0].state, WorkloadState::Starting);
    pass(1).await;
    let report = bench.look(&wanted).await;
    assert_eq!(
        (report.state, report.problem),
        (WorkloadState::Running, None)
    );

    bench.world.log();
    bench.fails("ready", true);
    pass(40).await;
    let report = bench.look(&wanted).await;
    let problem = report.problem.expect("it is not ready");
    assert_eq!(problem.to_string(), "FLT0531: not ready: `ready`: exited 1");
    assert_eq!(report.state, WorkloadState::Running);
    // converging again has nothing to do, and is as complete as before
    let outcome = bench.converge(&wanted).await;
    assert!(outcome.complete, "{outcome:?}");
    assert_eq!(outcome.workloads[0].problem, Some(problem));
    bench.fails("ready", false);
    pass(20).await;
    assert_eq!(bench.look(&wanted).await.problem, None);
    assert_eq!(bench.world.log(), [], "nothing was stopped or started");

    // liveness: another container is started, and ready again
    let before = bench.world.state().runs["web.service"].invocation.clone();
    bench.fails("live", true);
    pass(35).await;
    bench.fails("live", false);
    let after = bench.world.state().runs["web.service"].invocation.clone();
    assert_ne!(before, after);
    let said = "FLT0532: web.service: liveness check failed: `live`: exited 1";
    assert_eq!(bench.stops(), [said]);
    assert_eq!(bench.look(&wanted).await.state, WorkloadState::Starting);
    pass(1).await;
    assert_eq!(bench.look(&wanted).await.state, WorkloadState::Running);
    pass(1000).await;
    assert_eq!(bench.stops(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_end_is_not_begun_again() {
    let (mut bench, watcher) = Bench::new();
    let mut watcher = pin!(watcher.run());
    let wanted = bundle("hello:1", &[(Purpose::Readiness, "ready")]);
    bench.converge(&wanted).await;
    let world = bench.world.clone();
    let hangs = |hangs: &[&str]| {
        let hangs = hangs.iter().map(|command| (*command).to_owned());
        world.state().faults.hangs = hangs.collect();
    };
    hangs(&["ready"]);
    let passed = timeout(Duration::from_secs(1000), &mut watcher).await;
    passed.expect_err("it runs for ever");
    assert_eq!(world.state().hanging, 1);
    hangs(&[]);
    let problem = bench.look(&wanted).await.problem.expect("it is not ready");
    let late = "the previous one has not ended";
    assert!(problem.detail.ends_with(late), "{problem}");
    let passed = timeout(Duration::from_secs(20), &mut watcher).await;
    passed.expect_err("it runs for ever");
    assert_eq!(bench.look(&wanted).await.problem, None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_waits_for_its_next_image_keeps_the_checks_it_has() {
    let (mut bench, watcher) = Bench::new();
    let mut watcher = pin!(watcher.run());
    let first = bundle("hello:1", &[(Purpose::Liveness, "old")]);
    assert!(bench.converge(&first).await.complete);
    // the next image is in no registry
    let next = bundle("hello:9", &[(Purpose::Liveness, "new")]);
    assert!(!bench.converge(&next).await.complete);
    bench.look(&next).await;
    bench.fails("new", true);
    let passed = timeout(Duration::from_secs(1000), &mut watcher).await;
    passed.expect_err("it runs for ever");
    assert_eq!(bench.stops(), [""; 0]);
    bench.fails("old", true);
    let passed = timeout(Duration::from_secs(35), &mut watcher).await;
    passed.expect_err("it runs for ever");
    assert_eq!(bench.stops().len(), 1);
}

#[test]
fn a_stop_is_the_reason_until_the_unit_ends_otherwise() {
    let (mut health, watcher) = watch(World::default(), Clock::new(Timestamp::UNIX_EPOCH));
    let why = Problem::new(code::UNHEALTHY, "web.service: liveness check failed");
    let stop = Stop {
        unit: "web.service".to_owned(),
        invocation: "a".to_owned(),
        why: why.clone(),
    };
    watcher.stops.send(stop).expect("heard");
    let unit = |invocation: &str, active: &str| UnitState {
        invocation: invocation.to_owned(),
        active: active.to_owned(),
        ..UnitState::default()
    };
    let mut asked = |unit| health.why_stopped("web.service", &unit);
    assert_eq!(asked(unit("a", "activating")), Some(why.clone()));
    assert_eq!(asked(unit("b", "active")), Some(why.clone()));
    assert_eq!(asked(unit("b", "failed")), None, "it failed by itself");
    assert_eq!(asked(unit("b", "active")), None);
    assert_eq!(health.stops(), [why]);
}
