//! The server is lost, and a new one is made from what is left: yesterday's backup, or the keys and Git. Real server, real
//! agents, machines in memory; for real machines see `tests/lab/restored.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "tests"
)]

#[path = "common/agent_device.rs"]
mod agent_device;
mod common;
#[path = "../device-agent/tests/hostile/host.rs"]
mod host;

use std::net::SocketAddr;
use std::time::Duration;

use agent_device::AgentDevice;
use common::{Fixture, Running, stderr, stdout};
use flotta_reconciler::admin::resource::{Device, EventObject, Request};
use flotta_reconciler::serve::Config;

/// Deadline for everything: agents wait up to a minute between two tries.
const DEADLINE: Duration = Duration::from_secs(240);

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let begun = tokio::time::Instant::now();
    loop {
        match look().await {
            Ok(()) => return,
            Err(last) if begun.elapsed() > DEADLINE => panic!("not in time: {what}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// These devices, and a workload on each that shows `page`.
fn fleet(devices: &[&str], page: &str) -> String {
    let devices: Vec<String> = devices
        .iter()
        .map(|name| {
            format!(
                "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata:\n  name: {name}\n\
                 spec:\n  heartbeat:\n    periodSeconds: 1\n---\n"
            )
        })
        .collect();
    let devices = devices.concat();
    format!(
        "{devices}apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDeviceSet\nmetadata:\n  name: visitors\n\
         spec:\n  heartbeat:\n    periodSeconds: 1\n---\n\
         apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata:\n  name: web\nspec:\n  type: pod\n  \
         deviceSelector: {{}}\n  pod:\n    spec:\n      containers:\n        - name: web\n          image: registry.example/web:1\n          \
         volumeMounts: [{{name: site, mountPath: /site}}]\n      volumes:\n        - name: site\n          configMap: {{name: site}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: site}}\ndata:\n  page: {page:?}\n"
    )
}

/// A fleet whose server always has the same address.
struct Site {
    fixture: Fixture,
    listen: Option<SocketAddr>,
}

impl Site {
    fn config(&self) -> Config {
        let config = self.fixture.config();
        Config {
            listen: self.listen.unwrap_or(config.listen),
            ..config
        }
    }

    async fn start(&mut self) -> Running {
        let server = self.fixture.start_with(self.config()).await;
        self.listen = Some(server.about.listen);
        server
    }

    fn data(&self) -> String {
        self.fixture.path().join("data").display().to_string()
    }

    /// Removes the server's data directory.
    fn lose(&self) {
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    /// Runs `flotta`, and returns its output on both streams.
    async fn flotta(&self, arguments: &[&str]) -> String {
        let output = self.fixture.flotta(arguments).await;
        let said = stdout(&output) + &stderr(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }
}

/// Waits until the device has the page, and reports it.
async fn shows(server: &Running, shop: &AgentDevice, name: &str, page: &str) {
    eventually(&format!("{name} shows {page}"), async || {
        let devices: Vec<Device> = server.list().await;
        let device = devices
            .into_iter()
            .find(|found| found.metadata.name == name);
        let state = device.as_ref().map(|device| device.status.state.clone());
        if shop.has(page) && state.as_deref() == Some("Ready") {
            return Ok(());
        }
        Err(format!(
            "{device:?} {:?}",
            shop.status().map(|status| status.link)
        ))
    })
    .await;
}

async fn requests(server: &Running) -> Vec<(String, String)> {
    let requests: Vec<Request> = server.list().await;
    let requests = requests.into_iter();
    requests
        .map(|request| (request.metadata.name, request.status.message))
        .collect()
}

const KNOWN: &str = "certificate of this fleet, not in the store: joined after the backup?";

/// A person approves the devices that joined after the backup: `later` is in Git, `guest` is not.
async fn take_back(site: &Site, server: &Running, later: &AgentDevice, guest: &AgentDevice) {
    let shown = later.status().unwrap().link.problem.unwrap();
    assert_eq!(shown.code, "FLT0423");
    assert_eq!(shown.help, "on the server: flotta approve default/later");
    // the set of the device that is not in Git is lost, and an empty manifest would take away what it runs
    let output = site.fixture.flotta(&["approve", "--restored"]).await;
    let said = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("default/later approved"), "{said}");
    assert!(said.contains("default/guest still waiting"), "{said}");
    assert!(
        said.contains("flotta approve default/guest --set"),
        "{said}"
    );
    shows(server, later, "later", "tomorrow").await;
    assert!(guest.has("evening"));
    let approve = ["approve", "guest", "--set", "visitors"];
    assert!(
        site.flotta(&approve)
            .await
            .contains("default/guest approved")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_backup_of_yesterday_every_device_follows_the_next_commit_untouched() {
    let mut site = Site {
        fixture: Fixture::new(),
        listen: None,
    };
    let all = ["old", "thief", "later", "guest"];
    site.fixture
        .commit("fleet.yaml", &fleet(&all[..2], "yesterday"));
    let server = site.start().await;
    server.released(1).await;
    let (old, thief) = (
        AgentDevice::join(&site.fixture, "old").await,
        AgentDevice::join(&site.fixture, "thief").await,
    );
    let script = async {
        shows(&server, &old, "old", "yesterday").await;
        shows(&server, &thief, "thief", "yesterday").await;

        let said = site
            .flotta(&["backup", "--data", &site.data(), "--to", "b.tar"])
            .await;
        assert!(
            said.contains("2 devices") && said.contains("read back"),
            "{said}"
        );

        // after the backup: commits, two devices that join, one of them without being in Git, and one that is revoked
        for (count, page) in ["noon", "evening"].into_iter().enumerate() {
            site.fixture.commit("fleet.yaml", &fleet(&all[..3], page));
            server.released(2 + count as u64).await;
        }
        let later = AgentDevice::join(&site.fixture, "later").await;
        let guest = AgentDevice::join_with(&site.fixture, "guest", &["--set", "visitors"]).await;
        let rest = async {
            for (shop, name) in [(&old, "old"), (&later, "later"), (&guest, "guest")] {
                shows(&server, shop, name, "evening").await;
            }
            shows(&server, &thief, "thief", "evening").await;
            site.flotta(&["revoke", "thief"]).await;
            server.stop().await;
            let before = old.accepted().unwrap();
            site.lose();

            // there is no terminal to ask at, so the revoked devices have to be given
            let restore = ["restore", "b.tar", "--data", &site.data()];
            let output = site.fixture.flotta(&restore).await;
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains("FLT0633"), "{}", stderr(&output));
            let said = site
                .flotta(&[&restore[..], &["--revoked", "thief"]].concat())
                .await;
            assert!(
                said.contains("fleet shops from ") && said.contains("release 1;"),
                "{said}"
            );
            assert!(said.contains("default/thief is revoked"), "{said}");

            let server = site.start().await;
            site.fixture
                .commit("fleet.yaml", &fleet(&all[..3], "tomorrow"));
            shows(&server, &old, "old", "tomorrow").await;
            assert!(old.accepted().unwrap() > before);
            let events: Vec<EventObject> = server.list().await;
            let behind = events
                .iter()
                .filter(|event| event.status.reason == "Behind");
            let behind: Vec<_> = behind.map(|event| event.status.message.clone()).collect();
            assert_eq!(behind.len(), 1, "{behind:?}");
            assert!(
                !behind[0].contains("flotta revoke"),
                "that was answered: {behind:?}"
            );

            // devices that joined since wait for approval, as they may have been revoked since; both sides report it
            eventually("two wait", async || {
                let waiting = requests(&server).await;
                let wanted = ["guest", "later"].map(|name| (name.to_owned(), KNOWN.to_owned()));
                if waiting.len() == 2 && wanted.iter().all(|wanted| waiting.contains(wanted)) {
                    return Ok(());
                }
                Err(format!("{waiting:?}"))
            })
            .await;
            assert!(!later.has("tomorrow") && later.has("evening"));
            let said = site.flotta(&["get", "devices"]).await;
            assert!(
                said.contains("2 devices that joined after the backup ask"),
                "{said}"
            );
            assert!(said.contains("which devices had accepted"), "{said}");
            take_back(&site, &server, &later, &guest).await;
            shows(&server, &guest, "guest", "tomorrow").await;

            // the revoked device keeps what it had
            site.fixture
                .commit("fleet.yaml", &fleet(&all[..3], "after all"));
            for (shop, name) in [(&old, "old"), (&later, "later"), (&guest, "guest")] {
                shows(&server, shop, name, "after all").await;
            }
            assert!(thief.has("evening") && !thief.has("tomorrow") && !thief.has("after all"));
            assert_eq!(requests(&server).await, []);
            server.stop().await;
        };
        later.play(guest.play(rest)).await;
    };
    old.play(thief.play(script)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_git_alone_are_enough() {
    let mut site = Site {
        fixture: Fixture::new(),
        listen: None,
    };
    let all = ["one", "two"];
    site.fixture.commit("fleet.yaml", &fleet(&all, "before"));
    let server = site.start().await;
    server.released(1).await;
    let (one, two) = (
        AgentDevice::join(&site.fixture, "one").await,
        AgentDevice::join(&site.fixture, "two").await,
    );
    site.flotta(&["keys", "export", "--data", &site.data()])
        .await;
    for count in 2..6 {
        site.fixture
            .commit("fleet.yaml", &fleet(&all, &format!("page {count}")));
        server.released(count).await;
    }
    let script = async {
        shows(&server, &one, "one", "page 5").await;
        shows(&server, &two, "two", "page 5").await;
        server.stop().await;
        site.lose();
        let restore = [
            "restore",
            "flotta-keys",
            "--data",
            &site.data(),
            "--none-revoked",
        ];
        let said = site.flotta(&restore).await;
        assert!(said.contains("fleet shops; keys alone"), "{said}");
        let server = site.start().await;
        site.fixture.commit("fleet.yaml", &fleet(&all, "after"));
        eventually("both wait", async || {
            let waiting = requests(&server).await;
            if waiting.len() == 2 && waiting.iter().all(|(_, why)| why == KNOWN) {
                return Ok(());
            }
            Err(format!("{waiting:?}"))
        })
        .await;
        // approval one by one works too
        site.flotta(&["approve", "one"]).await;
        shows(&server, &one, "one", "after").await;
        assert!(two.has("page 5") && !two.has("after"));
        site.flotta(&["approve", "--restored"]).await;
        shows(&server, &two, "two", "after").await;
        assert!(one.accepted().unwrap() > 5);
        server.stop().await;
    };
    one.play(two.play(script)).await;
}
