//! A directory as a source: its files as they are now. The digest of its content takes the place of the commit.

use std::path::Path;

use flotta_bundle::Digest;
use flotta_bundle::release::Revision;

use super::{Checkout, Reader, Selection, SourceError, Tree};

/// Reads the directory, unless its content has the digest `seen`.
pub(super) fn read(
    directory: &Path,
    selection: &Selection,
    seen: Option<&str>,
    reader: &mut Reader,
) -> Result<Option<Checkout>, SourceError> {
    let directory = match &selection.path {
        Some(path) => directory.join(path),
        None => directory.to_owned(),
    };
    let tree = Tree::read_dir(&directory)
        .map_err(|error| SourceError::Read(directory.display().to_string(), Box::new(error)))?;
    let commit = digest(&tree).to_string();
    if seen == Some(commit.as_str()) {
        return Ok(None);
    }
    Ok(Some(Checkout {
        input: reader.read(&tree),
        tree,
        revision: Revision {
            source: "directory".to_owned(),
            commit,
            subject: String::new(),
            inventory: None,
        },
        branch: None,
        ancestry: None,
        allows_removal: false,
    }))
}

/// The digest of paths and contents, each with its length, so that no two trees have the same one.
pub(super) fn digest(tree: &Tree) -> Digest {
    let mut bytes = Vec::new();
    for file in &tree.files {
        for part in [file.path.as_bytes(), &file.content] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    Digest::of(&bytes)
}
