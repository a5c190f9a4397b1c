//! Files and units that move from one workload to another, and units that others start.

use flotta_bundle::Owner;
use flotta_bundle::manifest::Pull;

use super::*;
use crate::backend::fake::bundle::Job;

/// The same files and units, of a workload with another name.
fn renamed(bundle: &Bundle, from: &str, to: &str) -> Bundle {
    let mut bundle = bundle.clone();
    let owner = Owner::workload(to);
    let rename = |of: &mut Owner| {
        if *of == Owner::workload(from) {
            *of = owner.clone();
        }
    };
    let Manifest {
        files,
        units,
        images,
        ..
    } = &mut bundle.manifest;
    for unit in units {
        rename(&mut unit.workload);
    }
    for file in files {
        file.belongs_to.iter_mut().for_each(rename);
    }
    for image in images {
        image.workloads.iter_mut().for_each(rename);
    }
    let bytes = bundle.manifest.encode();
    bundle.manifest = Manifest::parse(&bytes).expect("a manifest by the rules");
    bundle
}

#[test]
fn what_moves_to_another_workload_is_kept_with_it() {
    let mut bench = Bench::new();
    let web = |image: &str| Workload::new("web").image(image, Pull::Missing);
    bench.converge(&Bundle::of(&[web("hello:1").config("greeting", "hello")]));
    let shop = renamed(
        &Bundle::of(&[web("hello:1").config("greeting", "hello")]),
        "web",
        "shop",
    );
    assert!(bench.converge(&shop).complete);
    let files = &bench.agent().0.owned().files;
    assert!(
        files
            .values()
            .all(|owner| *owner == Owner::workload("shop")),
        "{files:?}"
    );
    // its next version cannot be had: it is left as it is, with the file that it would not have any more
    let next = renamed(&Bundle::of(&[web("gone:1")]), "web", "shop");
    let outcome = bench.converge(&next);
    assert!(problem(&outcome, "shop").1.starts_with("FLT0501"));
    let path = "/etc/flotta/workloads/web/conf/greeting";
    assert!(bench.world.state().files.contains_key(path));
}

#[test]
fn what_a_held_workload_takes_over_runs_on() {
    let mut bench = Bench::new();
    bench.converge(&Bundle::of(&[Workload::new("web")]));
    let next = Bundle::of(&[Workload::new("web").image("gone:1", Pull::Missing)]);
    let next = renamed(&next, "web", "front");
    for _ in 0..2 {
        bench.world.log();
        let outcome = bench.converge(&next);
        assert!(problem(&outcome, "front").1.starts_with("FLT0501"));
        let log = bench.world.log();
        let swept = log.iter().any(|did| matches!(did, Action::Sweep(_)));
        assert!(!swept, "its container still runs: {log:?}");
    }
}

#[test]
fn the_image_of_a_job_is_fetched_before_its_timer_starts_it() {
    let mut bench = Bench::new();
    let job = |image: &str| {
        Workload::new("job")
            .job(Job::Timer)
            .image(image, Pull::Missing)
    };
    assert!(bench.converge(&Bundle::of(&[job("hello:1")])).complete);
    let outcome = bench.converge(&Bundle::of(&[job("gone:1")]));
    assert!(
        problem(&outcome, "job").1.starts_with("FLT0501"),
        "{outcome:?}"
    );
    let state = bench.world.state();
    let Entry::File { content, .. } = &state.files["/etc/containers/systemd/job.container"] else {
        panic!("a file");
    };
    let text = String::from_utf8_lossy(content);
    assert!(text.contains("hello:1"), "it is left as it is: {text}");
}
