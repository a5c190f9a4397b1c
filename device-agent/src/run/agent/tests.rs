//! The loop with a real ledger and a fake machine. Nothing here waits in real time.

mod mounts;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use flotta_bundle::Digest;
use flotta_bundle::Leaf;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::{self, Settings};
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Phase;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::converge::Outcome;

/// The scripted result of one `converge`.
enum Scripted {
    Work,
    Fail,
    Hang,
}

/// A machine that notes the calls and follows a script; without one, everything works.
#[derive(Clone, Default)]
struct FakeHost {
    orders: Rc<RefCell<VecDeque<Scripted>>>,
    asked: Rc<RefCell<Vec<(u64, u32)>>>,
    /// Whether nothing can be written, and if so, whether that is only the agent's view.
    shut_out: Rc<Cell<Option<bool>>>,
}

impl ManagedHost for FakeHost {
    async fn converge(
        &mut self,
        manifest: &Manifest,
        release: u64,
        _: &mut Ledger,
        _: &dyn Fn() -> Timestamp,
        progress: &mut dyn FnMut(Phase, &[WorkloadReport]),
    ) -> Outcome {
        let seconds = manifest.settings.heartbeat_seconds;
        self.asked.borrow_mut().push((release, seconds));
        progress(Phase::Applying, &[]);
        let will = self
            .orders
            .borrow_mut()
            .pop_front()
            .unwrap_or(Scripted::Work);
        if matches!(will, Scripted::Hang) {
            std::future::pending::<()>().await;
        }
        if self.shut_out.get().is_some() {
            return Outcome {
                workloads: vec![WorkloadReport {
                    name: "web".to_owned(),
                    state: WorkloadState::Running,
                    problem: Some(Problem::new(code::READ_ONLY, "Read-only file system")),
                    since: None,
                    restarts: 0,
                }],
                problems: Vec::new(),
                complete: false,
                retry: true,
            };
        }
        let failed = matches!(will, Scripted::Fail);
        let problem = Problem::new(code::IMAGE_PULL, "web: no such image");
        Outcome {
            workloads: Vec::new(),
            problems: failed.then_some(problem).into_iter().collect(),
            complete: !failed,
            retry: failed,
        }
    }

    async fn look(&mut self, _: &Manifest, _: &Ledger) -> Vec<WorkloadReport> {
        Vec::new()
    }

    async fn look_at_files(
        &mut self,
        _: &Manifest,
        _: &mut Ledger,
        _: &dyn Fn() -> Timestamp,
    ) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn is_shut_out(&mut self, _: &Manifest) -> Option<bool> {
        self.shut_out.get()
    }

    fn stops(&mut self) -> Vec<Problem> {
        Vec::new()
    }

    async fn changed(&mut self) -> Change {
        std::future::pending().await
    }
}

/// A fleet of one device, and the channels of its loop.
struct Bench {
    key: SigningKey,
    device: DeviceName,
    trust: TrustRoot,
    state: TempDir,
    machine: FakeHost,
}

/// The other ends of an agent's channels.
struct Channels {
    offers: mpsc::Sender<Offer>,
    live: watch::Receiver<Live>,
    acknowledged: watch::Sender<u64>,
    _sessions: watch::Sender<Option<Session>>,
}

impl Bench {
    fn new() -> Self {
        let (key, _) = SigningKey::generate().expect("a key");
        let trust = TrustRoot {
            schema: root::SCHEMA,
            fleet: "shops".parse().expect("a fleet"),
            version: 1,
            root: Role::any_of([key.public()]),
            release: Role::any_of([key.public()]),
        };
        Self {
            key,
            device: "shop-17".parse().expect("a name"),
            trust,
            state: tempfile::tempdir().expect("a folder"),
            machine: FakeHost::default(),
        }
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::open(self.state.path()).expect("a ledger");
        if ledger.memory().is_none() {
            let trust = self.trust.clone();
            let begun = ledger.begin(Memory {
                trust,
                highest: None,
            });
            begun.expect("begun");
        }
        ledger
    }

    /// A release whose manifest differs by its heartbeat; the manifest is in the ledger already.
    fn offer(&self, ledger: &Ledger, sequence: u64, heartbeat_seconds: u32) -> Offer {
        let manifest = Manifest {
            schema: manifest::SCHEMA,
            files: Vec::new(),
            units: Vec::new(),
            images: Vec::new(),
            health: Vec::new(),
            settings: Settings {
                heartbeat_seconds,
                ..Settings::default()
            },
        };
        let bytes = manifest.encode();
        let manifest = Digest::of(&bytes);
        if !ledger.blobs().has(&manifest) {
            let mut partial = ledger.blobs().partial(&manifest).expect("a file");
            partial.append(&bytes).expect("written");
            partial.finish().expect("kept").expect("as it should be");
        }
        let leaf = Leaf::following(self.device.clone(), manifest, None).encode();
        let tree = Tree::new([leaf.clone()]);
        let now = Timestamp::now();
        let release = Release {
            schema: release::SCHEMA,
            fleet: self.trust.fleet.clone(),
            sequence,
            revision: Revision {
                source: "directory".to_owned(),
                commit: "4f2c91a".to_owned(),
                subject: String::new(),
                inventory: None,
            },
            issued: now,
            expires: now + SignedDuration::from_hours(24),
            tree: tree.head(),
        };
        Offer {
            roots: Vec::new(),
            release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[&self.key]),
            leaf: String::from_utf8(leaf).expect("JSON"),
            index: 0,
            proof: tree.prove(0).expect("a proof"),
            manifest,
        }
    }

    fn agent(&self, ledger: Ledger) -> (Agent<FakeHost>, Channels) {
        let (offers, offered) = mpsc::channel(1);
        let (sessions, session) = watch::channel(None);
        let (live, shown) = watch::channel(Live::default());
        let (acknowledged, acknowledgements) = watch::channel(0);
        let agent = Agent {
            device: self.device.clone(),
            ledger,
            machine: self.machine.clone(),
            clock: Clock::new(Timestamp::UNIX_EPOCH),
            state: State::Idle,
            offers: offered,
            sessions: session,
            acknowledgements,
            refusals: mpsc::channel(1).1,
            known: watch::channel(Known::default()).0,
            live,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            again: Backoff::new(AGAIN.0, AGAIN.1),
            retry_at: None,
            last_trouble: None,
            refused: None,
            problems: Vec::new(),
            workloads: Vec::new(),
            settings: Settings::default(),
            held: None,
            unkept: None,
            clock_file: None,
            policy_file: "/nowhere/policy.toml".into(),
            policy_problem: None,
            ended_file: None,
        };
        let channels = Channels {
            offers,
            live: shown,
            acknowledged,
            _sessions: sessions,
        };
        (agent, channels)
    }

    /// Makes a file of the ledger unwritable until the folder at the returned path is removed: even root cannot replace a folder
    /// with a file.
    fn spoil(&self, name: &str) -> std::path::PathBuf {
        let path = self.state.path().join("ledger").join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).expect("made");
        path
    }

    fn asked(&self) -> Vec<(u64, u32)> {
        self.machine.asked.borrow().clone()
    }

    fn order(&self, orders: impl IntoIterator<Item = Scripted>) {
        self.machine.orders.borrow_mut().extend(orders);
    }
}

/// Runs the agent until `script` is done.
async fn play(agent: Agent<FakeHost>, script: impl Future<Output = ()>) {
    tokio::select! {
        ended = agent.run() => panic!("the loop ended: {ended:?}"),
        () = script => {}
    }
}

impl Channels {
    async fn offer(&self, offer: Offer) {
        self.offers.send(offer).await.expect("the agent listens");
    }

    /// Waits for this state of the device; the clock is paused, so a minute costs no time.
    async fn until(&mut self, like: impl Fn(&Live) -> bool) -> Live {
        let limit = Duration::from_secs(3600);
        let shown = tokio::time::timeout(limit, self.live.wait_for(like)).await;
        shown.expect("in time").expect("the agent lives").clone()
    }
}

fn settled(release: u64) -> impl Fn(&Live) -> bool {
    move |live| live.release == Some(release) && live.phase == Phase::Idle
}

#[tokio::test(start_paused = true)]
async fn an_offer_is_accepted_and_applied_and_kept_over_a_restart() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let offer = bench.offer(&ledger, 1, 30);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels.offer(offer.clone()).await;
        let live = channels.until(settled(1)).await;
        assert_eq!(live.wanted, Some(offer.manifest));
        assert_eq!(live.settings.heartbeat_seconds, 30);
        assert!(live.problems.is_empty());
        // the same offer again changes nothing
        channels.offer(offer.clone()).await;
        channels.offer(offer.clone()).await;
    })
    .await;
    assert_eq!(bench.asked(), [(1, 30)]);
}

#[tokio::test(start_paused = true)]
async fn at_start_it_works_from_the_ledger_without_a_server() {
    let bench = Bench::new();
    let mut ledger = bench.ledger();
    let offer = bench.offer(&ledger, 7, 30);
    let memory = ledger.memory().expect("joined").clone();
    let accepted = verify::verify_offer(&offer, &bench.device, &memory).expect("a good offer");
    ledger.accept(&offer, &accepted).expect("kept");
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels
            .until(|live| settled(7)(live) && live.settings.heartbeat_seconds == 30)
            .await;
    })
    .await;
    assert_eq!(bench.asked(), [(7, 30)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_offer_is_shown_and_noted_and_changes_nothing() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let stranger = Bench::new();
    let good = bench.offer(&ledger, 2, 30);
    let forged = stranger.offer(&ledger, 3, 31);
    let older = bench.offer(&ledger, 1, 32);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        let with = |code: &'static str| {
            move |live: &Live| live.problems.first().is_some_and(|p| p.code == code)
        };
        channels.offer(good).await;
        channels.until(settled(2)).await;
        channels.offer(forged).await;
        let live = channels.until(with("FLT0302")).await;
        assert_eq!((live.release, live.events.len()), (Some(2), 1));
        assert_eq!(live.events[0].reason, "Refused");
        channels.offer(older).await;
        let live = channels.until(with("FLT0307")).await;
        assert_eq!(live.events.len(), 2);
        channels.acknowledged.send_replace(live.events[1].id);
        channels.until(|live| live.events.is_empty()).await;
        // made only now, because blobs that release 2 does not need are removed
        let newer = bench.offer(&bench.ledger(), 3, 33);
        channels.offer(newer).await;
        let live = channels.until(settled(3)).await;
        assert!(live.problems.is_empty(), "what was refused is past");
    })
    .await;
    assert_eq!(bench.asked(), [(2, 30), (3, 33)]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_manifest_overtakes_work_that_goes_on_and_an_equal_one_does_not() {
    let bench = Bench::new();
    bench.order([Scripted::Hang]);
    let ledger = bench.ledger();
    let first = bench.offer(&ledger, 1, 30);
    let same = bench.offer(&ledger, 2, 30);
    let other = bench.offer(&ledger, 3, 31);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels.offer(first).await;
        channels.until(|live| live.phase == Phase::Applying).await;
        channels.offer(same).await;
        channels.offer(other).await;
        channels.until(settled(3)).await;
    })
    .await;
    assert_eq!(bench.asked(), [(1, 30), (3, 31)]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_until_it_works() {
    let bench = Bench::new();
    bench.order([Scripted::Fail, Scripted::Fail]);
    let ledger = bench.ledger();
    let offer = bench.offer(&ledger, 1, 30);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels.offer(offer).await;
        let live = channels.until(|live| !live.problems.is_empty()).await;
        assert_eq!(live.problems[0].code, "FLT0501");
        channels
            .until(|live| settled(1)(live) && live.problems.is_empty())
            .await;
    })
    .await;
    assert_eq!(bench.asked(), [(1, 30), (1, 30), (1, 30)]);
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_cannot_be_written_down_is_shown_for_as_long_as_it_cannot() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let first = bench.offer(&ledger, 1, 30);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels.offer(first).await;
        channels.until(settled(1)).await;
        // made only now, because blobs that release 1 does not need are removed
        let second = bench.offer(&bench.ledger(), 2, 31);
        let path = bench.spoil("history.json");
        channels.offer(second).await;
        let named = |live: &Live| live.problems.first().is_some_and(|p| p.code == "FLT0507");
        channels.until(named).await;
        // it is retried, and the problem stays visible in between
        for _ in 0..20 {
            tokio::time::sleep(RETRY.0).await;
            let live = channels.live.borrow().clone();
            assert!(named(&live) && live.release == Some(1), "{live:?}");
        }
        std::fs::remove_dir(&path).expect("removed");
        let live = channels.until(|live| live.release == Some(2)).await;
        assert!(live.problems.is_empty(), "{live:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_could_not_be_written_down_gives_way_to_a_newer_one() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let first = bench.offer(&ledger, 1, 30);
    let (agent, mut channels) = bench.agent(ledger);
    play(agent, async {
        channels.offer(first).await;
        channels.until(settled(1)).await;
        let ledger = bench.ledger();
        let [second, third] = [2, 3].map(|release| bench.offer(&ledger, release, 31));
        let path = bench.spoil("history.json");
        channels.offer(second).await;
        channels.until(|live| !live.problems.is_empty()).await;
        std::fs::remove_dir(&path).expect("removed");
        // before the second one is retried
        channels.offer(third).await;
        channels.until(settled(3)).await;
        tokio::time::sleep(2 * RETRY.1).await;
        let live = channels.live.borrow().clone();
        assert!(live.problems.is_empty(), "{live:?}");
        assert!(
            live.events.is_empty(),
            "not refused as an old one: {live:?}"
        );
    })
    .await;
    assert_eq!(bench.asked(), [(1, 30), (3, 31)]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_written_down_is_told_when_it_is_and_that_is_shown_meanwhile() {
    let bench = Bench::new();
    let ledger = bench.ledger();
    let first = bench.offer(&ledger, 1, 30);
    let forged = Bench::new().offer(&ledger, 2, 31);
    let older = bench.offer(&ledger, 0, 32);
    let (agent, mut channels) = bench.agent(ledger);
    let codes = |live: &Live| -> Vec<String> {
        let codes = live.problems.iter();
        codes.map(|problem| problem.code.clone()).collect()
    };
    play(agent, async {
        channels.offer(first).await;
        channels.until(settled(1)).await;
        let path = bench.spoil("events.json");
        channels.offer(forged).await;
        let live = channels.until(|live| live.problems.len() == 2).await;
        assert_eq!(codes(&live), ["FLT0302", "FLT0507"]);
        assert!(live.events.is_empty(), "a power cut may take it yet");
        tokio::time::sleep(10 * RETRY.1).await;
        assert_eq!(codes(&channels.live.borrow()), ["FLT0302", "FLT0507"]);
        std::fs::remove_dir(&path).expect("removed");
        // this happens by itself, without another event
        let live = channels.until(|live| live.problems.len() == 1).await;
        assert_eq!(codes(&live), ["FLT0302"]);
        assert_eq!(live.events.len(), 1);
        assert_eq!(bench.ledger().unacknowledged(), live.events);
        channels.offer(older).await;
        let live = channels.until(|live| live.events.len() == 2).await;
        assert_eq!(codes(&live), ["FLT0307"]);
    })
    .await;
}
