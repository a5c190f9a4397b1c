//! Removals by a commit, and sources that are reset or missing: a server in this process, devices with the real protocol.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::joined;
use common::{Fixture, Running, device, eventually, stderr, stdout};
use flotta_bundle::{DeviceName, Digest};
use flotta_reconciler::admin::resource::{Device, ReleaseObject};

const NAMES: [&str; 6] = ["shop-1", "shop-2", "shop-3", "shop-4", "shop-5", "shop-6"];

/// A workload on every device.
fn workload(name: &str) -> String {
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata: {{name: {name}}}\nspec:\n  type: pod\n  deviceSelector: {{}}\n  pod:\n    spec:\n      containers:\n        - name: {name}\n          image: registry.example/{name}@sha256:{}\n",
        "a".repeat(64)
    )
}

fn devices(names: &[&str]) -> String {
    names.iter().map(|name| device(name) + "---\n").collect()
}

/// A fleet of six devices that have joined, with two workloads each.
struct Fleet {
    fixture: Fixture,
    joined: Vec<joined::Device>,
    _folders: Vec<tempfile::TempDir>,
}

impl Fleet {
    async fn start() -> (Self, Running) {
        let fixture = Fixture::new();
        fixture.commit_all(
            "first",
            &[
                ("devices.yaml", &devices(&NAMES)),
                ("till.yaml", &workload("till")),
                ("web.yaml", &workload("web")),
            ],
        );
        let server = fixture.start().await;
        server.released(1).await;
        let (mut joined, mut folders) = (Vec::new(), Vec::new());
        for name in NAMES {
            let folder = tempfile::tempdir().unwrap();
            joined.push(joined::Device::join(&fixture, name, folder.path()).await);
            folders.push(folder);
        }
        let fleet = Self {
            fixture,
            joined,
            _folders: folders,
        };
        (fleet, server)
    }

    /// The offer that a device accepts now: the release and the manifest.
    async fn offered(&self, name: &str) -> (u64, Digest) {
        let name: DeviceName = name.parse().unwrap();
        let device = self.joined.iter().find(|device| device.name == name);
        let device = device.unwrap();
        let session = device.client.connect().await.unwrap();
        let accepted = device.accepted(&session).await.unwrap();
        (accepted.release.sequence, accepted.manifest)
    }

    /// Stops the server, and starts it at the same address.
    async fn restart(&self, server: Running, meanwhile: impl FnOnce()) -> Running {
        let mut config = self.fixture.config();
        config.listen = server.about.listen;
        server.stop().await;
        meanwhile();
        self.fixture.start_with(config).await
    }

    async fn flotta(&self, arguments: &[&str]) -> String {
        let output = self.fixture.flotta(arguments).await;
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_removes_everything_is_held_over_a_restart_until_someone_allows_it() {
    let (fleet, server) = Box::pin(Fleet::start()).await;
    let (_, before) = fleet.offered("shop-1").await;
    let files = [("devices.yaml", ""), ("till.yaml", ""), ("web.yaml", "")];
    let commit = fleet.fixture.commit_all("tidy up", &files);
    let short = &commit[..7];
    assert_eq!(
        server.held(&commit).await,
        "would remove till from 6 of 6 devices and 1 more workload (limit 30 %), and leave no device in Git"
    );
    assert_eq!(fleet.offered("shop-1").await, (1, before));
    assert_eq!(server.states().await, ["Held", "InForce"]);
    let list = fleet.fixture.flotta(&["get", "releases"]).await;
    assert!(stdout(&list).contains("Held"), "{}", stdout(&list));
    assert!(
        stderr(&list).contains(&format!("flotta describe release {short}")),
        "{}",
        stderr(&list)
    );
    let described = fleet.flotta(&["describe", "release", short]).await;
    for part in [
        "default/till",
        "6 of 6",
        "default/shop-6",
        "flotta release allow",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }

    // the same after a restart, without new events; a device that joins meanwhile gets the release in force
    let server = fleet.restart(server, || {}).await;
    server.held(&commit).await;
    assert_eq!(server.states().await, ["Held", "InForce"]);
    let folder = tempfile::tempdir().unwrap();
    let new = joined::Device::join(&fleet.fixture, "shop-7", folder.path()).await;
    server.released(2).await;
    let session = new.client.connect().await.unwrap();
    assert_eq!(new.accepted(&session).await.unwrap().manifest, before);
    assert_eq!(server.states().await, ["InForce", "Held", "Superseded"]);

    assert_eq!(
        fleet.flotta(&["release", "allow", short]).await,
        format!("{short} allowed\n")
    );
    server.released(3).await;
    let (sequence, after) = fleet.offered("shop-1").await;
    assert_eq!(sequence, 3);
    assert_ne!(after, before);
    assert!(server.event("Released").await.contains("was allowed by"));
    let again = fleet.fixture.flotta(&["release", "allow", short]).await;
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    assert!(stderr(&again).contains("FLT0608"), "{}", stderr(&again));
    println!("mass changes: 1 tried, 1 held, 1 allowed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_lets_itself_through_by_its_trailer_and_a_newer_one_takes_the_place_of_a_held_one()
{
    let (fleet, server) = Box::pin(Fleet::start()).await;
    let held = fleet.fixture.commit_all("no tills", &[("till.yaml", "")]);
    assert_eq!(
        server.held(&held).await,
        "would remove till from 6 of 6 devices (limit 30 %)"
    );
    // a mention in the subject is not a trailer
    let spoken = fleet.fixture.commit_all(
        "Flotta-Allow-Removal: true",
        &[("web.yaml", &workload("web2"))],
    );
    server.held(&spoken).await;
    fleet.fixture.commit("till.yaml", &workload("till"));
    let back = fleet.fixture.commit("web.yaml", &workload("web"));
    eventually("the newest commit is in force", || async {
        let releases: Vec<ReleaseObject> = server.list().await;
        let found = releases
            .iter()
            .find(|release| release.status.state == "InForce");
        found
            .filter(|found| found.status.commit.id == back)
            .map(drop)
    })
    .await;
    assert!(!server.states().await.contains(&"Held".to_owned()));
    let meant = "no tills\n\nThey are in the cloud now.\n\nFlotta-Allow-Removal: true\n";
    let meant = fleet.fixture.commit_all(meant, &[("till.yaml", "")]);
    eventually("the commit is in force", || async {
        let releases: Vec<ReleaseObject> = server.list().await;
        let found = releases
            .into_iter()
            .find(|release| release.status.commit.id == meant);
        found.filter(|found| {
            found.status.state == "InForce"
                && found
                    .status
                    .details
                    .allowed_by
                    .contains("Flotta-Allow-Removal")
        })
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_leaves_git_keeps_what_it_runs_until_it_is_let_go() {
    let (fleet, server) = Box::pin(Fleet::start()).await;
    let (_, before) = fleet.offered("shop-6").await;
    let refused = fleet.fixture.flotta(&["decommission", "shop-6"]).await;
    assert!(stderr(&refused).contains("FLT0609"), "{}", stderr(&refused));
    fleet.fixture.commit("devices.yaml", &devices(&NAMES[..5]));
    server.released(2).await;
    assert_eq!(fleet.offered("shop-6").await, (2, before));
    let message = async || {
        let all: Vec<Device> = server.list().await;
        let found = all
            .into_iter()
            .find(|device| device.metadata.name == "shop-6");
        found.unwrap().status.message
    };
    assert!(
        message().await.contains("left Git, keeps what it runs"),
        "{}",
        message().await
    );
    assert!(
        server
            .event("LeftGit")
            .await
            .contains("flotta decommission default/shop-6")
    );
    // another commit changes the other devices, but not the one that left Git
    fleet.fixture.commit("cam.yaml", &workload("cam"));
    server.released(3).await;
    assert_eq!(fleet.offered("shop-6").await, (3, before));
    assert_ne!(fleet.offered("shop-5").await.1, before);

    let server = fleet.restart(server, || {}).await;
    fleet.flotta(&["decommission", "shop-6"]).await;
    server.released(4).await;
    let (_, after) = fleet.offered("shop-6").await;
    assert_ne!(after, before);
    let devices_now: Vec<Device> = server.list().await;
    let gone = devices_now
        .iter()
        .find(|device| device.metadata.name == "shop-6");
    assert!(
        gone.unwrap()
            .status
            .message
            .contains("flotta revoke default/shop-6")
    );
    // Git has it again, and Git wins
    fleet.fixture.commit("devices.yaml", &devices(&NAMES));
    server.released(5).await;
    assert_eq!(
        fleet.offered("shop-6").await.1,
        fleet.offered("shop-5").await.1
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_allows_a_commit_lets_go_of_what_leaves_with_it_and_of_nothing_that_left_before() {
    let (fleet, server) = Box::pin(Fleet::start()).await;
    let (_, before) = fleet.offered("shop-6").await;
    fleet.fixture.commit("devices.yaml", &devices(&NAMES[..5]));
    server.released(2).await;
    // a commit that is held for another reason, and with which another device leaves
    let four = devices(&NAMES[..4]);
    let held = [("devices.yaml", four.as_str()), ("till.yaml", "")];
    let commit = fleet.fixture.commit_all("no tills", &held);
    server.held(&commit).await;
    fleet.flotta(&["release", "allow", &commit[..7]]).await;
    server.released(3).await;
    let (_, nothing) = fleet.offered("shop-5").await;
    assert_ne!(nothing, before);
    assert_eq!(fleet.offered("shop-6").await, (3, before));
    let described = fleet.flotta(&["describe", "release", "3"]).await;
    assert!(
        described.contains("nothing to run") && described.contains("default/shop-5"),
        "{described}"
    );
    assert!(!described.contains("default/shop-6"), "{described}");
    assert!(
        server.event("LetGo").await.contains("release 3"),
        "an event says so"
    );
    // nor does a trailer, in the first round or a later one
    let meant = "no web\n\nFlotta-Allow-Removal: true\n";
    let files = [("web.yaml", ""), ("cam.yaml", &workload("cam"))];
    fleet.fixture.commit_all(meant, &files);
    server.released(4).await;
    let folder = tempfile::tempdir().unwrap();
    joined::Device::join(&fleet.fixture, "shop-7", folder.path()).await;
    server.released(5).await;
    assert_eq!(fleet.offered("shop-6").await, (5, before));
    // allowing the commit in force is for the devices that left before
    let in_force: Vec<ReleaseObject> = server.list().await;
    let short = &in_force[0].status.commit.id[..7];
    fleet.flotta(&["release", "allow", short]).await;
    server.released(6).await;
    assert_eq!(fleet.offered("shop-6").await, (6, nothing));
    let described = fleet.flotta(&["describe", "release", "6"]).await;
    assert!(described.contains("default/shop-6"), "{described}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_set_back_or_rewritten_is_followed_and_reported() {
    let fixture = Fixture::new();
    let first = fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    fixture.commit("b.yaml", &device("shop-2"));
    server.released(2).await;
    fixture.force(&first);
    server.released(3).await;
    assert!(server.event("HistoryRewritten").await.contains("reset"));
    let releases: Vec<ReleaseObject> = server.list().await;
    assert!(releases[0].status.message.contains("reset"), "{releases:?}");
    server.stop().await;

    // an unrelated history, also when it appears while the server is down
    let other = Fixture::new();
    other.commit("c.yaml", &device("shop-3"));
    std::fs::remove_dir_all(fixture.repository()).unwrap();
    std::fs::rename(other.repository(), fixture.repository()).unwrap();
    let server = fixture.start().await;
    server.released(4).await;
    assert!(
        server
            .event("HistoryRewritten")
            .await
            .contains("is not a descendant of")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_source_is_away_serves_what_it_has_and_says_so() {
    let (fleet, server) = Box::pin(Fleet::start()).await;
    let (_, before) = fleet.offered("shop-1").await;
    let away = fleet.fixture.path().join("away");
    let leaves = || std::fs::rename(fleet.fixture.repository(), &away).unwrap();
    let server = fleet.restart(server, leaves).await;
    assert_eq!(fleet.offered("shop-1").await, (1, before));
    let failed = server.event("SourceUnavailable").await;
    assert!(failed.contains("there is no directory"), "{failed}");
    let status = eventually("the status line", || async {
        let output = fleet.fixture.flotta(&["get", "devices"]).await;
        let said = stderr(&output);
        said.contains("has been unreadable").then_some(said)
    })
    .await;
    assert!(status.contains("release 1 stays in force"), "{status}");
    let json = fleet
        .fixture
        .flotta(&["get", "devices", "-o", "json"])
        .await;
    assert_eq!(stderr(&json), "");
    std::fs::rename(&away, fleet.fixture.repository()).unwrap();
    server.event("SourceAvailable").await;
    let output = fleet.fixture.flotta(&["get", "devices"]).await;
    assert_eq!(stderr(&output), "");
    server.stop().await;

    // without a fleet, a missing source is taken for a typing error
    let empty = Fixture::new();
    let mut config = empty.config();
    config.source = empty.path().join("nowhere").display().to_string();
    let error = flotta_reconciler::serve::Server::open(config)
        .await
        .unwrap_err();
    assert_eq!(error.code().id, "FLT0601");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_commit_shows_all_its_errors() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    let bad = |name: &str| device(name) + "spek: {}\n";
    let commit = fixture.commit_all(
        "three mistakes",
        &[
            ("b.yaml", &bad("b")),
            ("c.yaml", &bad("c")),
            ("d.yaml", "kind: EdgeDevice\nmetadata: ["),
        ],
    );
    let said = server.refused().await;
    for place in [
        "FLT0103 b.yaml:5:1",
        "FLT0103 c.yaml:5:1",
        "FLT0101 d.yaml:2:",
    ] {
        assert!(said.contains(place), "{said}");
        let message = server.event("Refused").await;
        assert!(message.contains(place), "{message}");
    }
    let output = fixture.flotta(&["get", "releases", "-o", "json"]).await;
    let list: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let errors = list["items"][0]["status"]["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(errors[1]["place"], "c.yaml:5:1");
    let text = fixture.flotta(&["describe", "release", &commit[..7]]).await;
    assert!(
        stdout(&text).contains("unknown field `spek`"),
        "{}",
        stdout(&text)
    );
    server.stop().await;
}
