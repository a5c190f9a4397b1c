//! The rules that a device enforces on what a server offers. Pure: the caller passes what it remembers, and stores the result.
//!
//! The order matters: the release is trusted only once the keys are, and the leaf only once the release is.

use serde::{Deserialize, Serialize};

use crate::code::{self, Code, Problem};
use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::leaf::Leaf;
use crate::manifest::{Manifest, ManifestError};
use crate::name::DeviceName;
use crate::policy::Forbidden;
use crate::release::{self, Release};
use crate::root::{RootError, TrustRoot};
use crate::wire::Offer;

/// What a device remembers between offers. It must be durable before the device acts on an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The trust root in force.
    pub trust: TrustRoot,
    /// Sequence and tree root of the highest release accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<Highest>,
}

/// The highest release a device has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Highest {
    /// Its sequence.
    pub sequence: u64,
    /// The root of its tree.
    pub root: Digest,
}

/// An offer that passed every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What the device must remember from now on.
    pub memory: Memory,
    /// The release.
    pub release: Release,
    /// This device's leaf.
    pub leaf: Leaf,
    /// The manifest that the device should have: the leaf's newest, or an earlier one that it names.
    pub manifest: Digest,
}

/// Why an offer is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A trust root does not follow the one in force.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The release's envelope is malformed or too few keys signed it.
    #[error("release: {0}")]
    Envelope(EnvelopeError),
    /// The signed payload is not a release.
    #[error("{0}")]
    Release(String),
    /// The release is of another fleet.
    #[error("release of fleet {found}, this device belongs to {current}")]
    Fleet {
        /// This device's fleet.
        current: String,
        /// The release's.
        found: String,
    },
    /// The release is older than one that was accepted.
    #[error("release {offered} is older than {accepted}, which was accepted before")]
    Older {
        /// The sequence offered.
        offered: u64,
        /// The highest accepted.
        accepted: u64,
    },
    /// The release has the sequence of an accepted one, and another tree.
    #[error(
        "release {sequence} has root {offered}, but root {accepted} was accepted under this sequence before"
    )]
    Equivocation {
        /// The sequence.
        sequence: u64,
        /// The root offered.
        offered: Digest,
        /// The root accepted before.
        accepted: Digest,
    },
    /// The proof does not lead to the root.
    #[error("the proof does not lead from the leaf to the root of release {0}")]
    Proof(u64),
    /// The leaf's bytes are in the tree, but are not a leaf.
    #[error("{0}")]
    Leaf(String),
    /// The leaf is another device's.
    #[error("the leaf is of {found}, this device is {current}")]
    Device {
        /// This device.
        current: DeviceName,
        /// The leaf's.
        found: DeviceName,
    },
    /// The leaf does not name the manifest.
    #[error("the leaf does not name manifest {0}")]
    NotInLeaf(Digest),
    /// The content does not have the requested digest.
    #[error("content requested as {wanted} has digest {found}")]
    Digest {
        /// The requested digest.
        wanted: Digest,
        /// The digest of the content.
        found: Digest,
    },
    /// The device's policy forbids a path of the manifest.
    #[error(transparent)]
    Path(#[from] Forbidden),
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Root(error) => error.code(),
            Self::Envelope(EnvelopeError::Threshold { .. }) => code::SIGNATURE,
            Self::Envelope(_) | Self::Release(_) | Self::Leaf(_) => code::ENVELOPE,
            Self::Fleet { .. } => code::WRONG_FLEET,
            Self::Older { .. } => code::OLDER,
            Self::Equivocation { .. } => code::EQUIVOCATION,
            Self::Proof(_) => code::PROOF,
            Self::Device { .. } => code::WRONG_DEVICE,
            Self::NotInLeaf(_) => code::NOT_IN_LEAF,
            Self::Digest { .. } => code::DIGEST_MISMATCH,
            Self::Path(_) => code::PATH_FORBIDDEN,
            Self::Manifest(_) => code::MANIFEST,
        }
    }

    /// Returns the refusal as a report contains it, with every cause.
    pub fn problem(&self) -> Problem {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Problem::new(self.code(), message)
    }
}

/// Checks an offer to `device`. Trust roots that the device already has are skipped, so a server may send all of them.
pub fn verify_offer(
    offer: &Offer,
    device: &DeviceName,
    memory: &Memory,
) -> Result<Accepted, Refusal> {
    let mut trust = memory.trust.clone();
    for envelope in &offer.roots {
        if !trust.has(envelope) {
            trust = trust.follow(envelope)?;
        }
    }
    let payload = offer
        .release
        .verify(
            release::PAYLOAD_TYPE,
            &trust.release.keys,
            trust.release.threshold,
        )
        .map_err(Refusal::Envelope)?;
    let release = Release::parse(&payload).map_err(Refusal::Release)?;
    if release.fleet != trust.fleet {
        return Err(Refusal::Fleet {
            current: trust.fleet.to_string(),
            found: release.fleet.to_string(),
        });
    }
    check_sequence(&release, memory.highest)?;
    let bytes = offer.leaf.as_bytes();
    release
        .tree
        .verify(bytes, offer.index, &offer.proof)
        .map_err(|_| Refusal::Proof(release.sequence))?;
    let leaf = Leaf::parse(bytes).map_err(Refusal::Leaf)?;
    if leaf.device != *device {
        return Err(Refusal::Device {
            current: device.clone(),
            found: leaf.device,
        });
    }
    if !leaf.names(&offer.manifest) {
        return Err(Refusal::NotInLeaf(offer.manifest));
    }
    let highest = Some(Highest {
        sequence: release.sequence,
        root: release.tree.root,
    });
    Ok(Accepted {
        memory: Memory { trust, highest },
        release,
        leaf,
        manifest: offer.manifest,
    })
}

fn check_sequence(release: &Release, highest: Option<Highest>) -> Result<(), Refusal> {
    let Some(highest) = highest else {
        return Ok(());
    };
    if release.sequence < highest.sequence {
        return Err(Refusal::Older {
            offered: release.sequence,
            accepted: highest.sequence,
        });
    }
    if release.sequence == highest.sequence && release.tree.root != highest.root {
        return Err(Refusal::Equivocation {
            sequence: release.sequence,
            offered: release.tree.root,
            accepted: highest.root,
        });
    }
    Ok(())
}

/// Checks that `bytes` are the requested content.
pub fn verify_blob(bytes: &[u8], wanted: Digest) -> Result<(), Refusal> {
    let found = Digest::of(bytes);
    if found == wanted {
        Ok(())
    } else {
        Err(Refusal::Digest { wanted, found })
    }
}

/// Reads and checks the manifest that an accepted offer names.
pub fn verify_manifest(bytes: &[u8], wanted: Digest) -> Result<Manifest, Refusal> {
    verify_blob(bytes, wanted)?;
    Ok(Manifest::parse(bytes)?)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
