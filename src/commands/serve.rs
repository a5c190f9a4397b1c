//! `flotta serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use flotta_bundle::{FleetName, Problem};
use flotta_reconciler::admin::Access;
use flotta_reconciler::serve::{Config, Hooks, ServeError, Server};
use flotta_reconciler::source::Selection;
use jiff::SignedDuration;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Answer, Coded};
use crate::print::time::parse_span;
use crate::{output, print};

/// The default data directory of the server.
pub(super) const DATA: &str = "/var/lib/flotta";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Git URL or directory; a directory that is a repository is read at its commit, never at its working tree
    #[arg(long, env = "FLOTTA_SOURCE", value_name = "URL|DIR")]
    source: String,
    /// Branch [default: the repository's own]
    #[arg(long, env = "FLOTTA_BRANCH")]
    branch: Option<String>,
    /// Folder within the source
    #[arg(long, env = "FLOTTA_PATH")]
    path: Option<String>,
    /// Keys, releases, devices and reports
    #[arg(long, env = "FLOTTA_DATA", value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Address of the edge API, for devices
    #[arg(
        long,
        env = "FLOTTA_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:7443"
    )]
    listen: SocketAddr,
    /// Name of the fleet, at first start [default: fleet]
    #[arg(long, env = "FLOTTA_FLEET")]
    fleet: Option<FleetName>,
    /// DNS name or address that devices reach the server by; separate several with commas, or repeat the option [default: the host's name]
    #[arg(
        long = "name",
        env = "FLOTTA_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    names: Vec<String>,
    /// Address for POST /hooks/git of GitHub, GitLab, Gitea and Forgejo
    #[arg(
        long,
        env = "FLOTTA_HOOKS_LISTEN",
        value_name = "ADDR",
        requires = "hooks_secret_file"
    )]
    hooks_listen: Option<SocketAddr>,
    /// File with the secret given to the forge
    #[arg(
        long,
        env = "FLOTTA_HOOKS_SECRET_FILE",
        value_name = "FILE",
        requires = "hooks_listen"
    )]
    hooks_secret_file: Option<PathBuf>,
    /// How often to look at the source
    #[arg(
        long,
        env = "FLOTTA_POLL",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_span
    )]
    poll: SignedDuration,
    /// Refuse commits with an image that has no digest
    #[arg(long, env = "FLOTTA_REQUIRE_DIGESTS")]
    require_digests: bool,
    /// Let members of the server's group use the admin socket, too: who can use it decides over the fleet
    #[arg(long, env = "FLOTTA_GROUP_ACCESS")]
    group_access: bool,
}

impl Serve {
    pub(crate) async fn run(self, admin: Option<PathBuf>) -> anyhow::Result<Answer> {
        let config = Config {
            source: self.source,
            selection: Selection {
                branch: self.branch,
                path: self.path,
            },
            data: self.data,
            listen: self.listen,
            fleet: self.fleet,
            names: self.names,
            admin,
            access: if self.group_access {
                Access::Group
            } else {
                Access::User
            },
            hooks: self
                .hooks_listen
                .zip(self.hooks_secret_file)
                .map(|(listen, secret_file)| Hooks {
                    listen,
                    secret_file,
                }),
            interval: self.poll.unsigned_abs(),
            require_digests: self.require_digests,
        };
        raise_open_files();
        let server = Server::open(config).await.map_err(coded)?;
        let about = server.about();
        // an error means that no service manager is waiting for it
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        output::talk(print::start::screen(about).trim_end());
        let ready = print::start::ready(about);
        let said = std::sync::Once::new();
        let say = move |notice: &flotta_reconciler::publish::Notice| {
            output::talk(&notice.to_string());
            said.call_once(|| output::talk(&ready));
        };
        let stopped = stopped()?;
        let stop = async {
            stopped.await;
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
        };
        server.run(stop, say).await.map_err(coded)?;
        Ok(Answer::Yes)
    }
}

/// Raises the limit of open files to its maximum. Each device takes one, and the default of 1,024 is for programs that use
/// select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // if this fails, the limit stays as it was
    let _ = setrlimit(Resource::Nofile, most);
}

fn coded(error: ServeError) -> anyhow::Error {
    let code = error.code();
    Coded(Problem::new(
        code,
        format!("{:#}", anyhow::Error::new(error)),
    ))
    .into()
}

/// Returns at SIGTERM or SIGINT.
fn stopped() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
