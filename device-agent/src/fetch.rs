//! Downloads the blobs of a manifest into the ledger. Nothing else on the machine changes, and existing blobs are not requested
//! again.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::code::{self, Problem};
use flotta_bundle::policy::Policy;
use flotta_bundle::verify::{self, Refusal};
use flotta_bundle::{Digest, Manifest};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use tokio::sync::watch;

use crate::ledger::{Blobs, LedgerError};
use crate::pull::{MAX_MANIFEST, MIN_BYTES, PullError, Session, chain};

/// Parallel downloads: enough that the round trips to a distant server do not add up, few enough for a small memory.
const AT_ONCE: usize = 8;
/// Tries without a single byte after which a blob is given up for now.
const MAX_TRIES: u32 = 3;

/// Why a manifest's blobs could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request to the server failed.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The content does not match its digest, or is not a valid manifest.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Ends,
}

impl FetchError {
    /// The error with its code, its causes and what to do.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Pull(error) => error.problem(),
            Self::Refused(refusal) => refusal.problem(),
            Self::Ledger(error) => Problem::new(code::LEDGER, chain(error)),
            Self::Ends => Problem::new(code::UNREACHABLE, self.to_string()),
        }
    }

    /// Whether content arrived and was refused.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Pull(error) => error.is_refusal(),
            Self::Ledger(_) | Self::Ends => false,
        }
    }
}

/// Fetches the manifest and every blob it names. Without a connection it waits for one. No download starts unless the disk has
/// space for all and the device's policy allows every file; blobs of superseded releases are removed first, but not those that
/// the manifest `applied` last needs.
pub async fn fetch(
    blobs: &Blobs,
    sessions: &watch::Receiver<Option<Session>>,
    wanted: Digest,
    applied: Option<Digest>,
    policy: &Policy,
) -> Result<Manifest, FetchError> {
    let make_room = |mut keep: BTreeSet<_>| {
        keep.extend(
            applied
                .into_iter()
                .flat_map(|applied| blobs.needed(applied)),
        );
        blobs.collect(&keep)
    };
    let mut got = get(blobs, sessions, wanted, MAX_MANIFEST).await;
    if let Err(FetchError::Ledger(error)) = &got
        && error.is_full()
    {
        make_room(BTreeSet::new())?;
        got = get(blobs, sessions, wanted, MAX_MANIFEST).await;
    }
    got?;
    let manifest = verify::verify_manifest(&blobs.read(&wanted)?, wanted)?;
    policy.check_manifest(&manifest).map_err(Refusal::from)?;
    let files: BTreeMap<_, _> = manifest.files.iter().map(|f| (f.digest, f.size)).collect();
    if blobs.expect(&files).is_err() {
        make_room(needed(wanted, &manifest))?;
        blobs.expect(&files)?;
    }
    stream::iter(files)
        .map(|(digest, size)| get(blobs, sessions, digest, size))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(manifest)
}

/// The blobs that a manifest needs, including itself.
pub fn needed(digest: Digest, manifest: &Manifest) -> BTreeSet<Digest> {
    let files = manifest.files.iter().map(|file| file.digest);
    files.chain([digest]).collect()
}

async fn get(
    blobs: &Blobs,
    sessions: &watch::Receiver<Option<Session>>,
    digest: Digest,
    max: u64,
) -> Result<(), FetchError> {
    let mut sessions = sessions.clone();
    let mut tries = 0;
    while !blobs.has(&digest) {
        let session = sessions.wait_for(Option::is_some).await;
        let Some(session) = session.map_err(|_| FetchError::Ends)?.clone() else {
            continue;
        };
        match download(blobs, &session, digest, max).await {
            Ok(()) => return Ok(()),
            // the rest is fetched over the next connection
            Err((FetchError::Pull(error), progress)) if error.is_lost() => {
                tries = if progress { 0 } else { tries + 1 };
                if tries >= MAX_TRIES {
                    return Err(error.into());
                }
                tokio::time::sleep(crate::backoff::about(std::time::Duration::from_secs(1))).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
    Ok(())
}

/// One try. An error comes with whether the try made progress, and so is worth repeating.
async fn download(
    blobs: &Blobs,
    session: &Session,
    digest: Digest,
    max: u64,
) -> Result<(), (FetchError, bool)> {
    let (mut had, mut has) = (0, 0);
    let work = async {
        let mut partial = blobs.partial(&digest)?;
        had = partial.len();
        let mut download = match session.blob(&digest, had, max).await {
            // The last try got all of it, or more, and was interrupted before the check.
            Err(PullError::Refused { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE =>
            {
                if partial.finish()?.is_ok() {
                    return Ok(());
                }
                partial = blobs.partial(&digest)?;
                session.blob(&digest, 0, max).await?
            }
            answer => answer?,
        };
        if download.from != partial.len() {
            partial.restart()?;
        }
        while let Some(bytes) = download.next().await? {
            partial.append(&bytes)?;
            has = partial.len();
        }
        partial.finish()??;
        Ok(())
    };
    let done: Result<(), FetchError> = work.await;
    done.map_err(|error| (error, has >= had + MIN_BYTES))
}
