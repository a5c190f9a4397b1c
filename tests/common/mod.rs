//! A server in this process, its Git repository, and the command line against it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "tests; not every test file uses all of it"
)]

pub mod joined;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotta_reconciler::admin::Access;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::resource::{EventObject, List, ReleaseObject, Resource};
use flotta_reconciler::publish::Notice;
use flotta_reconciler::serve::{About, Config, Hooks, Server};
use flotta_reconciler::source::Selection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Deadline for everything, far longer than anything takes.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An `EdgeDevice` of this name.
pub fn device(name: &str) -> String {
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata:\n  name: {name}\n"
    )
}

/// A file that is refused.
pub const BAD: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata:
  name: shop-9
spek: {}
";

/// Polls `look` until it returns something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// A folder with a Git repository and a data directory.
pub struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let mut options = git2::RepositoryInitOptions::new();
        options.initial_head("main");
        git2::Repository::init_opts(fixture.repository(), &options).unwrap();
        fixture
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn repository(&self) -> PathBuf {
        self.path().join("fleet")
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("admin.sock")
    }

    /// Commits one file.
    pub fn commit(&self, file: &str, content: &str) -> String {
        self.commit_all(&format!("change {file}"), &[(file, content)])
    }

    /// Commits these files; one without content is removed.
    pub fn commit_all(&self, message: &str, files: &[(&str, &str)]) -> String {
        let repository = git2::Repository::open(self.repository()).unwrap();
        let mut index = repository.index().unwrap();
        for (file, content) in files {
            if content.is_empty() {
                std::fs::remove_file(self.repository().join(file)).unwrap();
                index.remove_path(Path::new(file)).unwrap();
            } else {
                std::fs::write(self.repository().join(file), content).unwrap();
                index.add_path(Path::new(file)).unwrap();
            }
        }
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let who = git2::Signature::now("test", "test@example.com").unwrap();
        let parent = repository
            .head()
            .ok()
            .map(|head| head.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        let id = repository
            .commit(Some("HEAD"), &who, &who, message, &tree, &parents)
            .unwrap();
        id.to_string()
    }

    /// Sets the branch to a commit, as a forced push does.
    pub fn force(&self, commit: &str) {
        let repository = git2::Repository::open(self.repository()).unwrap();
        let object = repository.revparse_single(commit).unwrap();
        repository
            .reset(&object, git2::ResetType::Hard, None)
            .unwrap();
    }

    pub fn config(&self) -> Config {
        Config {
            source: self.repository().display().to_string(),
            selection: Selection::default(),
            data: self.path().join("data"),
            listen: "127.0.0.1:0".parse().unwrap(),
            fleet: Some("shops".parse().unwrap()),
            names: vec!["localhost".to_owned()],
            admin: Some(self.socket()),
            access: Access::User,
            hooks: None,
            interval: Duration::from_millis(50),
            require_digests: false,
        }
    }

    /// The same, woken only by hooks.
    pub fn config_with_hooks(&self, secret: &str) -> Config {
        let secret_file = self.path().join("secret");
        std::fs::write(&secret_file, format!("{secret}\n")).unwrap();
        Config {
            hooks: Some(Hooks {
                listen: "127.0.0.1:0".parse().unwrap(),
                secret_file,
            }),
            interval: Duration::from_secs(3600),
            ..self.config()
        }
    }

    pub async fn start(&self) -> Running {
        self.start_with(self.config()).await
    }

    pub async fn start_with(&self, config: Config) -> Running {
        // an error means that another test of this process has installed it
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::open(config).await.unwrap();
        let about = server.about().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let notices = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&notices);
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            server
                .run(stop, move |notice| {
                    said.lock().unwrap().push(notice.clone());
                })
                .await
                .unwrap();
        });
        Running {
            client: Client::new(&about.admin),
            about,
            notices,
            stop,
            task,
        }
    }

    /// Runs the command line against the server.
    pub async fn flotta(&self, arguments: &[&str]) -> Output {
        flotta_in(self.path(), &self.socket(), arguments).await
    }
}

/// Runs the command line.
pub async fn flotta_in(directory: &Path, socket: &Path, arguments: &[&str]) -> Output {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_flotta"))
        .args(arguments)
        .current_dir(directory)
        .env("FLOTTA_ADMIN", socket)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap()
}

/// The path of a program that a test needs and that is not built here; reports it when it is missing.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = places.find(|place| place.is_file());
    if found.is_none() {
        missing(name);
    }
    found
}

/// Reports that a test was skipped; not with `eprintln`, which the test harness captures.
pub fn missing(what: &str) {
    let line = format!("LEFT OUT: a test needs {what}, which is not there\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server running in this process.
pub struct Running {
    pub about: About,
    pub client: Client,
    notices: Arc<Mutex<Vec<Notice>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits for a notice, and returns it.
    pub async fn said<T>(&self, what: &str, pick: impl Fn(&Notice) -> Option<T>) -> T {
        eventually(what, || async {
            self.notices.lock().unwrap().iter().find_map(&pick)
        })
        .await
    }

    pub async fn released(&self, wanted: u64) {
        let picked = |notice: &Notice| match notice {
            Notice::Published { sequence, .. } if *sequence == wanted => Some(()),
            _ => None,
        };
        self.said(&format!("release {wanted}"), picked).await;
    }

    /// Waits until a commit is held, and returns the reason.
    pub async fn held(&self, wanted: &str) -> String {
        self.said("that a commit is held", |notice| match notice {
            Notice::Held { reason, commit, .. } if wanted.starts_with(commit.as_str()) => {
                Some(reason.clone())
            }
            _ => None,
        })
        .await
    }

    pub async fn refused(&self) -> String {
        self.said("a refusal", |notice| match notice {
            Notice::Refused { .. } => Some(notice.to_string()),
            _ => None,
        })
        .await
    }

    pub async fn list<T: Resource>(&self) -> Vec<T> {
        let list: List<T> = self
            .client
            .get(&format!("/v1/{}", T::PLURAL))
            .await
            .unwrap();
        list.items
    }

    /// The states of all releases, the newest first.
    pub async fn states(&self) -> Vec<String> {
        let releases: Vec<ReleaseObject> = self.list().await;
        let state = |release: ReleaseObject| release.status.state;
        releases.into_iter().map(state).collect()
    }

    /// Waits for an event with this reason, and returns the message of the newest.
    pub async fn event(&self, reason: &str) -> String {
        eventually(reason, || async {
            let events: Vec<EventObject> = self.list().await;
            let mut found = events
                .into_iter()
                .filter(|event| event.status.reason == reason);
            found.next_back().map(|event| event.status.message)
        })
        .await
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap();
    }
}
