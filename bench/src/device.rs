//! A simulated device: the agent's own identity, link, verification, ledger and reports, without a machine.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flotta_agent::clock::Clock;
use flotta_agent::enrol::Join;
use flotta_agent::fetch;
use flotta_agent::identity::{Certificate, Identity, Joined};
use flotta_agent::ledger::Ledger;
use flotta_agent::pull::link::{Channels, Known, Link};
use flotta_agent::pull::{LinkState, Proxies, PullError, Session};
use flotta_agent::report::{Live, Reporter};
use flotta_bundle::policy::Policy;
use flotta_bundle::wire::{Applied, Hardware, JoinFile, Offer};
use flotta_bundle::{Digest, code, verify};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::site::{DEADLINE, Fleet};

/// A joined device that is not connected.
#[derive(Debug)]
pub struct Member {
    /// Its number in the fleet.
    pub number: usize,
    /// How long joining took: connection, request and answer.
    pub took: Duration,
    /// Its keys.
    pub identity: Identity,
    /// Its certificate.
    pub certificate: Certificate,
    /// The CA certificate for the server, PEM.
    pub ca: String,
    joined: Joined,
    ledger: Ledger,
    clock: Clock,
}

impl Member {
    /// Joins with a token. Its state is below `folder`.
    pub async fn join(number: usize, file: &JoinFile, folder: &Path) -> Result<Self> {
        let folder = folder.join(number.to_string());
        let (identity, _) = Identity::open_or_make(&folder.join("identity"))?;
        let json = serde_json::to_vec(file)?;
        let join = Join::parse(&json, "join file".as_ref(), None)?;
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let deadline = Instant::now() + DEADLINE;
        let began = Instant::now();
        let machine = hardware();
        let client = join.client(&clock, &Proxies::default())?;
        let asked = join.ask(&identity, &machine, &client, Some(deadline), || {});
        let (device, pem) = asked.await?.context("not approved")?;
        let took = began.elapsed();
        ensure!(device == Fleet::name(number), "joined as {device}");
        let mut ledger = Ledger::open(&folder)?;
        let (joined, certificate) = join.keep(&identity, &mut ledger, device, &pem)?;
        Ok(Self {
            number,
            took,
            identity,
            certificate,
            ca: file.ca.clone(),
            joined,
            ledger,
            clock,
        })
    }

    /// Connects, and follows its offers from now on.
    pub fn follow(self) -> Result<Device> {
        let (offers, offered) = mpsc::channel(1);
        // refusals are read so that they are counted
        let (refusals, mut refused) = mpsc::channel(16);
        let (sessions, session) = watch::channel(None);
        let (link, _) = watch::channel(LinkState::default());
        let (live, live_state) = watch::channel(Live::default());
        let (acknowledged, _) = watch::channel(0);
        let root = self
            .ledger
            .memory()
            .map_or(0, |memory| memory.trust.version);
        let known = Known {
            root,
            ask_again: None,
        };
        let (known, news) = watch::channel(known);
        let channels = Channels {
            offers,
            sessions,
            state: link.clone(),
            refusals,
            known: news,
            live: live_state.clone(),
        };
        let reporter = Reporter {
            live: live_state,
            sessions: session.clone(),
            link,
            acknowledged,
            hardware: hardware(),
            boot: "simulated".to_owned(),
            clock: self.clock.clone(),
        };
        let wrong = Wrong::default();
        let (state, seen) = watch::channel(Seen::default());
        let offers = Arc::new(AtomicU64::new(0));
        let proxies = Proxies::default();
        let link = Link::new(
            self.joined.clone(),
            self.identity,
            &self.clock,
            &proxies,
            channels,
        )?;
        let follower = Follower {
            number: self.number,
            joined: self.joined,
            ledger: self.ledger,
            sessions: session.clone(),
            live,
            seen: state,
            _known: known,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(link.run());
        tasks.spawn(reporter.run());
        tasks.spawn({
            let wrong = wrong.clone();
            async move {
                while let Some(problem) = refused.recv().await {
                    wrong.note(problem.to_string());
                }
            }
        });
        tasks.spawn(follower.run(offered, offers.clone(), wrong.clone()));
        Ok(Device {
            number: self.number,
            seen,
            offers,
            wrong,
            session,
            _tasks: tasks,
        })
    }
}

/// The newest release that a device has verified and fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its sequence.
    pub release: u64,
    /// The manifest it gave the device.
    pub manifest: Option<Digest>,
    /// When it was completely fetched.
    pub at: Option<Instant>,
}

/// Errors that should not happen.
#[derive(Debug, Clone, Default)]
struct Wrong(Arc<Mutex<Vec<String>>>);

impl Wrong {
    fn note(&self, what: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(what);
    }
}

/// A device that is connected, or tries to connect.
#[derive(Debug)]
pub struct Device {
    /// Its number in the fleet.
    pub number: usize,
    /// The newest release that it has.
    pub seen: watch::Receiver<Seen>,
    offers: Arc<AtomicU64>,
    wrong: Wrong,
    session: watch::Receiver<Option<Session>>,
    _tasks: JoinSet<()>,
}

impl Device {
    /// Number of polls that were answered with a new offer.
    pub fn offers(&self) -> u64 {
        self.offers.load(Ordering::Acquire)
    }

    /// The errors since it connected.
    pub fn wrong(&self) -> Vec<String> {
        let all = self.wrong.0.lock();
        all.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has completely fetched a release of at least this sequence.
    pub async fn has(&self, release: u64) -> Result<Seen> {
        let mut seen = self.seen.clone();
        let there = seen.wait_for(|seen| seen.release >= release);
        let Ok(there) = tokio::time::timeout(DEADLINE, there).await else {
            let wrong = self.wrong();
            let has = self.seen.borrow().release;
            bail!(
                "{} has release {has}, not {release}: {wrong:?}",
                Fleet::name(self.number)
            );
        };
        Ok(*there?)
    }

    /// Requests another device's content; true when that is refused.
    pub async fn is_refused(&self, blob: Digest) -> Result<bool> {
        let mut session = self.session.clone();
        let session = session.wait_for(Option::is_some).await?.clone();
        let session = session.context("not connected")?;
        match session.blob(&blob, 0, 1 << 20).await {
            Ok(_) => Ok(false),
            Err(PullError::Refused { problem, .. }) => Ok(problem.code == code::NOT_YOURS.id),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the agent does between an offer and the machine.
struct Follower {
    number: usize,
    joined: Joined,
    ledger: Ledger,
    sessions: watch::Receiver<Option<Session>>,
    live: watch::Sender<Live>,
    seen: watch::Sender<Seen>,
    /// The link watches it for as long as it runs.
    _known: watch::Sender<Known>,
}

impl Follower {
    async fn run(mut self, mut offers: mpsc::Receiver<Offer>, count: Arc<AtomicU64>, wrong: Wrong) {
        while let Some(offer) = offers.recv().await {
            count.fetch_add(1, Ordering::AcqRel);
            if let Err(error) = self.take(&offer).await {
                wrong.note(format!("{error:#}"));
            }
        }
    }

    async fn take(&mut self, offer: &Offer) -> Result<()> {
        let memory = self.ledger.memory().context("not joined")?;
        let accepted = verify::verify_offer(offer, &self.joined.device, memory)?;
        self.ledger.accept(offer, &accepted)?;
        let (manifest, release) = (accepted.manifest, accepted.release.sequence);
        let blobs = self.ledger.blobs();
        let content =
            fetch::fetch(blobs, &self.sessions, manifest, None, &Policy::default()).await?;
        let mut own = 0;
        for file in &content.files {
            let text = String::from_utf8(blobs.read(&file.digest)?)?;
            for owner in text
                .split_whitespace()
                .filter(|word| word.contains("OWNER=device-"))
            {
                ensure!(
                    owner.ends_with(&Fleet::mark(self.number)),
                    "it was given {owner}"
                );
                own += 1;
            }
        }
        ensure!(own == 1, "{own} files are its own");
        blobs.collect(&fetch::needed(manifest, &content))?;
        self.live.send_modify(|live| {
            live.release = Some(release);
            live.wanted = Some(manifest);
            live.applied = Some(Applied { manifest, release });
        });
        self.seen.send_replace(Seen {
            release,
            manifest: Some(manifest),
            at: Some(Instant::now()),
        });
        Ok(())
    }
}

fn hardware() -> Hardware {
    Hardware {
        model: "simulated".to_owned(),
        ..Hardware::default()
    }
}
