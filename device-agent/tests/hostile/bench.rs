//! The test bench: a device with its agent, and the server that it joined.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotta_agent::clock::Clock;
use flotta_agent::config::Config;
use flotta_agent::identity::{Identity, Joined};
use flotta_agent::ledger::Ledger;
use flotta_agent::pull::LinkState;
use flotta_agent::run;
use flotta_agent::status::Status;
use flotta_bundle::verify::Memory;
use flotta_bundle::wire::{Offer, Report};
use flotta_bundle::{Digest, Manifest};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::fleet::{Bundle, Fleet, OURS, device, manifest};
use crate::host::FakeMachine;
use crate::server::{Front, Lie, Server, ServerState};

/// The release that every device has before the server lies.
pub const FIRST: u64 = 5;
/// Deadline for everything, by the paused clock, which only advances while all tasks are idle.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

pub struct Bench {
    pub fleet: Fleet,
    pub server: Server,
    pub config: Config,
    pub machine: FakeMachine,
    pub clock: Clock,
    /// The honest offer: what the server offers when it does not lie.
    pub truth: Offer,
    pub folder: TempDir,
}

/// The part of a machine's state that must not change.
#[derive(PartialEq, Eq)]
pub struct State {
    pub touched: usize,
    pub runs: BTreeMap<String, usize>,
    pub files: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// A clock that the network sets.
pub fn set_clock() -> Clock {
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    clock.set_synchronised(Some(true));
    clock
}

impl Bench {
    /// A device that has joined and has no release yet.
    pub async fn new() -> Self {
        Self::of(Fleet::new()).await
    }

    /// The same in this fleet.
    pub async fn of(fleet: Fleet) -> Self {
        let server = Server::start(&fleet.trust.fleet).await;
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        let owner = std::fs::metadata(folder.path()).expect("a folder");
        std::fs::create_dir_all(root.join("etc")).expect("a folder");
        let account = |list: &str, id: u32| {
            let line = format!("root:x:{id}:{id}::/:\n");
            std::fs::write(root.join("etc").join(list), line).expect("written");
        };
        account("passwd", owner.uid());
        account("group", owner.gid());
        let config = Config {
            state: folder.path().join("state"),
            runtime: folder.path().join("run"),
            root: root.clone(),
            ..Config::default()
        };
        config.make_state().expect("a folder");
        std::fs::create_dir(&config.runtime).expect("a folder");
        let (identity, _) = Identity::open_or_make(&config.identity()).expect("keys");
        let (name, of) = (device(OURS), &fleet.trust.fleet);
        let csr = identity.csr(&name).expect("a request");
        let certificate = server.authority.device(&csr, &name.identity(of));
        identity
            .keep_certificate(&certificate, of, &name)
            .expect("kept");
        let joined = Joined {
            fleet: of.clone(),
            device: name,
            server: server.url.clone(),
        };
        identity
            .keep_joined(&joined, &server.authority.pem)
            .expect("kept");
        let memory = Memory {
            trust: fleet.trust.clone(),
            highest: None,
        };
        let mut ledger = Ledger::open(&config.state).expect("a ledger");
        ledger.begin(memory).expect("begun");
        flotta_agent::identity::repair(&config.identity(), false).expect("copied");
        let mut bench = Self {
            truth: fleet.offer(FIRST, Digest::of(b"")),
            machine: FakeMachine::new(&root),
            clock: set_clock(),
            fleet,
            server,
            config,
            folder,
        };
        bench.publish(FIRST);
        bench
    }

    /// Makes a good release with this sequence the honest one; the server has its blobs, but does not offer it yet.
    pub fn publish(&mut self, sequence: u64) {
        let mut bundle = Bundle::default();
        let manifest = manifest(&mut bundle, sequence);
        self.truth = self.signed(sequence, bundle, &manifest.to_string());
    }

    /// A correctly signed release of this manifest; the server has its blobs.
    pub fn signed(&self, sequence: u64, mut bundle: Bundle, manifest: &str) -> Offer {
        // a valid manifest is encoded as the renderer does it, an invalid one is used as it is
        let bytes = Manifest::parse(manifest.as_bytes())
            .map_or_else(|_| manifest.as_bytes().to_vec(), Manifest::encode);
        let digest = bundle.put(&bytes);
        self.change(|state| state.blobs.extend(bundle.blobs));
        self.fleet.offer(sequence, digest)
    }

    /// Offers a release with a good manifest after a change; the release after it is the honest one.
    pub fn offer_manifest(&mut self, change: impl FnOnce(&mut Bundle, &mut Value)) {
        let mut bundle = Bundle::default();
        let mut value = manifest(&mut bundle, 1_000);
        change(&mut bundle, &mut value);
        self.offer_text(bundle, &value.to_string());
    }

    /// Offers a release of this manifest; the release after it is the honest one.
    pub fn offer_text(&mut self, bundle: Bundle, manifest: &str) {
        let bad = self.signed(FIRST + 1, bundle, manifest);
        self.publish(FIRST + 2);
        self.offer(bad, "\"bad\"");
    }

    /// Makes the server offer this.
    pub fn offer(&self, offer: Offer, tag: &str) {
        self.change(|state| {
            state.offer = Some(Arc::new(offer));
            tag.clone_into(&mut state.tag);
        });
    }

    /// Offers the honest release with a change, under the same tag.
    pub fn lie(&self, change: impl FnOnce(&mut Offer)) {
        let mut offer = self.truth.clone();
        change(&mut offer);
        self.offer(offer, &self.tag());
        self.change(|state| state.lies += 1);
    }

    /// Makes the server answer like this from now on.
    pub fn answer(&self, lie: Lie) {
        self.change(|state| state.lie = Some(lie));
    }

    /// Changes what listens at the server's address, and closes open connections.
    pub fn front(&self, front: Front) {
        self.change(|state| {
            state.front = front;
            state.era += 1;
        });
    }

    fn tag(&self) -> String {
        format!("\"{}\"", self.truth.manifest.short())
    }

    /// Makes the server honest again.
    pub fn become_honest(&self) {
        self.change(|state| state.lie = None);
        if !matches!(self.server.state.borrow().front, Front::Server) {
            self.front(Front::Server);
        }
        self.offer(self.truth.clone(), &self.tag());
    }

    pub fn change(&self, change: impl FnOnce(&mut ServerState)) {
        self.server.state.send_modify(change);
    }

    pub fn state(&self) -> State {
        State {
            touched: self.machine.touched(),
            runs: self.machine.runs(),
            files: self.machine.files(),
        }
    }

    /// Whether the ledger says that an apply is under way.
    pub fn is_applying(&self) -> bool {
        let ledger = Ledger::open(&self.config.state).expect("a ledger");
        let mut units = ledger.owned().units.values();
        units.any(|unit| unit.due.is_some())
    }

    /// Runs the agent until `script` is done.
    pub async fn run<T>(&self, script: impl Future<Output = T>) -> T {
        let prepared = run::prepare(&self.config, &self.clock);
        let (ledger, joined) = prepared.expect("a state that can be opened");
        let joined = joined.expect("joined");
        let host = self.machine.host();
        let agent = run::serve(&self.config, &self.clock, ledger, joined, host);
        tokio::select! {
            ended = agent => panic!("the agent ended: {ended:?}"),
            done = script => done,
        }
    }

    /// Waits for this state of the device's connection.
    pub async fn link(&self, what: &str, like: impl Fn(&LinkState) -> bool) -> LinkState {
        let begun = Instant::now();
        loop {
            let read = Status::read(&self.config.status()).expect("readable");
            let link = read.map(|read| read.link);
            if let Some(link) = link.as_ref().filter(|link| like(link)) {
                return link.clone();
            }
            assert!(begun.elapsed() < DEADLINE, "not in time: {what}; {link:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits for this state of the server.
    pub async fn until(&self, what: &str, like: impl Fn(&ServerState) -> bool) {
        let mut state = self.server.state.subscribe();
        let found = timeout(DEADLINE, state.wait_for(|state| like(state))).await;
        if found.is_err() {
            let state = self.server.state.borrow();
            let last = state.reports.last();
            panic!(
                "not in time: {what}; {} lies, {} connections, last report {last:#?}, calls {:?}",
                state.lies,
                state.connections,
                self.machine.calls()
            );
        }
    }

    /// Waits until the device reports that it has the honest release, and that all is well.
    pub async fn well(&self) {
        let wanted = self.truth.manifest;
        let has = |report: &Report| {
            report
                .applied
                .is_some_and(|applied| applied.manifest == wanted)
                && report.problems.is_empty()
        };
        self.until("the truth", |state| state.reports.last().is_some_and(has))
            .await;
    }
}

/// Whether a report has an event with this reason and code.
pub fn says(state: &ServerState, reason: &str, code: &str) -> bool {
    let said = format!("{code}: ");
    let mut events = state.reports.iter().flat_map(|report| &report.events);
    events.any(|event| event.reason == reason && event.message.contains(&said))
}
