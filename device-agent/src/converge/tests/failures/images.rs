//! Images that cannot be pulled, or do not fit on the disk.

use super::*;

#[test]
fn an_image_that_cannot_be_pulled_holds_only_its_workload() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    bench.converge(&Bundle::of(&[radio.clone(), web.clone()]));
    bench.world.log();
    let next = Bundle::of(&[
        radio.says("Environment=A=b"),
        web.image("gone:1", Pull::Missing),
    ]);
    let outcome = bench.converge(&next);
    let (state, said) = problem(&outcome, "web");
    assert_eq!(state, WorkloadState::Running, "what runs of it goes on");
    assert_eq!(said, "FLT0501: image gone:1: gone:1: manifest unknown");
    assert_eq!(problem(&outcome, "radio"), RUNNING);
    assert!(!outcome.complete && outcome.retry);
    assert_eq!(bench.starts(), ["radio.service"]);
    bench.world.state().registry.insert("gone:1".to_owned());
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
    assert_eq!(bench.starts(), ["web.service"]);
}

#[test]
fn an_image_that_does_not_fit_says_so_and_what_runs_goes_on() {
    let mut bench = Bench::new();
    let [radio, web] = two();
    bench.converge(&Bundle::of(&[radio.clone(), web.clone()]));
    bench.world.log();
    bench
        .world
        .state()
        .faults
        .large
        .insert("hello:2".to_owned());
    let next = Bundle::of(&[radio, web.image("hello:2", Pull::Missing)]);
    let outcome = bench.converge(&next);
    let (state, said) = problem(&outcome, "web");
    assert_eq!(state, WorkloadState::Running);
    assert!(said.starts_with("FLT0513: image hello:2: "), "{said}");
    assert!(bench.world.log().is_empty(), "nothing is touched");
    bench.world.state().faults.large.clear();
    assert!(bench.converge(&next).complete);
    bench.assert_reached(&next);
}

#[test]
fn images_come_before_anything_changes_and_progress_says_so() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&two());
    let (outcome, said) = bench.watched(&bundle);
    assert!(outcome.complete);
    let said: Vec<_> = said
        .iter()
        .map(|(phase, reports)| (*phase, reports.iter().map(|r| r.state).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        said,
        [
            (Phase::Fetching, vec![WorkloadState::Pulling; 2]),
            (Phase::Applying, vec![WorkloadState::Starting; 2]),
        ]
    );
    let log = bench.world.log();
    let [Action::Pull(image), Action::Start(_), Action::Start(_)] = log.as_slice() else {
        panic!("{log:?}");
    };
    assert_eq!(image, "hello:1");
    let (outcome, said) = bench.watched(&bundle);
    assert!(outcome.complete && said.is_empty() && bench.world.log().is_empty());
}

#[test]
fn always_pulls_at_each_new_manifest_that_starts_the_workload() {
    let mut bench = Bench::new();
    let web = || Workload::new("web").image("hello:1", Pull::Always);
    let pull = Action::Pull("hello:1".to_owned());
    let pulls = |bench: &Bench| bench.world.log().iter().filter(|did| **did == pull).count();
    bench.converge(&Bundle::of(&[web()]));
    assert_eq!(pulls(&bench), 1);
    bench.world.state().stop("web.service");
    bench.converge(&Bundle::of(&[web()]));
    assert_eq!(pulls(&bench), 0, "a repair is no new manifest");
    bench.converge(&Bundle::of(&[
        web(),
        Workload::new("radio").image("hello:2", Pull::Missing),
    ]));
    assert_eq!(pulls(&bench), 0, "another workload's manifest");
    bench.converge(&Bundle::of(&[web().says("Environment=A=b")]));
    assert_eq!(pulls(&bench), 1);
}

#[test]
fn never_means_that_the_image_must_be_there() {
    let mut bench = Bench::new();
    let bundle = Bundle::of(&[Workload::new("web").image("hello:1", Pull::Never)]);
    let outcome = bench.converge(&bundle);
    assert_failed(&outcome, "web", "FLT0501", "imagePullPolicy is Never");
    assert_eq!(bench.world.log(), []);
    bench.world.state().images.insert("hello:1".to_owned());
    assert!(bench.converge(&bundle).complete);
    bench.assert_reached(&bundle);
}
