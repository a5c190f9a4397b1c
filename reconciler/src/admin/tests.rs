mod lists;
mod people;

use std::collections::BTreeMap;

use flotta_bundle::manifest::{Image, Pull, Settings};
use flotta_bundle::wire::{Applied, Enrolment, Report, WorkloadReport, WorkloadState};
use flotta_bundle::{Digest, Manifest, Problem, code};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Client, ClientError};
use super::query::Query;
use super::request::{
    Approval, ClockAccepted, Decided, Denial, RestoredDevices, Revocation, TokenCreated,
    TokenRequest,
};
use super::resource::{Change, List, What};
use super::*;
use crate::fixture::{DEADLINE, Fixture, HERE, TestDevice, bundle, name, report};
use crate::index::Described;

/// The admin API on a socket in a folder.
struct Bench {
    fixture: Fixture,
    client: Client,
    data: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Bench {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(data.path());
        let facts = FleetFacts {
            fleet: "shops".to_owned(),
            trust_root: String::new(),
            trust_root_version: 1,
            device_ca: String::new(),
            device_ca_expires: Timestamp::UNIX_EPOCH,
            server: "https://edge.example.com:7443".to_owned(),
            server_expires: Timestamp::UNIX_EPOCH,
            data: data.path().display().to_string(),
            waiting: 0,
            clock: None,
        };
        let admin = Admin::new(
            Arc::clone(&fixture.fleet),
            fixture.store.clone(),
            Arc::clone(&fixture.index),
            fixture.depot.clone(),
            fixture.enroller.clone(),
            facts,
            crate::server_state::ServerState::default(),
            Arc::new(tokio::sync::Notify::new()),
        );
        let socket = data.path().join("admin.sock");
        let (listener, socket) = listen(Some(&socket), data.path(), Access::User).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(admin.serve(listener, async {
            let _ = stopped.await;
        }));
        Self {
            client: Client::new(socket),
            fixture,
            data,
            stop,
            served,
        }
    }

    async fn list<T: resource::Resource>(&self, query: &str) -> Vec<T> {
        let path = format!("/v1/{}{query}", T::PLURAL);
        self.client.get::<List<T>>(&path).await.unwrap().items
    }

    async fn ask(
        &self,
        machine: &TestDevice,
        token: Option<flotta_bundle::wire::Token>,
    ) -> Enrolment {
        let from = "192.0.2.1".parse().unwrap();
        let request = machine.request(token);
        let asked = self
            .fixture
            .enroller
            .enrol(request, None, from, Timestamp::now());
        asked.await.unwrap()
    }

    async fn join(&self, device: &str) -> TestDevice {
        let machine = TestDevice::new(device);
        self.ask(&machine, Some(self.fixture.token(None).await))
            .await;
        machine
    }
}

fn token() -> TokenRequest {
    TokenRequest {
        device: None,
        ttl_seconds: 3600,
        ask: false,
        set: None,
        labels: BTreeMap::new(),
        server: None,
    }
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("notes.txt");
    std::fs::write(&path, "mine").unwrap();
    assert!(listen(Some(&path), data.path(), Access::User).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    // a socket without a listener was left by a killed server
    let path = data.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    listen(Some(&path), data.path(), Access::User).unwrap();
}

#[tokio::test]
async fn the_socket_is_its_owners_and_its_groups_only_where_that_is_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().unwrap();
    for (access, group) in [(Access::User, 0), (Access::Group, 0o060)] {
        let path = data.path().join(format!("{access:?}/admin.sock"));
        let (_listener, path) = listen(Some(&path), data.path(), access).unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&path) & 0o777, 0o600 | group);
        // nobody else can reach the socket
        let folder = mode(path.parent().unwrap());
        assert_eq!(folder & 0o007, 0);
        assert!(group != 0 || folder & 0o070 == 0);
    }
}

#[tokio::test]
async fn a_device_is_shown_with_what_it_wants_runs_and_says() {
    let bench = Bench::new();
    let machine = bench.join("north/shop-1").await;
    let (manifest, blobs) = bundle(b"x");
    bench.fixture.depot.put_blobs(&blobs).await.unwrap();
    bench.fixture.publish(7, &[("north/shop-1", &[manifest])]);
    let waits: Vec<Device> = bench.list("").await;
    assert_eq!(waits[0].status.state, "Pending");

    let mut said = report();
    said.applied = Some(Applied {
        manifest,
        release: 3,
    });
    said.workloads = vec![WorkloadReport {
        name: "web".to_owned(),
        state: WorkloadState::Failed,
        problem: Some(Problem::new(code::UNIT_FAILED, "exited 1")),
        since: None,
        restarts: 4,
    }];
    let member = bench.fixture.store.member(&machine.name).unwrap();
    let kept = bench
        .fixture
        .store
        .put_report(&machine.name, &member, said, HERE, Timestamp::now());
    kept.await.unwrap();

    let devices: Vec<Device> = bench.list("?namespace=north").await;
    let device = &devices[0];
    assert_eq!(device.metadata.full_name(), "north/shop-1");
    assert_eq!(device.metadata.uid, Some(machine.fingerprint().hex()));
    let status = &device.status;
    assert_eq!(
        (status.state.as_str(), status.message.as_str()),
        ("Failed", "web: exited 1")
    );
    assert_eq!(status.wanted, status.running);
    assert_eq!(status.running.as_ref().unwrap().release, 7);
    assert_eq!(status.conditions.len(), 6);
    let workloads: Vec<Workload> = bench.list("").await;
    assert_eq!(workloads[0].status.message, "shop-1: exited 1");
    assert_eq!(
        (workloads[0].status.failed, workloads[0].status.devices),
        (1, 1)
    );
    assert!(bench.list::<Device>("?namespace=south").await.is_empty());
    assert!(
        bench
            .list::<Device>("?selector=site%3Dberlin")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_device_that_git_has_is_listed_before_it_joins() {
    let bench = Bench::new();
    bench.join("b").await;
    let known = |name: &str| (name.parse().unwrap(), Described::default());
    bench
        .fixture
        .index
        .describe(Arc::new([known("a"), known("b")].into()));
    let devices: Vec<Device> = bench.list("").await;
    let shown = |device: &Device| (device.metadata.full_name(), device.status.message.clone());
    assert_eq!(
        devices.iter().map(shown).collect::<Vec<_>>(),
        [
            ("default/a".to_owned(), "has not joined yet".to_owned()),
            (
                "default/b".to_owned(),
                "has joined, has not reported yet".to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn what_git_says_of_a_device_wins_over_its_token() {
    let bench = Bench::new();
    let terms = crate::store::NewToken {
        set: Some("tills".to_owned()),
        labels: BTreeMap::from([("site".to_owned(), "berlin".to_owned())]),
        ..Default::default()
    };
    let (hour, now) = (jiff::SignedDuration::from_hours(1), Timestamp::now());
    let made = bench.fixture.enroller.create_token(terms, hour, now).await;
    bench
        .ask(&TestDevice::new("a"), Some(made.unwrap().0))
        .await;
    let device: Vec<Device> = bench.list("?selector=site%3Dberlin").await;
    assert_eq!(device[0].status.sets, ["tills"], "Git has no such device");

    let in_git = Described {
        sets: vec!["shops".to_owned(), "base".to_owned()],
        labels: BTreeMap::from([("site".to_owned(), "paris".to_owned())]),
        ..Described::default()
    };
    bench
        .fixture
        .index
        .describe(Arc::new([(name("a"), in_git.clone())].into()));
    let device: Vec<Device> = bench.list("").await;
    assert_eq!(device[0].status.sets, in_git.sets);
    assert_eq!(device[0].metadata.labels, in_git.labels);
}

#[tokio::test]
async fn the_silence_of_a_device_is_measured_by_its_own_heartbeat() {
    let bench = Bench::new();
    let machine = bench.join("a").await;
    let (manifest, blobs) = bundle(b"x");
    bench.fixture.depot.put_blobs(&blobs).await.unwrap();
    bench.fixture.publish(1, &[("a", &[manifest])]);
    let member = bench.fixture.store.member(&machine.name).unwrap();
    let then = Timestamp::now() - jiff::SignedDuration::from_secs(3 * 60 + 60);
    let kept = bench
        .fixture
        .store
        .put_report(&machine.name, &member, report(), HERE, then);
    kept.await.unwrap();
    let devices: Vec<Device> = bench.list("").await;
    assert_eq!(devices[0].status.state, "Offline");
}

#[tokio::test]
async fn the_socket_is_its_owners_and_one_servers() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let socket = bench.client.socket().to_owned();
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(listen(Some(&socket), bench.data.path(), Access::User).is_err());
    bench.stop.send(()).unwrap();
    bench.served.await.unwrap().unwrap();
    // a socket that a server left does not keep another from starting
    assert!(listen(Some(&socket), bench.data.path(), Access::User).is_ok());
}
