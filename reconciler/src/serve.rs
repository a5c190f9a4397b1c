//! The server puts the parts together: source -> publisher -> depot, index -> edge API; the admin socket; the hooks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flotta_bundle::code::{self, Code};
use flotta_bundle::{FleetName, Problem};
use flotta_renderer::Options;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::admin::request::FleetFacts;
use crate::admin::{self, Admin};
use crate::backup;
use crate::depot::{Depot, DepotError};
use crate::edge::Edge;
use crate::edge::limits::Limits;
use crate::enrol::Enroller;
use crate::hooks::{self, Secret, SecretError};
use crate::index::Index;
use crate::keys::{self, FirstStart, Fleet, KeysError, Start};
use crate::publish::{Follower, Notice, PublishError, Publisher, SOURCE_STATE};
use crate::server_state::ServerState;
use crate::source::{Selection, Source, SourceError};
use crate::store::{Store, StoreError};

#[cfg(test)]
mod tests;

/// The options of `flotta serve`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Git URL or directory.
    pub source: String,
    /// The branch and folder to use.
    pub selection: Selection,
    /// The data directory.
    pub data: PathBuf,
    /// Address of the edge API.
    pub listen: SocketAddr,
    /// The fleet's name, for the first start.
    pub fleet: Option<FleetName>,
    /// Names for the server's certificate; the first is in join files.
    pub names: Vec<String>,
    /// The admin socket; by default [`admin::DEFAULT_SOCKET`] where that can be created, otherwise `DATA/admin.sock`.
    pub admin: Option<PathBuf>,
    /// Who may open the admin socket.
    pub access: admin::Access,
    /// The listener for hooks.
    pub hooks: Option<Hooks>,
    /// How often to poll the source.
    pub interval: Duration,
    /// Whether a commit with an image without a digest is refused.
    pub require_digests: bool,
}

/// The listener for hooks.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Its address.
    pub listen: SocketAddr,
    /// The file with the secret.
    pub secret_file: PathBuf,
}

/// Why the server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The fleet's keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The depot failed.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The release in the depot cannot be used.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// TLS cannot be configured.
    #[error("TLS towards devices")]
    Tls(#[from] rustls::Error),
    /// The hooks' secret cannot be used.
    #[error("hooks")]
    Secret(#[from] SecretError),
    /// The server cannot listen on an address or socket.
    #[error("cannot listen on {0}")]
    Listen(String, #[source] std::io::Error),
    /// A part of the server ended unexpectedly.
    #[error("{0} ended")]
    Ended(&'static str, #[source] std::io::Error),
}

impl ServeError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Source(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Depot(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Tls(_) => code::KEYS,
            Self::Secret(_) | Self::Listen(..) | Self::Ended(..) => code::LISTEN,
        }
    }
}

/// Facts about a server for people.
#[derive(Debug, Clone)]
pub struct About {
    /// The version of this program.
    pub version: &'static str,
    /// Whether the fleet was created now.
    pub first_start: bool,
    /// The data directory.
    pub data: PathBuf,
    /// The fleet's public facts.
    pub facts: FleetFacts,
    /// Names in the server's certificate.
    pub names: Vec<String>,
    /// Address of the edge API, with the actual port if 0 was requested.
    pub listen: SocketAddr,
    /// The admin socket.
    pub admin: PathBuf,
    /// Address of the hooks.
    pub hooks: Option<SocketAddr>,
    /// Why the clock is in doubt, and nothing signed.
    pub clock: Option<Problem>,
}

/// How long requests under way may take when the server is stopped. Held polls end at once.
const GRACE: Duration = Duration::from_secs(5);
/// Connections that the kernel queues until they are accepted. The limit is `net.core.somaxconn`, which has this value since
/// Linux 5.4.
const BACKLOG: u32 = 4096;
/// How often the recurring maintenance runs.
const CHORES: Duration = Duration::from_secs(60);

/// A server that is ready to run: everything is open, but nothing is served yet.
#[derive(Debug)]
pub struct Server {
    about: About,
    follower: Follower,
    interval: Duration,
    wake: Arc<Notify>,
    edge: Edge,
    edge_listener: TcpListener,
    admin: Admin,
    admin_listener: UnixListener,
    hooks: Option<(TcpListener, Secret)>,
    store: Store,
    fleet: Arc<Fleet>,
    names: Vec<String>,
}

impl Server {
    /// Opens the data directory, creates the fleet if there is none, and binds every address.
    pub async fn open(config: Config) -> Result<Self, ServeError> {
        // options that may be mistyped are checked first, so that a wrong source creates no fleet
        let source = if config.data.join("keys").exists() {
            // an existing fleet is served even if its source is not available
            Source::resume(&config.source, config.selection, &config.data)?
        } else {
            Source::parse(&config.source, config.selection, &config.data)?
        };
        let edge_listener = listen(config.listen)?;
        let hooks = match &config.hooks {
            Some(hooks) => Some((listen(hooks.listen)?, Secret::read(&hooks.secret_file)?)),
            None => None,
        };
        // take the store's lock first, so that two servers never create or change the keys of one fleet together
        keys::make_data_directory(&config.data)?;
        let store = Store::open(&config.data)?;
        backup::clear(&config.data);
        let (fleet, start) = open_fleet(&config.data, config.fleet, &config.names)?;
        let fleet = Arc::new(fleet);
        let depot = Depot::local(&config.data.join("depot"))?;
        for (root, version) in fleet.trust_roots().iter().zip(1..) {
            depot.put_root(version, root).await?;
        }
        let options = Options {
            require_digests: config.require_digests,
        };
        let floor = store.highest_sequence().await?.unwrap_or_default();
        let publisher = Publisher::open(Arc::clone(&fleet), depot.clone(), options, floor).await?;
        let now = Timestamp::now();
        Box::pin(fleet.clock().open(&store, now)).await?;
        renew_certificates(&fleet, &config.names, now)?;
        let index = Arc::new(Index::new(fleet.trust_roots().to_vec()));
        let server_state = server_state(&store).await?;
        let wake = Arc::new(Notify::new());
        let (admin_listener, admin_path) =
            admin::listen(config.admin.as_deref(), &config.data, config.access)?;

        let about = about(&config.data, &fleet, start, &edge_listener, &config.names);
        let about = About {
            admin: admin_path,
            hooks: hooks
                .as_ref()
                .and_then(|(listener, _)| listener.local_addr().ok()),
            ..about
        };
        Ok(Self {
            edge: Edge::new(
                Arc::clone(&fleet),
                store.clone(),
                Arc::clone(&index),
                Arc::new(depot.clone()),
                Limits::for_files(open_files()),
            )?,
            admin: Admin::new(
                Arc::clone(&fleet),
                store.clone(),
                Arc::clone(&index),
                depot,
                Enroller::new(Arc::clone(&fleet), store.clone()),
                about.facts.clone(),
                server_state.clone(),
                Arc::clone(&wake),
            ),
            follower: Follower::new(source, publisher, store.clone(), index, server_state),
            interval: config.interval,
            wake,
            about,
            edge_listener,
            admin_listener,
            hooks,
            store,
            fleet,
            names: config.names,
        })
    }

    /// The facts to show to people.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Serves until `stop` is done. `say` is called with every notice about the source.
    pub async fn run(
        self,
        stop: impl Future<Output = ()> + Send,
        say: impl Fn(&Notice) + Send + Sync + 'static,
    ) -> Result<(), ServeError> {
        let say = Arc::new(say);
        let (stopping, stopped) = watch::channel(false);
        let until = || {
            let mut stopped = stopped.clone();
            async move {
                // an error means that the sender is gone, which also means stop
                let _ = stopped.wait_for(|stop| *stop).await;
            }
        };
        let mut tasks: JoinSet<Result<(), ServeError>> = JoinSet::new();
        let ended = |what| move |error| ServeError::Ended(what, error);

        let (edge, listener, stop_edge) = (self.edge, self.edge_listener, until());
        tasks.spawn(async move {
            edge.serve(listener, stop_edge).await;
            Ok(())
        });
        let (admin, listener, stop_admin) = (self.admin, self.admin_listener, until());
        tasks.spawn(async move {
            admin
                .serve(listener, stop_admin)
                .await
                .map_err(ended("the admin API"))
        });
        if let Some((listener, secret)) = self.hooks {
            let failures = self.store.failures().clone();
            let router = hooks::router(secret, Arc::clone(&self.wake), failures.clone());
            let stop_hooks = until();
            tasks.spawn(async move {
                hooks::serve(listener, router, failures, stop_hooks).await;
                Ok(())
            });
        }
        let (store, fleet, stop_chores) = (self.store, self.fleet, until());
        let (names, say_clock) = (self.names, Arc::clone(&say));
        tasks.spawn(async move {
            let clock = fleet.clock().follow(&store, |change| {
                say_clock(&Notice::from(change));
                // renewals that the clock's doubt put off are done now
                let now = Timestamp::now();
                let renewed = renew_certificates(&fleet, &names, now);
                let failures = store.failures();
                failures.note("renewing the server's certificate", &renewed, now);
            });
            tokio::select! {
                () = chores(&store, &fleet, &names) => {}
                () = clock => {}
                () = stop_chores => {}
            }
            // an orderly stop does not lose last-seen times
            store.keep_seen().await.map_err(ServeError::Store)
        });
        let (follower, interval, wake) = (self.follower, self.interval, self.wake);
        tasks.spawn(async move {
            let say = move |notice: &Notice| say(notice);
            follower.run(interval, wake, stopped.clone(), say).await;
            Ok(())
        });

        let first = tokio::select! {
            () = stop => Ok(()),
            Some(ended) = tasks.join_next() => flatten(ended),
        };
        let _ = stopping.send(true);
        drain(tasks, first, GRACE).await
    }
}

/// Loads the server's state from its last run.
async fn server_state(store: &Store) -> Result<ServerState, StoreError> {
    let server_state = ServerState::default();
    let kept = store.meta(SOURCE_STATE).await?;
    if let Some(state) = kept.and_then(|text| serde_json::from_str(&text).ok()) {
        server_state.change(|source| *source = state);
    }
    Ok(server_state)
}

/// Lets tasks finish within `grace`, and drops the others. Returns the first error, even if other tasks do not finish.
async fn drain(
    mut tasks: JoinSet<Result<(), ServeError>>,
    first: Result<(), ServeError>,
    grace: Duration,
) -> Result<(), ServeError> {
    let mut result = first;
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            let ended = flatten(ended);
            if result.is_ok() {
                result = ended;
            }
        }
    };
    let _ = tokio::time::timeout(grace, all).await;
    result
}

fn flatten(
    ended: Result<Result<(), ServeError>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    ended.unwrap_or_else(|error| Err(ServeError::Ended("a task", std::io::Error::other(error))))
}

/// The limit of open files of this process.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // a killed server can listen again at once
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| ServeError::Listen(address.to_string(), error))
}

fn open_fleet(
    data: &Path,
    fleet: Option<FleetName>,
    names: &[String],
) -> Result<(Fleet, Start), ServeError> {
    let mut names = names.to_vec();
    if names.is_empty() && !data.join("keys").exists() {
        names.push(host_name());
    }
    let first = FirstStart {
        fleet,
        names,
        now: Timestamp::now(),
    };
    Ok(Fleet::open_or_create(data, &first)?)
}

/// The machine's host name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" | "(none)" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

fn about(
    data: &Path,
    fleet: &Fleet,
    start: Start,
    listener: &TcpListener,
    names: &[String],
) -> About {
    let listen = listener
        .local_addr()
        .expect("a bound listener has an address");
    let all = fleet.server_names();
    // the first name that was given, or after a restart without one, the one in the certificate
    let name = names
        .first()
        .or(all.first())
        .cloned()
        .unwrap_or_else(|| "localhost".to_owned());
    let host = if name.contains(':') {
        format!("[{name}]")
    } else {
        name
    };
    About {
        version: env!("CARGO_PKG_VERSION"),
        first_start: start == Start::Created,
        data: data.to_owned(),
        facts: FleetFacts {
            fleet: fleet.name().to_string(),
            trust_root: fleet.trust_root_fingerprint().hex(),
            trust_root_version: fleet.trust_root().version,
            device_ca: fleet.ca_fingerprint().hex(),
            device_ca_expires: fleet.ca_not_after(),
            server: format!("https://{host}:{}", listen.port()),
            server_expires: fleet.server_not_after(),
            data: data.display().to_string(),
            waiting: 0,
            clock: None,
        },
        names: all,
        listen,
        admin: PathBuf::new(),
        hooks: None,
        clock: fleet.clock().check().err().map(|doubt| doubt.problem()),
    }
}

/// Renews the fleet's certificates where that is due. While the clock is in doubt it does nothing.
fn renew_certificates(fleet: &Fleet, names: &[String], now: Timestamp) -> Result<bool, KeysError> {
    match fleet.renew_certificates(names, now) {
        Err(KeysError::Clock(_)) => Ok(false),
        done => done,
    }
}

/// The maintenance once a minute: saves last-seen times, deletes old tokens, renews the server's certificate in time.
async fn chores(store: &Store, fleet: &Fleet, names: &[String]) {
    let failures = store.failures();
    let mut every = tokio::time::interval(CHORES);
    loop {
        every.tick().await;
        let now = Timestamp::now();
        failures.note("keeping last-seen times", &store.keep_seen().await, now);
        // a clock that is in doubt must not decide what is old
        if fleet.clock().check().is_ok() {
            failures.note("removing old tokens", &store.purge(now).await, now);
        }
        let renewed = renew_certificates(fleet, names, now);
        failures.note("renewing the server's certificate", &renewed, now);
        if let Ok(true) = renewed {
            tracing::info!("the server's certificate was renewed");
        }
    }
}
