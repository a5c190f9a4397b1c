//! What lists and watches show.

use super::*;

#[tokio::test]
async fn the_events_of_one_device_are_found_among_all() {
    let bench = Bench::new();
    bench.join("a").await;
    for at in 0..1001 {
        let event = crate::store::FleetEvent {
            id: 0,
            time: Timestamp::now(),
            device: Some(name(&format!("b{}", at % 10))),
            reason: "Applied".to_owned(),
            message: String::new(),
            warning: false,
        };
        bench.fixture.store.add_event(event).await.unwrap();
    }
    let of_a = super::query::Query {
        device: Some(name("a")),
        ..Default::default()
    };
    let events: Vec<EventObject> = bench.list(&of_a.encode()).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].status.object, "device/default/a");
    let one: Vec<Device> = bench.list("?namespace=default&name=a").await;
    assert_eq!(one.len(), 1);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_every_change() {
    let bench = Bench::new();
    bench.join("a").await;
    let mut watch = bench
        .client
        .watch::<Device>("/v1/devices?watch=true")
        .await
        .unwrap();
    let mut next = async || -> Change<Device> {
        let next = tokio::time::timeout(DEADLINE, watch.next()).await;
        next.unwrap().unwrap().expect("the watch goes on")
    };
    let change = next().await;
    assert_eq!(
        (change.what, change.object.metadata.name.as_str()),
        (What::Added, "a")
    );
    bench.join("b").await;
    let change = next().await;
    assert_eq!(
        (change.what, change.object.metadata.name.as_str()),
        (What::Added, "b")
    );
    bench.fixture.publish(1, &[("b", &[Digest::of(b"1")])]);
    let a = name("a");
    let revoked = bench.fixture.enroller.revoke(&a, "ada", Timestamp::now());
    revoked.await.unwrap();
    // it has disappeared from the list
    let change = next().await;
    assert_eq!(
        (change.what, change.object.metadata.name.as_str()),
        (What::Deleted, "a")
    );
}

#[tokio::test]
async fn devices_and_workloads_are_found_by_what_they_run() {
    let bench = Bench::new();
    let image = "registry.example/web:1@sha256:".to_owned() + &"a".repeat(64);
    let with_image = |reference: &str| Manifest {
        schema: 1,
        files: Vec::new(),
        units: Vec::new(),
        images: vec![Image {
            reference: reference.to_owned(),
            digest: Some(reference.split_once('@').unwrap().1.parse().unwrap()),
            pull: Pull::Missing,
            workloads: vec![flotta_bundle::Owner::workload("web")],
        }],
        health: Vec::new(),
        settings: Settings::default(),
    };
    let manifest = with_image(&image).encode();
    let digest = Digest::of(&manifest);
    let blobs = BTreeMap::from([(digest, manifest)]);
    bench.fixture.depot.put_blobs(&blobs).await.unwrap();
    bench
        .fixture
        .publish(1, &[("a", &[digest]), ("b", &[digest])]);
    for device in ["a", "b"] {
        let machine = bench.join(device).await;
        let member = bench.fixture.store.member(&machine.name).unwrap();
        let applied = Applied {
            manifest: digest,
            release: 1,
        };
        let report = Report {
            // b has not applied it yet
            applied: (device == "a").then_some(applied),
            workloads: vec![WorkloadReport {
                name: "web".to_owned(),
                state: WorkloadState::Running,
                problem: None,
                since: None,
                restarts: 0,
            }],
            ..report()
        };
        let put =
            bench
                .fixture
                .store
                .put_report(&machine.name, &member, report, HERE, Timestamp::now());
        put.await.unwrap();
    }
    let names = async |query: &str| -> Vec<String> {
        let devices = bench.list::<Device>(query).await.into_iter();
        devices.map(|device| device.metadata.name).collect()
    };
    let by_digest = format!("?image=sha256:{}", "a".repeat(64));
    for query in [
        "?image=registry.example/web",
        "?image=registry.example/web:1",
        &by_digest,
    ] {
        assert_eq!(names(query).await, ["a"], "{query}");
        assert_eq!(bench.list::<Workload>(query).await.len(), 1, "{query}");
    }
    assert!(names("?image=registry.example/other").await.is_empty());
    assert!(
        bench
            .list::<Workload>("?image=registry.example/other")
            .await
            .is_empty()
    );
    assert_eq!(names("?state=updating").await, ["b"]);
    assert_eq!(names("?state=Ready").await, ["a"]);
    assert!(names("?set=tills").await.is_empty());
}

#[tokio::test]
async fn events_are_found_by_device_and_time() {
    let bench = Bench::new();
    let at = |minutes: i64| Timestamp::from_second(1_800_000_000 + 60 * minutes).unwrap();
    for (minutes, device) in [(0, "a"), (1, "b"), (2, "a"), (3, "a")] {
        let event = crate::store::FleetEvent {
            id: 0,
            time: at(minutes),
            device: Some(name(device)),
            reason: "Applied".to_owned(),
            message: minutes.to_string(),
            warning: false,
        };
        bench.fixture.store.add_event(event).await.unwrap();
    }
    let messages = async |query: &Query| -> Vec<String> {
        let events = bench.list::<EventObject>(&query.encode()).await.into_iter();
        events.map(|event| event.status.message).collect()
    };
    let query = Query {
        device: Some(name("a")),
        since: Some(at(1)),
        ..Query::default()
    };
    assert_eq!(messages(&query).await, ["2", "3"]);
    let newest = Query {
        limit: Some(1),
        ..query
    };
    assert_eq!(messages(&newest).await, ["3"]);
    assert_eq!(messages(&Query::default()).await.len(), 4);
}

#[tokio::test]
async fn a_watch_is_silent_about_heartbeats_and_tells_what_went_first() {
    let bench = Bench::new();
    let machine = bench.join("a").await;
    let git = |names: &[&str]| {
        let described = names.iter().map(|a| (name(a), Described::default()));
        bench.fixture.index.describe(Arc::new(described.collect()));
    };
    git(&["b"]);
    let member = bench.fixture.store.member(&machine.name).unwrap();
    member.saw(Timestamp::now());
    let watch = bench.client.watch::<Device>("/v1/devices?watch=true").await;
    let mut watch = watch.unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(DEADLINE, watch.next()).await;
        let change = next.unwrap().unwrap().expect("the watch goes on");
        (change.what, change.object.metadata.name)
    };
    assert_eq!(next().await, (What::Added, "a".to_owned()));
    assert_eq!(next().await, (What::Added, "b".to_owned()));
    // a heartbeat is not reported; that `b`, which was only in Git, has joined, is
    member.saw(Timestamp::now() + jiff::SignedDuration::from_secs(1));
    bench.join("b").await;
    assert_eq!(next().await, (What::Deleted, "b".to_owned()));
    assert_eq!(next().await, (What::Added, "b".to_owned()));
}
