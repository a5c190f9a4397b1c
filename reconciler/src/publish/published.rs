//! A release with its leaves: signing it, and reading and writing it in the depot.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::{Envelope, EnvelopeError};
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::Role;
use flotta_bundle::tree::Tree as MerkleTree;
use flotta_bundle::{DeviceName, Digest, FleetName, Leaf};
use jiff::{SignedDuration, Timestamp};

use super::PublishError;
use crate::depot::{Depot, DepotError, Stored};

/// How long a release is valid. A quarter of a year is longer than a shop is closed, and short enough to notice a lost key.
pub const VALIDITY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A release with its leaves.
#[derive(Debug, Clone)]
pub struct Published {
    /// The decoded release.
    pub release: Release,
    /// The signed release.
    pub envelope: Envelope,
    /// Its leaves by device, in the order of the tree.
    pub leaves: BTreeMap<DeviceName, Leaf>,
}

impl Published {
    /// Signs a release over `leaves`.
    pub fn sign(
        fleet: &FleetName,
        key: &SigningKey,
        sequence: u64,
        revision: Revision,
        leaves: BTreeMap<DeviceName, Leaf>,
        now: Timestamp,
    ) -> Self {
        let tree = MerkleTree::new(leaves.values().map(Leaf::encode));
        let release = Release {
            schema: release::SCHEMA,
            fleet: fleet.clone(),
            sequence,
            revision,
            issued: now,
            expires: now.saturating_add(VALIDITY).unwrap_or(Timestamp::MAX),
            tree: tree.head(),
        };
        let envelope = Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[key]);
        Self {
            release,
            envelope,
            leaves,
        }
    }

    /// Verifies a release from the depot: its signatures by `role`, and its leaves.
    pub fn open(stored: &Stored, role: &Role) -> Result<Self, OpenError> {
        let payload = stored
            .envelope
            .verify(release::PAYLOAD_TYPE, &role.keys, role.threshold)
            .map_err(OpenError::Signature)?;
        let release = Release::parse(&payload).map_err(OpenError::Malformed)?;
        let tree = MerkleTree::new(stored.leaves.iter().map(|leaf| leaf.clone().into_bytes()));
        if tree.head() != release.tree {
            return Err(OpenError::Leaves);
        }
        let leaves = stored
            .leaves
            .iter()
            .map(|text| Leaf::parse(text.as_bytes()).map(|leaf| (leaf.device.clone(), leaf)))
            .collect::<Result<_, _>>()
            .map_err(OpenError::Malformed)?;
        Ok(Self {
            release,
            envelope: stored.envelope.clone(),
            leaves,
        })
    }

    /// Converts it to the form that the depot stores.
    pub fn stored(&self) -> Stored {
        let text = |leaf: &Leaf| String::from_utf8(leaf.encode()).expect("JSON is UTF-8");
        Stored {
            envelope: self.envelope.clone(),
            leaves: self.leaves.values().map(text).collect(),
        }
    }

    /// How many manifests its devices share.
    pub fn manifests(&self) -> usize {
        let digests: BTreeSet<_> = self.leaves.values().map(|leaf| leaf.manifest).collect();
        digests.len()
    }
}

/// Why a release in the depot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not signed by the fleet's keys.
    #[error("the release in the depot is not signed by this fleet's keys")]
    Signature(#[source] EnvelopeError),
    /// It is signed but cannot be read.
    #[error("the release in the depot cannot be read: {0}")]
    Malformed(String),
    /// The leaves are not those that it was signed over.
    #[error("the leaves in the depot are not those of their release")]
    Leaves,
}

/// Reads the release in force; none in a new depot.
pub(super) async fn in_force(
    depot: &Depot,
    role: &Role,
) -> Result<Option<Published>, PublishError> {
    let Some(head) = depot.head().await? else {
        return Ok(None);
    };
    let Some(stored) = depot.release(head.sequence).await? else {
        return Err(OpenError::Malformed(format!("release {} is missing", head.sequence)).into());
    };
    Ok(Some(Published::open(&stored, role)?))
}

/// Writes a release: its blobs first, the head last.
pub(super) async fn store(
    depot: &Depot,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    release: &Published,
) -> Result<(), DepotError> {
    let sequence = release.release.sequence;
    depot.put_blobs(blobs).await?;
    depot.put_release(sequence, &release.stored()).await?;
    depot.put_head(sequence).await
}
