//! Makes a backup, while a server may be using the data directory.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flotta_bundle::{Digest, Manifest};
use jiff::Timestamp;

use super::leftover::{Busy, PART, SCRATCH};
use super::sealed::{FileKey, Sealing};
use super::{
    BackupError, CONTENTS, CONTENTS_DIGEST, Contents, Entry, Recipient, SCHEMA, archive, keys,
};
use crate::depot::Depot;
use crate::keys::Fleet;
use crate::publish::Published;
use crate::store::offline;

/// A finished backup.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Contents,
    /// Its length in bytes.
    pub size: u64,
    /// Number of files of the release in force that are missing or damaged in the depot; a server renders them again.
    pub left_out: usize,
}

/// A file to add: its path in the backup, and where it is now.
struct Source {
    entry: Entry,
    from: PathBuf,
}

/// Makes a backup of `data` as the new file `to`, for its owner only, and encrypted if there are `recipients`. It is read
/// back before it gets its name.
pub async fn make(
    data: &Path,
    to: &Path,
    recipients: &[Recipient],
    now: Timestamp,
) -> Result<Made, BackupError> {
    if !data.join("keys").is_dir() {
        return Err(BackupError::NoKeys(data.to_owned()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let fleet = Fleet::open(data.join("keys"))?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let _busy = (
        Busy::data(data),
        (folder != data).then(|| Busy::target(folder)),
    );
    // in the data directory, which holds the same secrets in clear, not next to an encrypted backup on a USB stick
    let scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempdir_in(data)
        .map_err(BackupError::write(data))?;

    // copy them first, because the server may renew its certificate meanwhile
    let copied = scratch.path().join("keys");
    keys::copy(&data.join("keys"), &copied)?;
    let mut sources = Vec::new();
    for path in keys::list(&copied)? {
        sources.push(described(
            &Path::new("keys").join(&path),
            &copied.join(&path),
        )?);
    }
    // the store before the depot: a store catches up with a release that is made in between
    let counts = offline::snapshot(data, scratch.path())?;
    for name in ["fleet.db", "status.db"] {
        sources.push(described(Path::new(name), &scratch.path().join(name))?);
    }
    let depot = Depot::local(&data.join("depot"))?;
    let released = released(&depot, &fleet, &data.join("depot"), scratch.path()).await?;
    let (release, left_out) = match released {
        Some(released) => {
            sources.extend(released.sources);
            (Some(released.sequence), released.left_out)
        }
        None => (None, 0),
    };
    let contents = Contents {
        schema: SCHEMA,
        fleet: fleet.name().clone(),
        made: now,
        by: env!("CARGO_PKG_VERSION").to_owned(),
        release,
        devices: counts.devices,
        requests: counts.requests,
        files: sources.iter().map(|source| source.entry.clone()).collect(),
    };
    let new = tempfile::Builder::new()
        .prefix(PART)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(BackupError::write(folder))?;
    let read = if recipients.is_empty() {
        pack(new.as_file(), &contents, &sources, now).map_err(BackupError::write(to))?;
        archive::check(new.path(), None)?
    } else {
        let key = FileKey::make().map_err(BackupError::write(to))?;
        Sealing::new(BufWriter::new(new.as_file()), &key, recipients)
            .and_then(|sealing| pack(sealing, &contents, &sources, now)?.finish())
            .map_err(BackupError::write(to))?;
        archive::check_sealed(new.path(), &key)?
    };
    if read != contents {
        let what = "what was read back is not what was written";
        return Err(BackupError::Damaged(to.to_owned(), what.to_owned()));
    }
    let file = new.as_file();
    file.sync_all().map_err(BackupError::write(to))?;
    let size = file.metadata().map_err(BackupError::read(to))?.len();
    // a file that was created there meanwhile stays
    new.persist_noclobber(to)
        .map_err(|error| BackupError::Write(to.to_owned(), error.error))?;
    keys::sync(folder)?;
    Ok(Made {
        path: to.to_owned(),
        contents,
        size,
        left_out,
    })
}

fn described(path: &Path, from: &Path) -> Result<Source, BackupError> {
    let mut file = File::open(from).map_err(BackupError::read(from))?;
    let (digest, size) = digest(&mut file).map_err(BackupError::read(from))?;
    Ok(Source {
        entry: Entry {
            path: path.to_string_lossy().into_owned(),
            size,
            digest,
        },
        from: from.to_owned(),
    })
}

/// The digest and length of the content.
fn digest(from: &mut impl Read) -> io::Result<(Digest, u64)> {
    let mut reading = archive::Digesting::new(from);
    let size = io::copy(&mut reading, &mut io::sink())?;
    Ok((reading.digest(), size))
}

/// The release in force, as files.
struct Released {
    sequence: u64,
    sources: Vec<Source>,
    left_out: usize,
}

/// Copies the release in force and everything it needs. A file that cannot be read is left out: a server renders it again.
async fn released(
    depot: &Depot,
    fleet: &Fleet,
    folder: &Path,
    scratch: &Path,
) -> Result<Option<Released>, BackupError> {
    let Some(head) = depot.head().await? else {
        return Ok(None);
    };
    let sequence = head.sequence;
    let Some(stored) = depot.release(sequence).await? else {
        return Ok(None);
    };
    let Ok(published) = Published::open(&stored, &fleet.trust_root().release) else {
        return Ok(None);
    };
    let mut paths: BTreeSet<PathBuf> = ["release.json", "leaves.json"]
        .map(|name| Path::new("releases").join(sequence.to_string()).join(name))
        .into();
    let manifests: BTreeSet<Digest> = published
        .leaves
        .values()
        .flat_map(|leaf| std::iter::once(leaf.manifest).chain(leaf.earlier.iter().copied()))
        .collect();
    let needed: BTreeSet<Digest> = published
        .leaves
        .values()
        .map(|leaf| leaf.manifest)
        .collect();
    let mut left_out = 0;
    for manifest in manifests {
        // earlier ones may be gone from the depot
        let mut missing = usize::from(needed.contains(&manifest));
        if let Some(bytes) = depot.blob(&manifest).await.ok().flatten() {
            missing = 0;
            paths.insert(blob(&manifest));
            let files = Manifest::parse(&bytes).map(|manifest| manifest.files);
            for file in files.unwrap_or_default() {
                match depot.blob(&file.digest).await {
                    Ok(Some(_)) => {
                        paths.insert(blob(&file.digest));
                    }
                    _ => missing += 1,
                }
            }
        }
        left_out += missing;
    }
    // the list of devices that joined, where the depot keeps it
    if let Some(inventory) = published.release.revision.inventory
        && let Ok(Some(_)) = depot.blob(&inventory).await
    {
        paths.insert(blob(&inventory));
    }
    let mut sources = Vec::new();
    for path in &paths {
        sources.push(described(
            &Path::new("depot").join(path),
            &folder.join(path),
        )?);
    }
    // written here, because the one in the depot may name a later release by now
    let copied = scratch.join("head.json");
    let json = serde_json::to_vec(&head).expect("a struct of numbers");
    keys::write(&copied, &json).map_err(BackupError::write(&copied))?;
    sources.push(described("depot/head.json".as_ref(), &copied)?);
    Ok(Some(Released {
        sequence,
        sources,
        left_out,
    }))
}

fn blob(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    ["blobs", "sha256", &hex[..2], &hex].iter().collect()
}

/// Writes the archive to `to`, and returns it.
fn pack<W: Write>(to: W, contents: &Contents, sources: &[Source], now: Timestamp) -> io::Result<W> {
    let mut archive = tar::Builder::new(to);
    let header = |size| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        header.set_entry_type(tar::EntryType::Regular);
        header
    };
    let json = serde_json::to_vec(contents)?;
    let digest = Digest::of(&json).to_string();
    for (path, content) in [(CONTENTS, &json[..]), (CONTENTS_DIGEST, digest.as_bytes())] {
        archive.append_data(&mut header(content.len() as u64), path, content)?;
    }
    for source in sources {
        let mut header = header(source.entry.size);
        // a file that grew meanwhile is cut, which is found when the backup is read back
        let content = File::open(&source.from)?.take(source.entry.size);
        archive.append_data(&mut header, &source.entry.path, content)?;
    }
    archive.into_inner()
}
