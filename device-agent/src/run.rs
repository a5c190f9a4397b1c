//! Runs the agent: one thread without polling, which sleeps until an offer, a unit, a due retry or a signal wakes it.
//!
//! The ledger is written before anything is changed, so work can be interrupted at any point: by a newer manifest, by SIGTERM
//! or by a power cut. The next `converge` recovers from all of them in the same way.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest;
use flotta_bundle::verify::verify_manifest;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::backend::{Files, Podman, Systemd};
use crate::backoff::Backoff;
use crate::clock::{self, Clock};
use crate::config::{self, Config};
use crate::converge::Host;
use crate::durable;
use crate::enrol::reset::{self, Decision};
use crate::enrol::{self, EnrolError};
use crate::hardware;
use crate::health;
use crate::identity::{self, Identity, Joined};
use crate::ledger::{Ledger, Owned};
use crate::plan::find_owned;
use crate::pull::link::{Channels, Known, Link};
use crate::pull::{LinkState, chain};
use crate::report::{Live, Reporter};
use crate::state_machine::State;
use crate::status;

mod agent;

use agent::{AGAIN, Agent, RETRY, Stop};

/// Shortest and longest wait between two tries to restore the identity; each reads a few files.
const WHOLE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(config: &Config) -> Result<(), EnrolError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| EnrolError::Io(path, error)
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(io("SIGTERM".as_ref()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("SIGINT".as_ref()))?;
    let hold = config.hold().map_err(io(&config.state))?;
    let _hold = hold.ok_or_else(|| EnrolError::Busy(config.state.clone()))?;
    config::make_private(&config.runtime).map_err(io(&config.runtime))?;
    let clock = Clock::load(&config.clock());
    clock.ask(&config.root).await;
    let done = tokio::select! {
        done = work(config, &clock) => done,
        () = clock::follow(clock.clone(), &config.root) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    if let Err(error) = durable::remove(&config.status()) {
        tracing::warn!(%error, "state file not removed");
    }
    if let Err(error) = clock.save(&config.clock()) {
        tracing::warn!(%error, "clock not saved");
    }
    done
}

async fn work(config: &Config, clock: &Clock) -> Result<(), EnrolError> {
    let _watchdog = Tasks(vec![tokio::spawn(watchdog())]);
    let (mut denied, mut again) = (None, reset::switching());
    loop {
        let served = work_as_joined(config, clock, denied.take(), &mut again);
        match Box::pin(served).await? {
            Decision::Approved => tracing::info!("the new identity takes over"),
            Decision::Denied(error) => {
                let problem = error.problem();
                tracing::warn!(%problem, "the device did not join again; it keeps its identity");
                denied = Some(problem);
            }
        }
    }
}

/// Works with the current identity, until there is a decision about a pending new one.
async fn work_as_joined(
    config: &Config,
    clock: &Clock,
    denied: Option<Problem>,
    again: &mut Backoff,
) -> Result<Decision, EnrolError> {
    match reset::switch(config) {
        Ok(()) => again.reset(),
        Err(error) => {
            tracing::error!(problem = %error.problem(), "the new identity does not take over");
        }
    }
    let (mut ledger, joined) = prepare(config, clock)?;
    if let Some(problem) = denied {
        // an event that cannot be written is written with the next one
        let _ = ledger.note(clock.now(), "Denied", problem.to_string(), true);
    }
    notify("ready");
    let joined = if let Some(joined) = joined {
        joined
    } else {
        notify("has not joined yet");
        enrol::join_at_boot(config, clock, &mut ledger).await?
    };
    let host = Host::open(config).await.map_err(|error| {
        EnrolError::Io(
            "/run/dbus/system_bus_socket".into(),
            std::io::Error::other(error),
        )
    });
    let served = serve(config, clock, ledger, joined, host?);
    tokio::select! {
        Err(error) = served => Err(error),
        decision = reset::ask(config, clock, again) => Ok(decision),
    }
}

/// Tasks that are aborted on drop.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Opens the state and restores what was lost. Returns what the device joined; none when it has not. The caller must hold
/// the state directory.
pub fn prepare(config: &Config, clock: &Clock) -> Result<(Ledger, Option<Joined>), EnrolError> {
    let mut ledger = Ledger::open(&config.state)?;
    ledger.sweep()?;
    // a full disk must not keep the agent from starting, which keeps workloads running with what there is
    let repaired = identity::repair(&config.identity(), ledger.is_settled());
    let losses = repaired.unwrap_or_else(|error| {
        tracing::error!(problem = %error.problem(), "not all of the identity is on disk");
        Vec::new()
    });
    let joined = identity::joined(&config.identity())?;
    if joined.is_some() {
        // the agent reports what could not be written, and carries on with what it has in memory
        if let Err(error) = ledger.settle(losses, clock.now()) {
            let problem = Problem::new(code::LEDGER, chain(&error));
            tracing::error!(%problem, "not all of the state is on disk");
        }
    }
    Ok((ledger, joined))
}

/// Runs the agent of a joined device, for as long as it is polled.
pub async fn serve<S: Systemd, P: Podman + Clone, F: Files>(
    config: &Config,
    clock: &Clock,
    mut ledger: Ledger,
    joined: Joined,
    mut host: Host<S, P, F>,
) -> Result<Infallible, EnrolError> {
    if *ledger.owned() == Owned::default() {
        // this is a new device, or its ledger was lost
        let found = find_owned(&mut host.files, &mut host.systemd).await;
        if let Err(error) = ledger.own(found, None) {
            let problem = Problem::new(code::LEDGER, chain(&error));
            tracing::error!(%problem, "the fleet's files and units could not be recorded");
        }
    }
    let (health, watcher) = health::watch(host.podman.clone(), clock.clone());
    host.health = Some(health);
    if let Some(accepted) = ledger.accepted() {
        clock.learn(accepted.issued);
    }
    let (offers, offered) = mpsc::channel(1);
    let (refusals, refused) = mpsc::channel(1);
    let state = State::Unjoined.joined().unwrap_or(State::Idle);
    let (sessions, session) = watch::channel(None);
    let (link, link_state) = watch::channel(LinkState::after(status::outage(&config.outage())));
    let in_force = settings_in_force(&ledger);
    let (live, live_state) = watch::channel(Live {
        settings: in_force.clone(),
        ..Live::default()
    });
    let (acknowledged, acknowledgements) = watch::channel(0);
    let version = ledger.memory().map_or(0, |memory| memory.trust.version);
    let (known, news_of_offers) = watch::channel(Known {
        root: version,
        ask_again: None,
    });
    let channels = Channels {
        offers,
        sessions,
        state: link.clone(),
        refusals,
        known: news_of_offers,
        live: live_state.clone(),
    };
    let (folder, is_settled) = (config.identity(), ledger.is_settled());
    let (own, own_clock, proxies) = (joined.clone(), clock.clone(), config.proxies.clone());
    let make = move |id| Link::new(own.clone(), id, &own_clock, &proxies, channels.clone());
    let linked = keep_link(folder, is_settled, make, link.clone(), clock.clone());
    let mut tasks = Tasks(vec![tokio::spawn(linked)]);
    let keep = status::keep(
        config.status(),
        config.outage(),
        joined.clone(),
        live_state.clone(),
        link_state,
        clock.clone(),
    );
    tasks.0.push(tokio::spawn(keep));
    let reporter = Reporter {
        live: live_state,
        sessions: session.clone(),
        link,
        acknowledged,
        hardware: hardware::read(&config.root),
        boot: hardware::boot_id(&config.root),
        clock: clock.clone(),
    };
    tasks.0.push(tokio::spawn(reporter.run()));
    let agent = Agent {
        device: joined.device,
        ledger,
        machine: host,
        clock: clock.clone(),
        state,
        offers: offered,
        sessions: session,
        acknowledgements,
        refusals: refused,
        known,
        live,
        backoff: Backoff::new(RETRY.0, RETRY.1),
        again: Backoff::new(AGAIN.0, AGAIN.1),
        retry_at: None,
        last_trouble: None,
        refused: None,
        problems: Vec::new(),
        workloads: Vec::new(),
        settings: in_force,
        held: None,
        unkept: None,
        clock_file: Some(config.clock()),
        policy_file: config.policy(),
        policy_problem: None,
        ended_file: Some(config.ended()),
    };
    let stop = tokio::select! {
        Err(stop) = agent.run() => stop,
        never = Box::pin(watcher.run()) => match never {},
    };
    drop(tasks);
    Err(match stop {
        Stop::ShutOut => EnrolError::ShutOut,
        Stop::NoEdge(error) => EnrolError::Io(config.state.clone(), std::io::Error::other(error)),
    })
}

/// Runs the link once the identity is complete: files that could not be restored at the start, because the disk was full, are
/// tried again. Meanwhile the agent keeps the machine as the ledger says.
async fn keep_link(
    folder: PathBuf,
    is_settled: bool,
    make: impl Fn(Identity) -> Result<Link, EnrolError>,
    state: watch::Sender<LinkState>,
    clock: Clock,
) {
    let mut backoff = Backoff::new(WHOLE.0, WHOLE.1);
    loop {
        let linked = Identity::open(&folder).map_err(EnrolError::from);
        match linked.and_then(&make) {
            Ok(link) => return Box::pin(link.run()).await,
            Err(error) => {
                let (problem, now) = (error.problem(), clock.now());
                state.send_if_modified(|state| {
                    let is_news = state.problem.as_ref() != Some(&problem);
                    state.fails(problem, now);
                    is_news
                });
            }
        }
        sleep(backoff.next_delay().max(WHOLE.0)).await;
        if let Err(error) = identity::repair(&folder, is_settled) {
            tracing::debug!(problem = %error.problem(), "not all of the identity is on disk yet");
        }
    }
}

/// The settings of the agent in the accepted release, if its manifest is there.
fn settings_in_force(ledger: &Ledger) -> manifest::Settings {
    let accepted = ledger.accepted().map(|accepted| accepted.manifest);
    let applied = ledger.applied().map(|applied| applied.manifest);
    let manifests = accepted.into_iter().chain(applied);
    let read = |digest| verify_manifest(&ledger.blobs().read(&digest).ok()?, digest).ok();
    let mut read = manifests.filter_map(read);
    let lost = || manifest::Settings {
        servers: ledger.servers().to_vec(),
        ..manifest::Settings::default()
    };
    read.next().map_or_else(lost, |manifest| manifest.settings)
}

fn notify(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Pings systemd's watchdog from the thread that everything else runs on, to show that it is not stuck.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        sleep(limit / 3).await;
    }
}
