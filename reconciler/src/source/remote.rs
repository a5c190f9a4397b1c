//! Mirrors a Git URL with the user's own `git` program, so that ssh keys, credential helpers, proxies and certificates work as
//! they do on the command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{SourceError, Url};

/// Longest run of `git`: the first fetch of a large repository over a slow network.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest error message, in bytes.
const MESSAGE_BYTES: usize = 1024;
/// The mirror's ref for the commit that was fetched last.
pub(super) const FETCHED: &str = "refs/flotta/head";

/// Limits the history that is fetched: a merge of a branch that is older than the first fetch would bring all of it.
const DEPTH: &str = "--depth=500";

/// Lock files that a killed `git` leaves, and that would stop every later run.
const LOCKS: [&str; 4] = [
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
    "refs/flotta/head.lock",
];

/// The commit that a remote branch points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) commit: String,
    pub(super) branch: Option<String>,
}

/// A bare repository that mirrors one branch of a URL. It is a cache, and may be removed at any time.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    url: Url,
    directory: PathBuf,
}

impl Mirror {
    pub(super) fn new(url: Url, directory: PathBuf) -> Self {
        Self { url, directory }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Queries the tip of the branch. This transfers no objects, so it may be done often.
    pub(super) async fn tip(&self, branch: Option<&str>) -> Result<Tip, SourceError> {
        self.prepare()?;
        let pattern = branch.map_or_else(|| "HEAD".to_owned(), |name| format!("refs/heads/{name}"));
        let answer = self
            .git("ls-remote", &["--symref", "origin", &pattern])
            .await?;
        parse_tip(&answer, &pattern).ok_or_else(|| {
            SourceError::Branch(self.url.redacted(), branch.unwrap_or("HEAD").to_owned())
        })
    }

    /// Fetches the commit: at first without its history, because a release needs only the files; later with the last [`DEPTH`]
    /// commits, which show whether the branch descends from the previous commit. If that fails, only the commit is fetched.
    pub(super) async fn fetch(&self, tip: &Tip) -> Result<(), SourceError> {
        let from = tip
            .branch
            .as_ref()
            .map_or_else(|| "HEAD".to_owned(), |name| format!("refs/heads/{name}"));
        let refspec = format!("+{from}:{FETCHED}");
        let known = git2::Repository::open_bare(&self.directory)
            .is_ok_and(|repository| repository.find_reference(FETCHED).is_ok());
        if known {
            let since = ["--quiet", "--no-tags", DEPTH, "origin", &refspec];
            if self.git("fetch", &since).await.is_ok() {
                return Ok(());
            }
        }
        let alone = ["--quiet", "--no-tags", "--depth=1", "origin", &refspec];
        self.git("fetch", &alone).await.map(drop)
    }

    /// Fetches one commit without its history, whatever the branch points to.
    pub(super) async fn fetch_commit(&self, commit: &str) -> Result<(), SourceError> {
        let Ok(id) = git2::Oid::from_str(commit) else {
            let place = self.url.redacted();
            return Err(SourceError::Selection(
                format!("{commit} of {place}"),
                "commit",
            ));
        };
        self.prepare()?;
        let id = id.to_string();
        let alone = ["--quiet", "--no-tags", "--depth=1", "origin", &id];
        self.git("fetch", &alone).await.map(drop)
    }

    /// Creates the repository. The URL is in its configuration, not in an argument, which other users of the machine could see
    /// in the process list.
    fn prepare(&self) -> Result<(), SourceError> {
        // nothing else uses it, because the data directory is locked
        for lock in LOCKS.map(|lock| self.directory.join(lock)) {
            match std::fs::remove_file(&lock) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SourceError::Read(
                        lock.display().to_string(),
                        Box::new(error),
                    ));
                }
                _ => {}
            }
        }
        let fail = || SourceError::read(self.directory.display().to_string());
        let mut options = git2::RepositoryInitOptions::new();
        options
            .bare(true)
            .external_template(false)
            .mode(git2::RepositoryInitMode::from_bits_retain(0o700));
        let repository = git2::Repository::init_opts(&self.directory, &options).map_err(fail())?;
        // git2 would check a remote's URL against its own transports, so the value is written directly
        let mut config = repository.config().map_err(fail())?;
        if config.get_string("remote.origin.url").ok().as_deref() != Some(self.url.expose()) {
            config
                .set_str("remote.origin.url", self.url.expose())
                .map_err(fail())?;
        }
        Ok(())
    }

    async fn git(&self, command: &'static str, arguments: &[&str]) -> Result<String, SourceError> {
        let fail = |message: String| SourceError::Git { command, message };
        let run = Command::new("git")
            .arg("--git-dir")
            .arg(&self.directory)
            // give up on a stalled transfer; run maintenance before the command returns, not in the background
            .args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"])
            .args([
                "-c",
                "gc.autoDetach=false",
                "-c",
                "maintenance.autoDetach=false",
            ])
            .arg(command)
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(TIMEOUT, run).await {
            Err(_) => return Err(fail(format!("no answer within {} s", TIMEOUT.as_secs()))),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(fail("the program `git` is not installed".to_owned()));
            }
            Ok(Err(error)) => return Err(fail(error.to_string())),
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            return Err(fail(self.message(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The end of git's output, in one line.
    fn message(&self, stderr: &[u8]) -> String {
        let text = self.url.scrub(&String::from_utf8_lossy(stderr));
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let mut message = lines.join("; ");
        if message.len() > MESSAGE_BYTES {
            let skip = message.len() - MESSAGE_BYTES;
            let end: String = message
                .char_indices()
                .filter(|(at, _)| *at >= skip)
                .map(|(_, c)| c)
                .collect();
            message = format!("…{end}");
        }
        message
    }
}

/// Parses `git ls-remote --symref`: `ref: refs/heads/main\tHEAD`, then `COMMIT\tHEAD`.
pub(super) fn parse_tip(answer: &str, pattern: &str) -> Option<Tip> {
    let mut branch = pattern.strip_prefix("refs/heads/").map(str::to_owned);
    let mut commit = None;
    for line in answer.lines() {
        let Some((value, name)) = line.split_once('\t') else {
            continue;
        };
        if name != pattern {
            continue;
        }
        if let Some(target) = value.strip_prefix("ref: ") {
            branch = target.strip_prefix("refs/heads/").map(str::to_owned);
        } else {
            commit = Some(value.to_owned());
        }
    }
    Some(Tip {
        commit: commit?,
        branch,
    })
}
