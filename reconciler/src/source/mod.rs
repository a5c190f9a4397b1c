//! Where the fleet's YAML comes from: a directory, a Git repository on this machine, or a Git URL.
//!
//! A Git repository is read through its objects, never through its working tree: what is served is what was committed.

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

pub use history::{ALLOW_REMOVAL, Course};
pub use once::open;
pub use policy::refuses;
pub use read::Reader;
pub use tree::{Skipped, SourceFile, Tree, TreeError};
pub use url::Url;

use remote::{Mirror, Tip};

/// How often a source is looked at when no hook wakes it.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// Longest time to ask a remote for a commit of before: it is asked again, and a stop of the server waits for it.
const RECALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What a source gave: everything a release is rendered from, but the inventory.
#[derive(Debug)]
pub struct Checkout {
    /// What is rendered.
    pub input: Input,
    /// The files that it was read from: people are shown lines of them.
    pub tree: Tree,
    /// Where they are from. Its `inventory` is still empty.
    pub revision: Revision,
    /// The branch, when there is one: `main`.
    pub branch: Option<String>,
    /// The commit that was there before, and how this one follows it; none when there was none, or that cannot be told.
    pub course: Option<(String, Course)>,
    /// Whether the commit says of itself that it may take away what it does: [`ALLOW_REMOVAL`].
    pub allows_removal: bool,
}

impl Checkout {
    /// How people are told of it: `main@4f2c91a`.
    pub fn label(&self) -> String {
        match &self.branch {
            Some(branch) => format!("{branch}@{}", self.revision.short()),
            None => self.revision.short().to_owned(),
        }
    }
}

/// Which part of a source to take.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The branch; `HEAD`'s when absent.
    pub branch: Option<String>,
    /// The folder within the repository; all of it when absent.
    pub path: Option<String>,
}

/// Why a source gives nothing. What was published stays in force.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is neither a directory nor a Git URL.
    #[error("`{0}` is neither a directory nor a Git URL")]
    Unknown(String),
    /// The directory is not there.
    #[error("there is no directory {0}")]
    Gone(String),
    /// A branch or folder that cannot be one.
    #[error("`{0}` is not a {1}")]
    Selection(String, &'static str),
    /// Files could not be read.
    #[error("{0} cannot be read")]
    Read(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The `git` program failed, or is not there.
    #[error("git {command}: {message}")]
    Git {
        /// What was asked of it: `fetch`.
        command: &'static str,
        /// The end of what it said, without credentials.
        message: String,
    },
    /// Git opens no repository of another user unless it is told to.
    #[error(
        "{0} belongs to another user; to have the server read it: git config --system --add safe.directory {0}"
    )]
    Owner(String),
    /// The branch is not in the repository.
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

/// A source and what was last seen of it.
#[derive(Debug)]
pub struct Source {
    upstream: Upstream,
    selection: Selection,
    seen: Option<String>,
    /// The commit that the next one is compared with.
    before: Option<String>,
    /// What it read last: files that did not change are not read again.
    reader: Reader,
}

#[derive(Debug, Clone)]
enum Upstream {
    /// A directory, or a repository: it is looked at each time, and may be away for a while.
    Local(PathBuf),
    Remote(Mirror),
}

impl Source {
    /// Reads `--source`: a directory, which is taken as a Git repository if it is one itself (not if one is above it), or
    /// a Git URL, mirrored in `data/source.git`.
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

    /// The same for a source that was there before: that it is away is for [`Self::poll`] to say.
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

    /// Compares the next commit with this one.
    pub fn follows(&mut self, commit: &str) {
        self.before = Some(commit.to_owned());
    }

    /// A commit that it held before, if that is still here: what a server that was started anew goes on with while the newest
    /// one cannot be had.
    ///
    /// A mirror that was made anew has only the newest one: then the remote is asked for it.
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

    /// Where it is, without credentials.
    pub fn describe(&self) -> String {
        match &self.upstream {
            Upstream::Local(path) => path.display().to_string(),
            Upstream::Remote(mirror) => mirror.url().redacted(),
        }
    }

    /// What the source holds, if that is not what the last successful call returned.
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
        // one that does not come to its end takes with it what it remembers, and the next begins anew
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

    /// Forgets what was seen: the next [`Self::poll`] returns what is there.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

/// One look at a source, which may take a while.
struct Look {
    upstream: Upstream,
    selection: Selection,
    seen: Option<String>,
    before: Option<String>,
    /// What a remote was asked for.
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
