//! A release: the one signed statement over all devices of a commit.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::FleetName;
use crate::tree::TreeHead;

/// The DSSE payload type of a release.
pub const PAYLOAD_TYPE: &str = "application/vnd.flotta.release.v1+json";
/// The version of the release's shape.
pub const SCHEMA: u32 = 1;

/// What is signed. `issued` and `expires` are UTC, RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The fleet it is for.
    pub fleet: FleetName,
    /// Grows by at least one with every release; a device never accepts a lower one.
    pub sequence: u64,
    /// What it was rendered from.
    pub revision: Revision,
    /// When it was signed.
    pub issued: Timestamp,
    /// When a device begins to say that nobody has confirmed this state for too long. What runs keeps running.
    pub expires: Timestamp,
    /// The tree over the leaves of all devices.
    pub tree: TreeHead,
}

/// What a release was rendered from: the inputs of a pure function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Where the commit is from: a URL without credentials, or `directory`.
    pub source: String,
    /// The commit id; for a plain directory the digest of its content.
    pub commit: String,
    /// First line of the commit's message, cut to 72 characters.
    pub subject: String,
    /// Digest of the inventory: devices that joined without an `EdgeDevice` in Git. Absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Digest>,
}

impl Revision {
    /// The first seven characters of the commit.
    pub fn short(&self) -> &str {
        let commit = self.commit.strip_prefix("sha256:").unwrap_or(&self.commit);
        commit.get(..7).unwrap_or(commit)
    }
}

impl Release {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a release has only string keys")
    }

    /// Reads a payload whose signatures have been verified.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let release: Self = serde_json::from_slice(payload)
            .map_err(|error| format!("release cannot be read: {error}"))?;
        if release.schema != SCHEMA {
            return Err(format!(
                "release has schema {}, this program knows {SCHEMA}: update flotta-agent first",
                release.schema
            ));
        }
        Ok(release)
    }
}
