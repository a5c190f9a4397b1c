//! The source of the fleet's YAML: a directory, a Git repository on this machine, or a Git URL.
//!
//! A Git repository is read from its objects, never from its working tree, so that only committed content is served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flotta_bundle::code::{self, Code};
use flotta_bundle::release::Revision;
use flotta_renderer::Input;

mod chart;
mod directory;
mod git;
mod history;
mod once;
mod policy;
mod read;
mod remote;
mod tree;
mod url;

#[cfg(test)]
mod tests;

pub use history::{ALLOW_REMOVAL, Ancestry};
pub use once::open;
pub use policy::refuses;
pub use read::Reader;
pub use tree::{Skipped, SourceFile, Tree, TreeError};
pub use url::Url;

use remote::{Mirror, Tip};

/// How often a source is polled when no hook wakes it.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time to fetch an earlier commit from a remote: it is retried, and a stop of the server waits for it.
const RECALL_TIMEOUT: Duration = Duration::from_secs(20);

/// A checkout of a source: everything that a release is rendered from, except the inventory.
#[derive(Debug)]
pub struct Checkout {
    /// The input of the renderer.
    pub input: Input,
    /// The files that it was read from, to show lines of them.
    pub tree: Tree,
    /// Where the files are from. Its `inventory` is still empty.
    pub revision: Revision,
    /// The branch, if there is one: `main`.
    pub branch: Option<String>,
    /// The previous commit, and how this one is related to it; none when there was none, or that is not known.
    pub ancestry: Option<(String, Ancestry)>,
    /// Whether the commit allows its own removals: [`ALLOW_REMOVAL`].
    pub allows_removal: bool,
}

impl Checkout {
    /// A label for people: `main@4f2c91a`.
    pub fn label(&self) -> String {
        match &self.branch {
            Some(branch) => format!("{branch}@{}", self.revision.short()),
            None => self.revision.short().to_owned(),
        }
    }
}

/// The branch and folder of a source.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The branch; that of `HEAD` when absent.
    pub branch: Option<String>,
    /// The folder within the repository; the whole repository when absent.
    pub path: Option<String>,
}

/// Why a source cannot be read. The published release stays in force.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is neither a directory nor a Git URL.
    #[error("`{0}` is neither a directory nor a Git URL")]
    Unknown(String),
    /// The directory does not exist.
    #[error("there is no directory {0}")]
    Gone(String),
    /// The name of a branch or folder is not valid.
    #[error("`{0}` is not a {1}")]
    Selection(String, &'static str),
    /// Files cannot be read.
    #[error("{0} cannot be read")]
    Read(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The `git` program failed, or is not installed.
    #[error("git {command}: {message}")]
    Git {
        /// The command: `fetch`.
        command: &'static str,
        /// The end of its output, without credentials.
        message: String,
    },
    /// Git does not open a repository of another user unless it is configured to.
    #[error(
        "{0} belongs to another user; to have the server read it: git config --system --add safe.directory {0}"
    )]
    Owner(String),
    /// The branch does not exist in the repository.
    #[error("{0} has no branch `{1}`")]
    Branch(String, String),
}

impl SourceError {
    /// The stable code.
    pub fn code(&self) -> Code {
        code::SOURCE
    }

    fn read(what: impl Into<String>) -> impl FnOnce(git2::Error) -> Self {
        move |error| Self::Read(what.into(), Box::new(error))
    }
}

/// A source, with the last commit seen.
#[derive(Debug)]
pub struct Source {
    upstream: Upstream,
    selection: Selection,
    seen: Option<String>,
    /// The commit to compare the next one with.
    before: Option<String>,
    /// The reader, which does not read unchanged files again.
    reader: Reader,
}

#[derive(Debug, Clone)]
enum Upstream {
    /// A directory or a repository; which one is checked each time, and it may be missing for a while.
    Local(PathBuf),
    Remote(Mirror),
}

impl Source {
    /// Parses `--source`: a directory, which is read as a Git repository if it is one itself (not if a parent is), or a Git
    /// URL, which is mirrored in `data/source.git`.
    pub fn parse(text: &str, selection: Selection, data: &Path) -> Result<Self, SourceError> {
        let source = Self::resume(text, selection, data)?;
        if let Upstream::Local(path) = &source.upstream {
            if !path.is_dir() {
                return Err(SourceError::Unknown(text.to_owned()));
            }
            if !git::is_repository(path)
                && let Some(branch) = &source.selection.branch
            {
                return Err(SourceError::Branch(text.to_owned(), branch.clone()));
            }
        }
        Ok(source)
    }

    /// The same for a source that was used before: if it is missing now, [`Self::poll`] reports that.
    pub fn resume(text: &str, selection: Selection, data: &Path) -> Result<Self, SourceError> {
        check(&selection)?;
        let upstream = match Url::parse(text) {
            Some(url) => Upstream::Remote(Mirror::new(url, data.join("source.git"))),
            None => Upstream::Local(
                std::fs::canonicalize(text)
                    .or_else(|_| std::path::absolute(text))
                    .map_err(|_| SourceError::Unknown(text.to_owned()))?,
            ),
        };
        Ok(Self {
            upstream,
            selection,
            seen: None,
            before: None,
            reader: Reader::default(),
        })
    }

    /// Sets the commit to compare the next one with.
    pub fn follows(&mut self, commit: &str) {
        self.before = Some(commit.to_owned());
    }

    /// Reads an earlier commit if it is still available: a restarted server continues with it while the newest one cannot be
    /// fetched.
    ///
    /// A new mirror has only the newest commit, so the remote is asked for it.
    pub async fn recall(&self, commit: &str) -> Option<Checkout> {
        if let Some(found) = self.read_again(commit).await {
            return Some(found);
        }
        let Upstream::Remote(mirror) = &self.upstream else {
            return None;
        };
        let fetched = tokio::time::timeout(RECALL_TIMEOUT, mirror.fetch_commit(commit));
        fetched.await.ok()?.ok()?;
        self.read_again(commit).await
    }

    async fn read_again(&self, commit: &str) -> Option<Checkout> {
        let (upstream, selection) = (self.upstream.clone(), self.selection.clone());
        let commit = commit.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let (directory, name) = match &upstream {
                Upstream::Local(path) => (path.as_path(), "directory".to_owned()),
                Upstream::Remote(mirror) => (mirror.directory(), mirror.url().redacted()),
            };
            git::recall(
                directory,
                &commit,
                &selection,
                &name,
                &mut Reader::default(),
            )
        });
        read.await.ok()?.ok()
    }

    /// The location of the source, without credentials.
    pub fn describe(&self) -> String {
        match &self.upstream {
            Upstream::Local(path) => path.display().to_string(),
            Upstream::Remote(mirror) => mirror.url().redacted(),
        }
    }

    /// Reads the source, if it has changed since the last successful call.
    pub async fn poll(&mut self) -> Result<Option<Checkout>, SourceError> {
        let at = match &self.upstream {
            Upstream::Remote(mirror) => {
                let tip = mirror.tip(self.selection.branch.as_deref()).await?;
                if self.seen.as_ref() == Some(&tip.commit) {
                    return Ok(None);
                }
                mirror.fetch(&tip).await?;
                Some(tip)
            }
            Upstream::Local(_) => None,
        };
        // an interrupted read loses the reader's cache, and the next one starts without it
        let (look, mut reader) = (self.look(at), std::mem::take(&mut self.reader));
        let read = tokio::task::spawn_blocking(move || (look.read(&mut reader), reader));
        let (checkout, reader) = read
            .await
            .map_err(|error| SourceError::Read(self.describe(), Box::new(error)))?;
        self.reader = reader;
        let checkout = checkout?;
        if let Some(checkout) = &checkout {
            self.seen = Some(checkout.revision.commit.clone());
            self.before.clone_from(&self.seen);
        }
        Ok(checkout)
    }

    fn look(&self, tip: Option<Tip>) -> Look {
        Look {
            upstream: self.upstream.clone(),
            selection: self.selection.clone(),
            seen: self.seen.clone(),
            before: self.before.clone(),
            tip,
        }
    }

    /// Forgets the last commit seen: the next [`Self::poll`] returns the current one.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

/// One read of a source, which may take a while.
struct Look {
    upstream: Upstream,
    selection: Selection,
    seen: Option<String>,
    before: Option<String>,
    /// The tip that was fetched from a remote.
    tip: Option<Tip>,
}

impl Look {
    fn read(self, reader: &mut Reader) -> Result<Option<Checkout>, SourceError> {
        let (selection, seen, before) = (&self.selection, self.seen, self.before.as_deref());
        let seen = seen.as_deref();
        match self.upstream {
            Upstream::Local(path) if !path.is_dir() => {
                Err(SourceError::Gone(path.display().to_string()))
            }
            Upstream::Local(path) if git::is_repository(&path) => {
                git::read_local(&path, selection, seen, before, reader)
            }
            Upstream::Local(path) => match &selection.branch {
                Some(branch) => Err(SourceError::Branch(
                    path.display().to_string(),
                    branch.clone(),
                )),
                None => directory::read(&path, selection, seen, reader),
            },
            Upstream::Remote(mirror) => {
                let tip = self.tip.expect("a remote was asked for its tip");
                git::read_mirror(&mirror, tip.branch, selection, before, reader).map(Some)
            }
        }
    }
}

fn check(selection: &Selection) -> Result<(), SourceError> {
    if let Some(branch) = &selection.branch
        && !git2::Reference::is_valid_name(&format!("refs/heads/{branch}"))
    {
        return Err(SourceError::Selection(branch.clone(), "branch name"));
    }
    if let Some(path) = &selection.path
        && path.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(SourceError::Selection(
            path.clone(),
            "folder within the repository: give it relative and without `.` or `..`",
        ));
    }
    Ok(())
}
