//! Reads the files of a tree, each independently: on all cores, and only those that the previous tree did not have.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flotta_bundle::{Digest, code};
use flotta_renderer::{Batch, Finding, Input, Place};

use super::chart::Charts;
use super::tree::{Skipped, SourceFile, Tree};

/// Reads successive trees, and caches the files of the last one. The result for a file depends only on its path and content,
/// which are the key of the cache.
#[derive(Default)]
pub struct Reader(HashMap<Digest, Arc<Batch>>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} files)", self.0.len())
    }
}

impl Reader {
    /// Reads a tree.
    pub fn read(&mut self, tree: &Tree) -> Input {
        let charts = Charts::of(&tree.files);
        let files = tree.files.iter();
        let files: Vec<_> = files.filter(|file| !charts.has(&file.path)).collect();
        let skipped = tree.skipped.iter().map(|(path, why)| skipped(path, *why));
        Input {
            findings: skipped.chain(charts.findings()).collect(),
            batches: self.batches(&files),
        }
    }

    /// The decoded files, in order.
    fn batches(&mut self, files: &[&SourceFile]) -> Vec<Arc<Batch>> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (next, known) = (AtomicUsize::new(0), &self.0);
        // each core takes the next file, because some files hold a thousand devices and most one object
        let share = || {
            let mut read = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(file) = files.get(at) else {
                    return read;
                };
                let digest = identity(file);
                let checked = known.get(&digest).map(Arc::clone);
                let new = || Arc::new(Batch::of_file(&file.path, &file.content));
                let checked = checked.unwrap_or_else(new);
                read.push((at, digest, checked));
            }
        };
        let mut read: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores.min(files.len()))
                .map(|_| scope.spawn(share))
                .collect();
            let shares = threads.into_iter().flat_map(|thread| {
                let done = thread.join();
                done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            shares.collect()
        });
        read.sort_unstable_by_key(|(at, ..)| *at);
        self.0 = read
            .iter()
            .map(|(_, digest, file)| (*digest, Arc::clone(file)))
            .collect();
        read.into_iter().map(|(.., file)| file).collect()
    }
}

fn skipped(path: &str, why: Skipped) -> Finding {
    let ignored = |message| Finding::warning(code::IGNORED_FILE, Place::file(path), message);
    match why {
        Skipped::NotFollowed => ignored("symbolic links and names that are not UTF-8 are not read"),
        Skipped::Submodule => {
            ignored("a Git submodule is not read: its files are not in this repository")
                .with_help("commit the files themselves if they are to be part of the fleet")
        }
        Skipped::TooLarge => ignored("a file larger than 64 MiB is not read")
            .with_help("split it if it is part of the fleet"),
    }
}

/// The key of a file in the cache: its path, which is part of every place in it, and its content.
fn identity(file: &SourceFile) -> Digest {
    let path = file.path.as_bytes();
    Digest::of(&[path, b"\0", &file.content].concat())
}
