//! The leaf: what binds a manifest to a device, and one entry of a release's tree.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::DeviceName;

/// Most earlier digests in a leaf: how far back a rollout can hold a device without a new signature.
pub const MAX_EARLIER: usize = 4;
/// Longest encoded leaf, in bytes: the name, five digests and their punctuation, with some reserve.
pub const MAX_BYTES: usize = 1024;

/// One device's entry in a release. Encoded as JSON with fields in this order; the tree is over these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The device.
    pub device: DeviceName,
    /// Digest of the manifest it should have.
    pub manifest: Digest,
    /// Manifests the server may offer in its place, newest first: at most [`MAX_EARLIER`], none of them `manifest`.
    pub earlier: Vec<Digest>,
}

impl Leaf {
    /// Returns the leaf for a new manifest. `previous` is this device's leaf in the release before.
    pub fn following(device: DeviceName, manifest: Digest, previous: Option<&Self>) -> Self {
        let mut earlier = Vec::new();
        if let Some(previous) = previous {
            for digest in std::iter::once(previous.manifest).chain(previous.earlier.iter().copied())
            {
                if digest != manifest && !earlier.contains(&digest) && earlier.len() < MAX_EARLIER {
                    earlier.push(digest);
                }
            }
        }
        Self {
            device,
            manifest,
            earlier,
        }
    }

    /// Whether the server may offer this manifest to the device.
    pub fn names(&self, manifest: &Digest) -> bool {
        self.manifest == *manifest || self.earlier.contains(manifest)
    }

    /// Returns the bytes that are in the tree.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a leaf has only string keys")
    }

    /// Reads a leaf whose bytes were proven to be in a signed tree. Bounded by [`MAX_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!(
                "leaf of {} bytes is longer than {MAX_BYTES}",
                bytes.len()
            ));
        }
        let leaf: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("leaf cannot be read: {error}"))?;
        if leaf.earlier.len() > MAX_EARLIER {
            return Err(format!(
                "leaf names {} earlier manifests, at most {MAX_EARLIER} are allowed",
                leaf.earlier.len()
            ));
        }
        Ok(leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(manifest: u8, previous: Option<&Leaf>) -> Leaf {
        Leaf::following(
            "shop-17".parse().expect("a name"),
            Digest::of(&[manifest]),
            previous,
        )
    }

    #[test]
    fn the_four_newest_earlier_manifests_are_kept_without_duplicates() {
        let mut last = leaf(0, None);
        assert!(last.earlier.is_empty());
        for n in 1..=6 {
            last = leaf(n, Some(&last));
        }
        assert_eq!(last.earlier, [5, 4, 3, 2].map(|n| Digest::of(&[n])));
        let same = leaf(6, Some(&last));
        assert_eq!(
            same, last,
            "a commit that does not concern the device leaves its leaf as it was"
        );
        let reverted = leaf(5, Some(&last));
        assert_eq!(reverted.earlier, [6, 4, 3, 2].map(|n| Digest::of(&[n])));
    }

    #[test]
    fn a_leaf_reads_back_and_is_bounded() {
        let leaf = leaf(1, Some(&leaf(0, None)));
        assert_eq!(Leaf::parse(&leaf.encode()).expect("a leaf"), leaf);
        assert!(Leaf::parse(&vec![b' '; MAX_BYTES + 1]).is_err());
    }
}
