//! The files of a directory or of a Git revision: the input of a render, in an order independent of the file system.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flotta_bundle::release::Revision;
use flotta_renderer::decode::MAX_FILE_BYTES;
use git2::{ObjectType, Repository, TreeWalkMode, TreeWalkResult};

/// Most YAML files in a tree. A fleet of 100,000 devices with a file each still fits.
const MAX_FILES: usize = 200_000;
/// How much of a file is read, in bytes: enough for the decoder to see that a file is too large.
const START: u64 = MAX_FILE_BYTES + 1;
/// Largest file that is read from Git, in bytes, because libgit2 only reads whole files. For a file between these two limits
/// the start shows whether it has objects of a fleet.
const MAX_READ: usize = 64 << 20;
/// Most bytes in all files.
const MAX_BYTES: u64 = 512 << 20;

/// The YAML files of a source, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// `.yaml` and `.yml` files, without files and folders whose names begin with a dot.
    pub files: Vec<SourceFile>,
    /// Paths that were not read, and why.
    pub skipped: Vec<(String, Skipped)>,
}

/// Why a path of a tree was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// A symbolic link, or a name that is not UTF-8.
    NotFollowed,
    /// A Git submodule, whose content is not part of the commit.
    Submodule,
    /// A file far larger than [`MAX_FILE_BYTES`].
    TooLarge,
}

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The relative path, with `/`.
    pub path: String,
    /// The content.
    pub content: Vec<u8>,
}

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file or folder cannot be read.
    #[error("cannot read {0}")]
    Io(String, #[source] std::io::Error),
    /// Git cannot read the revision.
    #[error("cannot read revision {0}")]
    Git(String, #[source] git2::Error),
    /// The tree exceeds a limit.
    #[error("{0}")]
    Limit(String),
}

impl Tree {
    /// Reads a directory as it is now.
    pub fn read_dir(directory: &Path) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        let mut bytes = 0;
        tree.descend(directory, "", &mut bytes)?;
        tree.sort();
        Ok(tree)
    }

    fn descend(
        &mut self,
        directory: &Path,
        prefix: &str,
        bytes: &mut u64,
    ) -> Result<(), TreeError> {
        let unreadable = |error| TreeError::Io(directory.display().to_string(), error);
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let path = format!("{prefix}{}", name.to_string_lossy());
                self.skipped.push((path, Skipped::NotFollowed));
                continue;
            };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(unreadable)?;
            if name.starts_with('.') {
                continue;
            }
            if kind.is_symlink() {
                self.skipped.push((path, Skipped::NotFollowed));
            } else if kind.is_dir() && entry.path().join(".git").is_file() {
                // its files are checked out here, but would be missing when read from Git
                self.skipped.push((path, Skipped::Submodule));
            } else if kind.is_dir() {
                self.descend(&entry.path(), &format!("{path}/"), bytes)?;
            } else if kind.is_file() && is_yaml(name) {
                let mut content = Vec::new();
                fs::File::open(entry.path())
                    .and_then(|file| file.take(START).read_to_end(&mut content))
                    .map_err(|error| TreeError::Io(path.clone(), error))?;
                self.add(path, content, bytes)?;
            }
        }
        Ok(())
    }

    /// Reads a revision's objects, without a checkout or anything uncommitted.
    pub fn at_revision(
        repository: &Repository,
        revision: &str,
        folder: Option<&str>,
    ) -> Result<(Self, Revision), TreeError> {
        let failed = |error| TreeError::Git(revision.to_owned(), error);
        let commit = repository
            .revparse_single(revision)
            .and_then(|object| object.peel_to_commit())
            .map_err(failed)?;
        let mut root = commit.tree().map_err(failed)?;
        if let Some(folder) = folder
            .map(|folder| folder.trim_matches('/'))
            .filter(|f| !f.is_empty())
        {
            root = root
                .get_path(Path::new(folder))
                .and_then(|entry| entry.to_object(repository))
                .and_then(|object| object.peel_to_tree())
                .map_err(failed)?;
        }
        let mut tree = Self::default();
        let mut bytes = 0;
        let mut refused = None;
        let walked = root.walk(TreeWalkMode::PreOrder, |prefix, entry| {
            match tree.visit(repository, prefix, entry, &mut bytes) {
                Ok(result) => result,
                Err(error) => {
                    refused = Some(error);
                    TreeWalkResult::Abort
                }
            }
        });
        if let Some(error) = refused {
            return Err(error);
        }
        walked.map_err(failed)?;
        tree.sort();
        let subject = commit.summary().ok().flatten().unwrap_or_default();
        let revision = Revision {
            source: "directory".to_owned(),
            commit: commit.id().to_string(),
            subject: subject.chars().take(72).collect(),
            inventory: None,
        };
        Ok((tree, revision))
    }

    fn visit(
        &mut self,
        repository: &Repository,
        prefix: &str,
        entry: &git2::TreeEntry<'_>,
        bytes: &mut u64,
    ) -> Result<TreeWalkResult, TreeError> {
        const LINK: i32 = 0o120_000;
        let Ok(name) = entry.name() else {
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = format!("{prefix}{name}");
            self.skipped.push((path, Skipped::NotFollowed));
            return Ok(TreeWalkResult::Skip);
        };
        let path = format!("{prefix}{name}");
        if name.starts_with('.') {
            return Ok(TreeWalkResult::Skip);
        }
        if entry.filemode() == LINK {
            self.skipped.push((path, Skipped::NotFollowed));
        } else if entry.kind() == Some(ObjectType::Commit) {
            self.skipped.push((path, Skipped::Submodule));
        } else if entry.kind() == Some(ObjectType::Blob) && is_yaml(name) {
            let failed = |error| TreeError::Git(path.clone(), error);
            let header = repository.odb().and_then(|all| all.read_header(entry.id()));
            let (size, _) = header.map_err(failed)?;
            if size > MAX_READ {
                self.skipped.push((path, Skipped::TooLarge));
            } else {
                let blob = repository.find_blob(entry.id()).map_err(failed)?;
                let mut content = Vec::new();
                let mut start = blob.content().take(START);
                let io = |error| TreeError::Io(path.clone(), error);
                start.read_to_end(&mut content).map_err(io)?;
                self.add(path, content, bytes)?;
            }
        }
        Ok(TreeWalkResult::Ok)
    }

    fn add(&mut self, path: String, content: Vec<u8>, bytes: &mut u64) -> Result<(), TreeError> {
        let length = content.len() as u64;
        *bytes += length;
        if *bytes > MAX_BYTES || self.files.len() >= MAX_FILES {
            return Err(TreeError::Limit(format!(
                "more than {MAX_FILES} files or {MAX_BYTES} bytes of YAML"
            )));
        }
        self.files.push(SourceFile { path, content });
        Ok(())
    }

    fn sort(&mut self) {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.skipped.sort();
    }
}

fn is_yaml(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default();
    ["yaml", "yml"]
        .iter()
        .any(|yaml| extension.eq_ignore_ascii_case(yaml))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_opened() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a.yaml"), "a: 1").expect("a file");
        // opening a pipe would wait for a writer, and opening a socket fails
        let _socket = std::os::unix::net::UnixListener::bind(path("b.yaml")).expect("a socket");
        let tree = Tree::read_dir(directory.path()).expect("a tree");
        assert_eq!(tree.files.len(), 1);
    }

    #[test]
    fn the_case_of_an_extension_does_not_count() {
        let names = ["a.yaml", "b.YAML", "c.Yml", "d.json", "yaml"];
        let read: Vec<_> = names.into_iter().filter(|name| is_yaml(name)).collect();
        assert_eq!(read, ["a.yaml", "b.YAML", "c.Yml"]);
    }
}
