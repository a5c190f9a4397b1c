//! A commit, read through Git's objects.

use std::path::Path;

use git2::{ErrorCode, Repository};

use super::remote::{FETCHED, Mirror, Tip};
use super::{Checkout, Reader, Selection, SourceError, Tree, history};

/// Whether the directory is itself a work tree or a bare repository. Parent directories do not count: a fleet's folder that
/// happens to be in a repository is read as a folder. A repository of another user, which Git refuses to open, counts too,
/// because its working tree is not what was committed.
pub(super) fn is_repository(directory: &Path) -> bool {
    Repository::open(directory).map_or_else(|error| error.code() == ErrorCode::Owner, |_| true)
}

/// Reads the branch of a repository on this machine, unless it still points to `seen`.
pub(super) fn read_local(
    directory: &Path,
    selection: &Selection,
    seen: Option<&str>,
    before: Option<&str>,
    reader: &mut Reader,
) -> Result<Option<Checkout>, SourceError> {
    let place = directory.display().to_string();
    let repository = Repository::open(directory).map_err(|error| match error.code() {
        ErrorCode::Owner => SourceError::Owner(place.clone()),
        _ => SourceError::read(&place)(error),
    })?;
    let reference = match &selection.branch {
        Some(branch) => repository
            .find_reference(&format!("refs/heads/{branch}"))
            .map_err(|_| SourceError::Branch(place.clone(), branch.clone()))?,
        None => repository.head().map_err(SourceError::read(&place))?,
    };
    let commit = reference
        .peel_to_commit()
        .map_err(SourceError::read(&place))?
        .id()
        .to_string();
    if seen == Some(commit.as_str()) {
        return Ok(None);
    }
    let tip = Tip {
        commit,
        branch: reference
            .is_branch()
            .then(|| reference.shorthand().ok().map(str::to_owned))
            .flatten(),
    };
    // a path on this machine means nothing to a device, unlike the commit
    let place = "directory".to_owned();
    read(&repository, &tip, selection, place, before, reader).map(Some)
}

/// Reads the commit that was fetched into a mirror; the branch may have moved since its tip was queried.
pub(super) fn read_mirror(
    mirror: &Mirror,
    branch: Option<String>,
    selection: &Selection,
    before: Option<&str>,
    reader: &mut Reader,
) -> Result<Checkout, SourceError> {
    let url = mirror.url().redacted();
    let repository = Repository::open_bare(mirror.directory()).map_err(SourceError::read(&url))?;
    let commit = repository
        .find_reference(FETCHED)
        .and_then(|reference| reference.peel_to_commit())
        .map_err(SourceError::read(&url))?
        .id()
        .to_string();
    let tip = Tip { commit, branch };
    read(&repository, &tip, selection, url, before, reader)
}

/// Reads a commit that is in the repository.
pub(super) fn recall(
    directory: &Path,
    commit: &str,
    selection: &Selection,
    place: &str,
    reader: &mut Reader,
) -> Result<Checkout, SourceError> {
    let repository = Repository::open(directory).map_err(SourceError::read(place))?;
    let tip = Tip {
        commit: commit.to_owned(),
        branch: selection.branch.clone(),
    };
    let place = place.to_owned();
    read(&repository, &tip, selection, place, None, reader)
}

fn read(
    repository: &Repository,
    tip: &Tip,
    selection: &Selection,
    place: String,
    before: Option<&str>,
    reader: &mut Reader,
) -> Result<Checkout, SourceError> {
    let (tree, mut revision) =
        Tree::at_revision(repository, &tip.commit, selection.path.as_deref())
            .map_err(|error| SourceError::Read(place.clone(), Box::new(error)))?;
    revision.source = place;
    Ok(Checkout {
        input: reader.read(&tree),
        tree,
        revision,
        branch: tip.branch.clone(),
        ancestry: before.and_then(|before| {
            let ancestry = history::ancestry(repository, before, &tip.commit)?;
            Some((before.to_owned(), ancestry))
        }),
        allows_removal: history::allows_removal(repository, &tip.commit),
    })
}
