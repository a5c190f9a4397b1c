//! Reads a source once, for `flotta render` and `flotta lint`.

use std::path::Path;

use git2::Repository;

use super::{Checkout, Reader, Selection, Source, SourceError, Tree, Url, directory};

/// Reads the source `text` once. A directory is read as it is on disk, whether it is in a repository or not, because
/// uncommitted changes are what one wants to check. With `rev` it is read at that revision of the repository that it is in.
/// A Git URL is fetched; there `rev` is a branch.
pub async fn open(text: &str, rev: Option<&str>) -> Result<Checkout, SourceError> {
    if Url::parse(text).is_some() {
        let selection = Selection {
            branch: rev.map(str::to_owned),
            path: None,
        };
        let scratch = tempfile::tempdir()
            .map_err(|error| SourceError::Read("a temporary folder".to_owned(), Box::new(error)))?;
        let checkout = Source::parse(text, selection, scratch.path())?
            .poll()
            .await?;
        return Ok(checkout.expect("nothing was seen before"));
    }
    let path = std::fs::canonicalize(text).map_err(|_| SourceError::Unknown(text.to_owned()))?;
    if !path.is_dir() {
        return Err(SourceError::Unknown(text.to_owned()));
    }
    match rev {
        Some(rev) => at(&path, rev),
        None => directory::read(&path, &Selection::default(), None, &mut Reader::default())
            .map(|checkout| checkout.expect("nothing was seen before")),
    }
}

/// Reads a folder at a revision of the repository that it is in.
fn at(path: &Path, rev: &str) -> Result<Checkout, SourceError> {
    let place = || format!("{} at {rev}", path.display());
    let repository = Repository::discover(path).map_err(SourceError::read(place()))?;
    let inside = repository
        .workdir()
        .and_then(|root| std::fs::canonicalize(root).ok())
        .and_then(|root| path.strip_prefix(root).ok()?.to_str().map(str::to_owned))
        .filter(|inside| !inside.is_empty());
    let (tree, revision) = Tree::at_revision(&repository, rev, inside.as_deref())
        .map_err(|error| SourceError::Read(place(), Box::new(error)))?;
    Ok(Checkout {
        input: Reader::default().read(&tree),
        tree,
        revision,
        branch: None,
        ancestry: None,
        allows_removal: false,
    })
}
