//! The history of a commit: whether it descends from the previous one, and whether it allows its own removals.

use std::collections::{HashSet, VecDeque};

use git2::{Commit, Oid, Repository};

/// The trailer with which a commit allows its own removals: `Flotta-Allow-Removal: true`.
pub const ALLOW_REMOVAL: &str = "Flotta-Allow-Removal";

/// Most commits of a merge that are searched for [`ALLOW_REMOVAL`].
const MAX_MERGED: usize = 256;
/// Most commits of a history that are walked: a second's work, and more than most repositories have.
const MAX_WALK: usize = 200_000;

/// How a commit is related to the previous one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ancestry {
    /// It is a descendant.
    Descendant,
    /// It is an ancestor: the branch was reset.
    Ancestor,
    /// Neither is in the other's history: the branch was rewritten or replaced.
    Unrelated,
}

/// How `now` is related to `before`; none when that is not known: the source was a folder before, or the available history
/// ends before it reaches `before`, as in a new mirror.
pub(super) fn ancestry(repository: &Repository, before: &str, now: &str) -> Option<Ancestry> {
    let (before, now) = (Oid::from_str(before).ok()?, Oid::from_str(now).ok()?);
    let mut of_now = Ancestors::of(repository, now);
    if of_now.any(|commit| commit.id() == before) {
        return Some(Ancestry::Descendant);
    }
    let mut of_before = Ancestors::of(repository, before);
    if of_before.any(|commit| commit.id() == now) {
        return Some(Ancestry::Ancestor);
    }
    let is_known = !of_now.cut || !of_now.seen.is_disjoint(&of_before.seen);
    is_known.then_some(Ancestry::Unrelated)
}

/// Whether the commit has the trailer [`ALLOW_REMOVAL`], or, for a merge, a commit that it brings in: people write it in the
/// commit that removes something, and a forge writes the merge. If it is not known what the merge brings in, because the
/// available history ends before it reaches the branch, only the merge itself counts: an old permission must not allow
/// anything now.
pub(super) fn allows_removal(repository: &Repository, commit: &str) -> bool {
    let found = || {
        let commit = repository.find_commit(Oid::from_str(commit)?)?;
        if says_so(&commit) {
            return Ok(true);
        }
        if commit.parent_count() < 2 {
            return Ok(false);
        }
        let own: HashSet<_> = Ancestors::of(repository, commit.parent_id(0)?)
            .map(|commit| commit.id())
            .collect();
        let mut merged = Ancestors::of(repository, commit.id());
        merged.seen.extend(own);
        let (mut allows, mut meets) = (false, true);
        for (commit, n) in merged.by_ref().zip(0..) {
            allows |= n < MAX_MERGED && says_so(&commit);
            // the walk reached a root commit without meeting the branch
            meets &= commit.parent_count() > 0;
        }
        Ok::<_, git2::Error>(allows && meets && !merged.cut)
    };
    // a missing commit allows nothing
    found().unwrap_or(false)
}

/// A commit and its ancestors, as far as they are available: a mirror has only what was fetched, and libgit2's own walks fail
/// where that ends.
struct Ancestors<'a> {
    repository: &'a Repository,
    next: VecDeque<Oid>,
    seen: HashSet<Oid>,
    /// Whether some ancestors are missing.
    cut: bool,
}

impl<'a> Ancestors<'a> {
    fn of(repository: &'a Repository, commit: Oid) -> Self {
        Self {
            repository,
            next: VecDeque::from([commit]),
            seen: HashSet::new(),
            cut: false,
        }
    }
}

/// Whether the history of a shallow repository ends at a commit, for which libgit2 reports no parents.
fn is_end(commit: &Commit<'_>) -> bool {
    let header = commit.raw_header_bytes();
    let mut lines = header.split(|byte| *byte == b'\n');
    commit.parent_count() == 0 && lines.any(|line| line.starts_with(b"parent "))
}

impl<'a> Iterator for Ancestors<'a> {
    type Item = Commit<'a>;

    fn next(&mut self) -> Option<Commit<'a>> {
        while let Some(id) = self.next.pop_front() {
            if self.seen.contains(&id) {
                continue;
            }
            let found = self.repository.find_commit(id).ok();
            let Some(commit) = found.filter(|_| self.seen.len() < MAX_WALK) else {
                self.cut = true;
                continue;
            };
            self.seen.insert(id);
            self.cut |= is_end(&commit);
            self.next.extend(commit.parent_ids());
            return Some(commit);
        }
        None
    }
}

fn says_so(commit: &Commit<'_>) -> bool {
    let Ok(message) = std::str::from_utf8(commit.message_bytes()) else {
        return false;
    };
    git2::message_trailers_strs(message).is_ok_and(|trailers| {
        let mut pairs = trailers.iter();
        pairs.any(|(key, value)| key.eq_ignore_ascii_case(ALLOW_REMOVAL) && value == "true")
    })
}
