//! The RFC 6962 Merkle tree over a release's leaves.
//!
//! One signature over the root covers every device; a device gets its leaf and about log2(n) hashes. The crate `ct-merkle` does
//! the hashing; this module defines the hash function, the limits and the error.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{InclusionProof, RootHash};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::digest::Digest;

/// Most leaves in a tree. Far above any fleet, and far below where index arithmetic could overflow.
pub const MAX_SIZE: u64 = 1 << 32;
/// Most hashes in a proof: a tree of [`MAX_SIZE`] leaves.
pub const MAX_PROOF: usize = 32;

/// The part of a tree that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 tree hash.
    pub root: Digest,
}

/// A proof that does not lead from the leaf to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead from the leaf to the release's root")]
pub struct NotIncluded;

/// A tree with all its leaves, as the signer and the server need it.
pub struct Tree(MemoryBackedTree<Sha256, Vec<u8>>);

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tree").field(&self.head()).finish()
    }
}

impl Tree {
    /// Builds the tree over encoded leaves, in the given order.
    pub fn new(leaves: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut tree = MemoryBackedTree::new();
        for leaf in leaves {
            tree.push(leaf);
        }
        Self(tree)
    }

    /// Returns size and root.
    pub fn head(&self) -> TreeHead {
        let root = self.0.root();
        TreeHead {
            size: root.num_leaves(),
            root: Digest::from_bytes((*root.as_bytes()).into()),
        }
    }

    /// Returns the encoded leaf at `index`.
    pub fn leaf(&self, index: u64) -> Option<&[u8]> {
        self.0.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    /// Returns the hashes that lead from the leaf at `index` to the root, nearest first; `None` past the end.
    pub fn prove(&self, index: u64) -> Option<Vec<Digest>> {
        if index >= self.0.len() {
            return None;
        }
        let proof = self.0.prove_inclusion(usize::try_from(index).ok()?);
        let hashes = proof.as_bytes().chunks_exact(32);
        Some(
            hashes
                .filter_map(|hash| hash.try_into().ok().map(Digest::from_bytes))
                .collect(),
        )
    }
}

impl TreeHead {
    /// Checks that `leaf` is at `index` of this tree.
    pub fn verify(&self, leaf: &[u8], index: u64, proof: &[Digest]) -> Result<(), NotIncluded> {
        if index >= self.size || self.size > MAX_SIZE || proof.len() > MAX_PROOF {
            return Err(NotIncluded);
        }
        let hashes: Vec<u8> = proof.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let proof = InclusionProof::<Sha256>::try_from_bytes(hashes).map_err(|_| NotIncluded)?;
        RootHash::<Sha256>::new((*self.root.as_bytes()).into(), self.size)
            .verify_inclusion(&leaf, index, &proof)
            .map_err(|_| NotIncluded)
    }
}

#[cfg(test)]
mod tests;
