//! Reading a backup: everything is checked against its digests.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path};

use flotta_bundle::Digest;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::sealed::{FileKey, Identity, Opening, is_sealed};
use super::{BackupError, CONTENTS, CONTENTS_DIGEST, Contents, MAX_CONTENTS, MAX_DIGEST, SCHEMA};

/// A reader that computes the digest of what was read.
pub(super) struct Digesting<R> {
    from: R,
    context: Context,
}

impl<R: Read> Digesting<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            context: Context::new(&SHA256),
        }
    }

    pub(super) fn digest(self) -> Digest {
        let digest = self.context.finish();
        let bytes = digest.as_ref().try_into().expect("SHA-256 is 32 bytes");
        Digest::from_bytes(bytes)
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads and checks a whole backup, and returns its contents.
pub(super) fn check(path: &Path, identity: Option<&Identity>) -> Result<Contents, BackupError> {
    read(path, identity, nothing)
}

/// The same for a backup that was just encrypted with this key.
pub(super) fn check_sealed(path: &Path, key: &FileKey) -> Result<Contents, BackupError> {
    let file = File::open(path).map_err(BackupError::read(path))?;
    let opening = Opening::with(BufReader::new(file), key);
    let opening =
        opening.map_err(|error| BackupError::Damaged(path.to_owned(), error.to_string()))?;
    read_from(path, opening, nothing)
}

/// Calls `take` for each file with its path; it must read the content to the end. Only when this returns is it certain that
/// the files are complete.
pub(super) fn read(
    path: &Path,
    identity: Option<&Identity>,
    take: impl FnMut(&Path, &mut dyn Read) -> io::Result<()>,
) -> Result<Contents, BackupError> {
    let file = File::open(path).map_err(BackupError::read(path))?;
    let mut from = BufReader::new(file);
    if !is_sealed(from.fill_buf().map_err(BackupError::read(path))?) {
        return read_from(path, from, take);
    }
    let identity = identity.ok_or_else(|| BackupError::Sealed(path.to_owned()))?;
    let opening = Opening::new(from, identity)
        .map_err(|error| BackupError::Damaged(path.to_owned(), error.to_string()))?;
    read_from(path, opening, take)
}

fn read_from(
    path: &Path,
    from: impl Read,
    mut take: impl FnMut(&Path, &mut dyn Read) -> io::Result<()>,
) -> Result<Contents, BackupError> {
    let damaged = |what: String| BackupError::Damaged(path.to_owned(), what);
    let broken = |error: io::Error| BackupError::Damaged(path.to_owned(), error.to_string());
    let mut archive = tar::Archive::new(from);
    let mut entries = archive.entries().map_err(broken)?;
    let mut first = entries
        .next()
        .ok_or_else(|| damaged("it is empty".to_owned()))?
        .map_err(broken)?;
    if first.path().map_err(broken)?.to_str() != Some(CONTENTS) {
        return Err(damaged(format!("it does not begin with {CONTENTS}")));
    }
    let mut json = Vec::new();
    first
        .by_ref()
        .take(MAX_CONTENTS)
        .read_to_end(&mut json)
        .map_err(broken)?;
    if schema(path, &json)? > 1 {
        let missing = || damaged(format!("{CONTENTS_DIGEST} is missing"));
        let mut second = entries.next().ok_or_else(missing)?.map_err(broken)?;
        if second.path().map_err(broken)?.to_str() != Some(CONTENTS_DIGEST) {
            return Err(missing());
        }
        let mut digest = String::new();
        second
            .by_ref()
            .take(MAX_DIGEST)
            .read_to_string(&mut digest)
            .map_err(broken)?;
        if digest.parse() != Ok(Digest::of(&json)) {
            return Err(damaged(format!("{CONTENTS} has the wrong content")));
        }
    }
    let contents: Contents = serde_json::from_slice(&json).map_err(|e| broken(e.into()))?;
    for wanted in &contents.files {
        let place = Path::new(&wanted.path);
        if !is_of_a_backup(place) {
            return Err(damaged(format!(
                "{:?} does not belong in a backup",
                wanted.path
            )));
        }
        let missing = || damaged(format!("{} is missing", wanted.path));
        let mut entry = entries.next().ok_or_else(missing)?.map_err(broken)?;
        if *entry.path().map_err(broken)? != *place || !entry.header().entry_type().is_file() {
            return Err(missing());
        }
        if entry.size() != wanted.size {
            return Err(damaged(format!("{} has the wrong length", wanted.path)));
        }
        let mut reading = Digesting::new(&mut entry);
        take(place, &mut reading).map_err(broken)?;
        if reading.digest() != wanted.digest {
            return Err(damaged(format!("{} has the wrong content", wanted.path)));
        }
    }
    if entries.next().is_some() {
        return Err(damaged(
            "it has files that its contents do not list".to_owned(),
        ));
    }
    // read to the end, because only there is it certain that nothing was cut off
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(contents)
}

fn nothing(_place: &Path, content: &mut dyn Read) -> io::Result<()> {
    io::copy(content, &mut io::sink()).map(drop)
}

/// Reads the version of the contents list before anything else, so that a newer format is reported as newer and not as
/// damaged.
fn schema(path: &Path, json: &[u8]) -> Result<u32, BackupError> {
    #[derive(Deserialize)]
    struct Shape {
        schema: u32,
    }
    let bad = |error: serde_json::Error| {
        BackupError::Damaged(path.to_owned(), format!("{CONTENTS}: {error}"))
    };
    let Shape { schema } = serde_json::from_slice(json).map_err(bad)?;
    if !(1..=SCHEMA).contains(&schema) {
        return Err(BackupError::Newer {
            path: path.to_owned(),
            found: schema,
        });
    }
    Ok(schema)
}

/// Whether this is the path of a file in a data directory: an archive must not write anywhere else.
fn is_of_a_backup(path: &Path) -> bool {
    let mut components = path.components();
    let first = match components.next() {
        Some(Component::Normal(first)) => first.to_str(),
        _ => None,
    };
    let below = components.clone().count();
    let plain = components.all(|component| matches!(component, Component::Normal(_)));
    plain
        && match first {
            Some("fleet.db" | "status.db") => below == 0,
            Some("keys" | "depot") => below > 0,
            _ => false,
        }
}
