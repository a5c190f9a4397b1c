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
    Approval, Decided, Denial, RestoredDevices, Revocation, TokenCreated, TokenRequest,
};
use super::resource::{Change, List, What};
use super::*;
use crate::fixture::{DEADLINE, HERE, House, TestDevice, bundle, name, report};
use crate::index::Described;

/// The admin API on a socket in a folder.
struct Desk {
    house: House,
    client: Client,
    data: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Desk {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let house = House::open(data.path());
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
            Arc::clone(&house.fleet),
            house.store.clone(),
            Arc::clone(&house.index),
            house.depot.clone(),
            house.enroller.clone(),
            facts,
            crate::standing::Standing::default(),
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
            house,
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
            .house
            .enroller
            .enrol(request, None, from, Timestamp::now());
        asked.await.unwrap()
    }

    async fn join(&self, device: &str) -> TestDevice {
        let machine = TestDevice::new(device);
        self.ask(&machine, Some(self.house.token(None).await)).await;
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
    // a socket that nobody answers at is a server's that was killed
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
        // nobody else gets as far as the socket
        let folder = mode(path.parent().unwrap());
        assert_eq!(folder & 0o007, 0);
        assert!(group != 0 || folder & 0o070 == 0);
    }
}

#[tokio::test]
async fn a_device_is_shown_with_what_it_wants_runs_and_says() {
    let desk = Desk::new();
    let machine = desk.join("north/shop-1").await;
    let (manifest, blobs) = bundle(b"x");
    desk.house.depot.put_blobs(&blobs).await.unwrap();
    desk.house.publish(7, &[("north/shop-1", &[manifest])]);
    let waits: Vec<Device> = desk.list("").await;
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
    let member = desk.house.store.member(&machine.name).unwrap();
    let kept = desk
        .house
        .store
        .put_report(&machine.name, &member, said, HERE, Timestamp::now());
    kept.await.unwrap();

    let devices: Vec<Device> = desk.list("?namespace=north").await;
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
    let workloads: Vec<Workload> = desk.list("").await;
    assert_eq!(workloads[0].status.message, "shop-1: exited 1");
    assert_eq!(
        (workloads[0].status.failed, workloads[0].status.devices),
        (1, 1)
    );
    assert!(desk.list::<Device>("?namespace=south").await.is_empty());
    assert!(
        desk.list::<Device>("?selector=site%3Dberlin")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_device_that_git_has_is_listed_before_it_joins() {
    let desk = Desk::new();
    desk.join("b").await;
    let known = |name: &str| (name.parse().unwrap(), Described::default());
    desk.house
        .index
        .describe(Arc::new([known("a"), known("b")].into()));
    let devices: Vec<Device> = desk.list("").await;
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
    let desk = Desk::new();
    let terms = crate::store::NewToken {
        set: Some("tills".to_owned()),
        labels: BTreeMap::from([("site".to_owned(), "berlin".to_owned())]),
        ..Default::default()
    };
    let (hour, now) = (jiff::SignedDuration::from_hours(1), Timestamp::now());
    let made = desk.house.enroller.create_token(terms, hour, now).await;
    desk.ask(&TestDevice::new("a"), Some(made.unwrap().0)).await;
    let device: Vec<Device> = desk.list("?selector=site%3Dberlin").await;
    assert_eq!(device[0].status.sets, ["tills"], "Git has no such device");

    let in_git = Described {
        sets: vec!["shops".to_owned(), "base".to_owned()],
        labels: BTreeMap::from([("site".to_owned(), "paris".to_owned())]),
        ..Described::default()
    };
    desk.house
        .index
        .describe(Arc::new([(name("a"), in_git.clone())].into()));
    let device: Vec<Device> = desk.list("").await;
    assert_eq!(device[0].status.sets, in_git.sets);
    assert_eq!(device[0].metadata.labels, in_git.labels);
}

#[tokio::test]
async fn the_events_of_one_device_are_found_among_all() {
    let desk = Desk::new();
    desk.join("a").await;
    for at in 0..1001 {
        let event = crate::store::FleetEvent {
            id: 0,
            time: Timestamp::now(),
            device: Some(name(&format!("b{}", at % 10))),
            reason: "Applied".to_owned(),
            message: String::new(),
            warning: false,
        };
        desk.house.store.add_event(event).await.unwrap();
    }
    let of_a = super::query::Query {
        device: Some(name("a")),
        ..Default::default()
    };
    let events: Vec<EventObject> = desk.list(&of_a.encode()).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].status.object, "device/default/a");
    let one: Vec<Device> = desk.list("?namespace=default&name=a").await;
    assert_eq!(one.len(), 1);
}

#[tokio::test]
async fn the_silence_of_a_device_is_measured_by_its_own_heartbeat() {
    let desk = Desk::new();
    let machine = desk.join("a").await;
    let (manifest, blobs) = bundle(b"x");
    desk.house.depot.put_blobs(&blobs).await.unwrap();
    desk.house.publish(1, &[("a", &[manifest])]);
    let member = desk.house.store.member(&machine.name).unwrap();
    let then = Timestamp::now() - jiff::SignedDuration::from_secs(3 * 60 + 60);
    let kept = desk
        .house
        .store
        .put_report(&machine.name, &member, report(), HERE, then);
    kept.await.unwrap();
    let devices: Vec<Device> = desk.list("").await;
    assert_eq!(devices[0].status.state, "Offline");
}

#[tokio::test]
async fn who_comes_back_without_being_in_git_is_let_in_with_its_set_or_not_at_all() {
    let desk = Desk::new();
    let ask = async |device: &str| {
        let machine = TestDevice::new(device);
        let certified = crate::enrol::Certified {
            device: machine.name.clone(),
            key: machine.fingerprint(),
        };
        let asked = desk.house.enroller.enrol(
            machine.request(None),
            Some(&certified),
            HERE,
            Timestamp::now(),
        );
        asked.await.unwrap();
    };
    ask("a").await;
    ask("b").await;
    let restore = async || {
        let restored: RestoredDevices =
            desk.client.post("/v1/approve-restored", &()).await.unwrap();
        let approved: Vec<_> = restored.approved.into_iter().map(|a| a.device).collect();
        (approved, restored.left)
    };
    // Git was not read yet: nobody knows who is in it
    let (approved, left) = restore().await;
    assert_eq!((approved.len(), left.len()), (0, 2));

    let known = |in_git| Described {
        in_git,
        ..Described::default()
    };
    let described = [(name("a"), known(true)), (name("c"), known(false))];
    desk.house.index.describe(Arc::new(described.into()));
    let (approved, left) = restore().await;
    assert_eq!(approved, [name("a")]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].request.device, name("b"));
    let help = &left[0].problem.help;
    assert!(help.contains("flotta approve default/b --set"), "{help}");
    // it is in no inventory, so no empty manifest is signed for it
    let inventory = async || desk.house.store.inventory().await.unwrap();
    assert_eq!(inventory().await.len(), 1);
    let approval = Approval {
        device: name("b"),
        key: None,
        set: Some("shops".to_owned()),
        labels: BTreeMap::new(),
        replace: false,
    };
    let _: Decided = desk.client.post("/v1/approve", &approval).await.unwrap();
    assert_eq!(inventory().await[1].set.as_deref(), Some("shops"));
}

#[tokio::test]
async fn people_let_in_turn_away_and_revoke() {
    let desk = Desk::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("b"));
    for machine in [&first, &second] {
        assert!(matches!(
            desk.ask(machine, None).await,
            Enrolment::Pending { .. }
        ));
    }
    assert_eq!(desk.list::<Request>("").await.len(), 2);
    let approval = Approval {
        device: name("a"),
        key: None,
        set: Some("tills".to_owned()),
        labels: BTreeMap::from([("site".to_owned(), "berlin".to_owned())]),
        replace: false,
    };
    let decided: Decided = desk.client.post("/v1/approve", &approval).await.unwrap();
    assert_eq!(decided.fingerprint, first.fingerprint().hex());
    let denial = Denial {
        device: name("b"),
        key: None,
        reason: "not ours".to_owned(),
    };
    desk.client
        .post::<_, Decided>("/v1/deny", &denial)
        .await
        .unwrap();
    assert!(desk.list::<Request>("").await.is_empty());
    let reason = "not ours".to_owned();
    assert_eq!(desk.ask(&second, None).await, Enrolment::Denied { reason });

    let devices: Vec<Device> = desk.list("?selector=site%3Dberlin").await;
    assert_eq!(devices[0].status.sets, ["tills"]);
    let revocation = Revocation { device: name("a") };
    desk.client
        .post::<_, Decided>("/v1/revoke", &revocation)
        .await
        .unwrap();
    // it has left: it is shown to those who ask for it, by its state or by its name
    assert!(desk.list::<Device>("").await.is_empty());
    for query in ["?state=ready,revoked", "?namespace=default&name=a"] {
        let devices: Vec<Device> = desk.list(query).await;
        assert_eq!(devices[0].status.state, "Revoked", "{query}");
    }
    // to say it twice is no second event
    let again: Decided = desk.client.post("/v1/revoke", &revocation).await.unwrap();
    assert!(again.again);
    let events = desk.house.events().await;
    let revoked = events.iter().filter(|event| event.0 == "Revoked");
    assert_eq!(revoked.count(), 1);
    let none = Revocation {
        device: name("none"),
    };
    let error = desk
        .client
        .post::<_, Decided>("/v1/revoke", &none)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    // who decided is in the events
    let events = desk.house.events().await;
    let by = |reason: &str| {
        let event = events.iter().find(|event| event.0 == reason);
        let message = &event.unwrap().1;
        message.contains("by root") || message.contains("by user ")
    };
    assert!(
        by("Joined") && by("JoinDenied") && by("Revoked"),
        "{events:?}"
    );
}

#[tokio::test]
async fn tokens_are_made_on_terms_that_can_be_rendered() {
    let desk = Desk::new();
    let made: TokenCreated = desk.client.post("/v1/tokens", &token()).await.unwrap();
    assert_eq!(made.join.server, "https://edge.example.com:7443");
    assert!(made.join.token.is_some());
    let refuse = async |request: TokenRequest| {
        let answer = desk
            .client
            .post::<_, TokenCreated>("/v1/tokens", &request)
            .await;
        match answer.unwrap_err() {
            ClientError::Refused(status, problem) => (status.as_u16(), problem.message),
            other => panic!("{other:?}"),
        }
    };
    for wrong in [
        TokenRequest {
            ttl_seconds: 0,
            ..token()
        },
        TokenRequest {
            ttl_seconds: 31 * 24 * 3600,
            ..token()
        },
        TokenRequest {
            set: Some("Tills!".to_owned()),
            ..token()
        },
        TokenRequest {
            server: Some("http://x".to_owned()),
            ..token()
        },
        TokenRequest {
            labels: BTreeMap::from([("a".to_owned(), "b c".to_owned())]),
            ..token()
        },
    ] {
        assert_eq!(refuse(wrong).await.0, 400);
    }
    assert_eq!(desk.house.store.tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_then_every_change() {
    let desk = Desk::new();
    desk.join("a").await;
    let mut watch = desk
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
    desk.join("b").await;
    let change = next().await;
    assert_eq!(
        (change.what, change.object.metadata.name.as_str()),
        (What::Added, "b")
    );
    desk.house.publish(1, &[("b", &[Digest::of(b"1")])]);
    let a = name("a");
    let revoked = desk.house.enroller.revoke(&a, "ada", Timestamp::now());
    revoked.await.unwrap();
    // it has left the list
    let change = next().await;
    assert_eq!(
        (change.what, change.object.metadata.name.as_str()),
        (What::Deleted, "a")
    );
}

#[tokio::test]
async fn devices_and_workloads_are_found_by_what_they_run() {
    let desk = Desk::new();
    let image = "registry.example/web:1@sha256:".to_owned() + &"a".repeat(64);
    let with_image = |reference: &str| Manifest {
        schema: 1,
        files: Vec::new(),
        units: Vec::new(),
        images: vec![Image {
            reference: reference.to_owned(),
            digest: Some(reference.split_once('@').unwrap().1.parse().unwrap()),
            pull: Pull::Missing,
            workloads: vec!["web".to_owned()],
        }],
        settings: Settings::default(),
    };
    let manifest = with_image(&image).encode();
    let digest = Digest::of(&manifest);
    let blobs = BTreeMap::from([(digest, manifest)]);
    desk.house.depot.put_blobs(&blobs).await.unwrap();
    desk.house.publish(1, &[("a", &[digest]), ("b", &[digest])]);
    for device in ["a", "b"] {
        let machine = desk.join(device).await;
        let member = desk.house.store.member(&machine.name).unwrap();
        let applied = Applied {
            manifest: digest,
            release: 1,
        };
        let report = Report {
            // b has not got there yet
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
            desk.house
                .store
                .put_report(&machine.name, &member, report, HERE, Timestamp::now());
        put.await.unwrap();
    }
    let names = async |query: &str| -> Vec<String> {
        let devices = desk.list::<Device>(query).await.into_iter();
        devices.map(|device| device.metadata.name).collect()
    };
    let by_digest = format!("?image=sha256:{}", "a".repeat(64));
    for query in [
        "?image=registry.example/web",
        "?image=registry.example/web:1",
        &by_digest,
    ] {
        assert_eq!(names(query).await, ["a"], "{query}");
        assert_eq!(desk.list::<Workload>(query).await.len(), 1, "{query}");
    }
    assert!(names("?image=registry.example/other").await.is_empty());
    assert!(
        desk.list::<Workload>("?image=registry.example/other")
            .await
            .is_empty()
    );
    assert_eq!(names("?state=updating").await, ["b"]);
    assert_eq!(names("?state=Ready").await, ["a"]);
    assert!(names("?set=tills").await.is_empty());
}

#[tokio::test]
async fn events_are_found_by_device_and_time() {
    let desk = Desk::new();
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
        desk.house.store.add_event(event).await.unwrap();
    }
    let messages = async |query: &Query| -> Vec<String> {
        let events = desk.list::<EventObject>(&query.encode()).await.into_iter();
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
async fn the_socket_is_its_owners_and_one_servers() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let socket = desk.client.socket().to_owned();
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(listen(Some(&socket), desk.data.path(), Access::User).is_err());
    desk.stop.send(()).unwrap();
    desk.served.await.unwrap().unwrap();
    // what a server left behind is in nobody's way
    assert!(listen(Some(&socket), desk.data.path(), Access::User).is_ok());
}

#[tokio::test]
async fn a_watch_is_silent_about_heartbeats_and_tells_what_went_first() {
    let desk = Desk::new();
    let machine = desk.join("a").await;
    let git = |names: &[&str]| {
        let described = names.iter().map(|a| (name(a), Described::default()));
        desk.house.index.describe(Arc::new(described.collect()));
    };
    git(&["b"]);
    let member = desk.house.store.member(&machine.name).unwrap();
    member.saw(Timestamp::now());
    let watch = desk.client.watch::<Device>("/v1/devices?watch=true").await;
    let mut watch = watch.unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(DEADLINE, watch.next()).await;
        let change = next.unwrap().unwrap().expect("the watch goes on");
        (change.what, change.object.metadata.name)
    };
    assert_eq!(next().await, (What::Added, "a".to_owned()));
    assert_eq!(next().await, (What::Added, "b".to_owned()));
    // a heartbeat is no news; that `b` is no longer only in Git, but has joined, is
    member.saw(Timestamp::now() + jiff::SignedDuration::from_secs(1));
    desk.join("b").await;
    assert_eq!(next().await, (What::Deleted, "b".to_owned()));
    assert_eq!(next().await, (What::Added, "b".to_owned()));
}

#[tokio::test]
async fn a_token_is_listed_with_who_made_it_and_is_taken_back() {
    let desk = Desk::new();
    let made: TokenCreated = desk.client.post("/v1/tokens", &token()).await.unwrap();
    let secret = made.join.token.unwrap();
    let tokens = desk.list::<JoinToken>("").await;
    let (id, status) = (tokens[0].metadata.name.clone(), &tokens[0].status);
    assert_eq!(status.state, "Open");
    assert!(!status.created_by.is_empty());
    let all = serde_json::to_string(&tokens).unwrap();
    assert!(!all.contains(secret.expose()), "{all}");

    let revocation = request::TokenRevocation { token: id };
    for _ in 0..2 {
        let path = "/v1/tokens/revoke";
        let revoked: JoinToken = desk.client.post(path, &revocation).await.unwrap();
        assert_eq!(revoked.status.state, "Revoked");
    }
    let asked = TestDevice::new("a").request(Some(secret));
    let refused = desk
        .house
        .enroller
        .enrol(asked, None, HERE, Timestamp::now())
        .await;
    assert_eq!(refused.unwrap_err().code(), code::TOKEN_REVOKED);
    let events = desk.house.events().await;
    let times = |reason: &str| events.iter().filter(|event| event.0 == reason).count();
    assert_eq!((times("TokenCreated"), times("TokenRevoked")), (1, 1));

    let none = request::TokenRevocation {
        token: "0".repeat(12),
    };
    let error = desk
        .client
        .post::<_, JoinToken>("/v1/tokens/revoke", &none)
        .await;
    assert!(error.unwrap_err().is_not_found());
}
