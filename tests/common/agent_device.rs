//! A device with a complete agent in this process, on a machine in memory.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;

use flotta_agent::clock::Clock;
use flotta_agent::config::Config;
use flotta_agent::enrol::Join;
use flotta_agent::identity::{Identity, joined};
use flotta_agent::ledger::Ledger;
use flotta_agent::pull::Proxies;
use flotta_agent::run;
use flotta_agent::status::Status;
use flotta_bundle::wire::Hardware;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::common::{Fixture, stderr};
use crate::host::FakeMachine;

/// A joined device.
pub struct AgentDevice {
    pub config: Config,
    pub machine: FakeMachine,
    _folder: TempDir,
}

impl AgentDevice {
    /// Joins with a token; the agent is not started yet.
    pub async fn join(fixture: &Fixture, name: &str) -> Self {
        Self::join_with(fixture, name, &[]).await
    }

    /// The same, with more options for the token.
    pub async fn join_with(fixture: &Fixture, name: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let owner = std::fs::metadata(folder.path()).unwrap();
        accounts(&root, &owner);
        let config = Config {
            state: folder.path().join("state"),
            runtime: folder.path().join("run"),
            root: root.clone(),
            ..Config::default()
        };
        config.make_state().unwrap();
        std::fs::create_dir(&config.runtime).unwrap();

        let output = fixture
            .flotta(&[&["token", "create", name], options].concat())
            .await;
        assert!(output.status.success(), "{}", stderr(&output));
        let join = Join::parse(&output.stdout, "join".as_ref(), None).unwrap();
        let (identity, _) = Identity::open_or_make(&config.identity()).unwrap();
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let client = join.client(&clock, &Proxies::default()).unwrap();
        let hardware = Hardware::default();
        let asked = join.ask(&identity, &hardware, &client, None, || {});
        let (device, pem) = asked.await.unwrap().unwrap();
        let mut ledger = Ledger::open(&config.state).unwrap();
        join.keep(&identity, &mut ledger, device, &pem).unwrap();
        Self {
            config,
            machine: FakeMachine::new(&root),
            _folder: folder,
        }
    }

    /// Runs the agent until `script` is done. The future is boxed, because several are nested.
    pub fn play<'a, T: 'a>(
        &'a self,
        script: impl Future<Output = T> + 'a,
    ) -> Pin<Box<dyn Future<Output = T> + 'a>> {
        let script = Box::pin(script);
        Box::pin(async move {
            let ledger = Ledger::open(&self.config.state).unwrap();
            let joined = joined(&self.config.identity()).unwrap().unwrap();
            let clock = Clock::new(Timestamp::UNIX_EPOCH);
            let agent = run::serve(&self.config, &clock, ledger, joined, self.machine.host());
            tokio::select! {
                ended = agent => panic!("the agent ended: {ended:?}"),
                done = script => done,
            }
        })
    }

    /// The release that the device has accepted.
    pub fn accepted(&self) -> Option<u64> {
        self.status()?.live.release
    }

    /// The status that the device shows.
    pub fn status(&self) -> Option<Status> {
        Status::read(&self.config.status()).unwrap()
    }

    /// Whether a file of the fleet on the machine contains this text.
    pub fn has(&self, text: &str) -> bool {
        let contents = self.machine.files().into_values().flatten();
        contents
            .map(|content| String::from_utf8_lossy(&content).into_owned())
            .any(|content| content.contains(text))
    }
}

/// Gives the machine's only account the name that owns a fleet's files.
fn accounts(root: &std::path::Path, owner: &Metadata) {
    for (list, id) in [("passwd", owner.uid()), ("group", owner.gid())] {
        let line = format!("root:x:{id}:{id}::/:\n");
        std::fs::write(root.join("etc").join(list), line).unwrap();
    }
}
