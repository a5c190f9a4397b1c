//! A Git URL, mirrored by the user's own `git` program: ssh keys, credential helpers, proxies and certificates work as they
//! do on the command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{SourceError, Url};

/// Longest time one run of `git` may take: the first fetch of a large repository over a slow line.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Most bytes of an error message that are kept.
const MESSAGE_BYTES: usize = 1024;
/// Where the mirror keeps the commit that was fetched last.
pub(super) const FETCHED: &str = "refs/flotta/head";

/// Most commits that a fetch brings, from the newest back: a merge of a branch that began before the first fetch would bring
/// all there are.
const DEPTH: &str = "--depth=500";

/// What a `git` that was killed leaves behind, and every later one would stop at.
const LOCKS: [&str; 4] = [
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
    "refs/flotta/head.lock",
];

/// What a branch points to in the remote repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) commit: String,
    pub(super) branch: Option<String>,
}

/// A bare repository that follows one branch of a URL. It is a cache: it may be removed at any time.
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

    /// Asks the remote what the branch points to. Moves no objects, so it may be asked often.
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

    /// Fetches the commit: at first without its history, since a release needs the files alone; later with the last
    /// [`DEPTH`] of what came before, which tells whether the branch goes on from where it was. Where that cannot be had, it
    /// is the commit alone again.
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

    /// Makes the repository. The URL is in its configuration, not in an argument that other users of the machine can
    /// read in the list of processes.
    fn prepare(&self) -> Result<(), SourceError> {
        // nobody else works in it: the data directory is locked
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
        // git2 checks a remote's URL against its own transports: the value is written as it is
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
            // give up on a line that stands still; tidy up before the command returns, not in the background
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

    /// The end of what git said, in one line.
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

/// Reads `git ls-remote --symref`: `ref: refs/heads/main\tHEAD`, then `COMMIT\tHEAD`.
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
