//! The trust root: which keys may sign for a fleet. Versioned and chained as TUF's root is (TUF specification, 5.3).

use serde::{Deserialize, Serialize};

use crate::code::{self, Code};
use crate::crypto::PublicKey;
use crate::digest::Digest;
use crate::envelope::{Envelope, EnvelopeError};
use crate::name::FleetName;

/// The DSSE payload type of a trust root.
pub const PAYLOAD_TYPE: &str = "application/vnd.flotta.root.v1+json";
/// The version of the root's shape.
pub const SCHEMA: u32 = 1;
/// Most keys in a role.
pub const MAX_KEYS: usize = 16;

/// Which keys may sign, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRoot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The fleet.
    pub fleet: FleetName,
    /// 1, then one more with every change.
    pub version: u32,
    /// Keys that sign trust roots.
    pub root: Role,
    /// Keys that sign releases.
    pub release: Role,
}

/// A set of keys and how many distinct ones must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The keys, sorted by their 32 bytes and not by their text, none twice, at most [`MAX_KEYS`].
    pub keys: Vec<PublicKey>,
    /// At least 1, at most the number of keys.
    pub threshold: usize,
}

impl Role {
    /// A role in which any of `keys` suffices.
    pub fn any_of(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort();
        keys.dedup();
        Self { keys, threshold: 1 }
    }

    fn check(&self, name: &str) -> Result<(), RootError> {
        let sorted = self.keys.windows(2).all(|pair| pair[0] < pair[1]);
        if !sorted || self.keys.len() > MAX_KEYS || !(1..=self.keys.len()).contains(&self.threshold)
        {
            return Err(RootError::Malformed(format!(
                "role {name}: keys must be sorted, at most {MAX_KEYS}, threshold between 1 and their number"
            )));
        }
        Ok(())
    }
}

/// Why a trust root is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The payload breaks a rule of its shape.
    #[error("the trust root cannot be read: {0}")]
    Malformed(String),
    /// The envelope is malformed or too few keys signed.
    #[error("trust root: {0}")]
    Envelope(EnvelopeError),
    /// Its version does not follow the one in force.
    #[error("trust root version {found} does not follow version {current}")]
    Version {
        /// The version in force.
        current: u32,
        /// The version offered.
        found: u32,
    },
    /// It is of another fleet.
    #[error("trust root of fleet {found}, this device belongs to {current}")]
    Fleet {
        /// This device's fleet.
        current: FleetName,
        /// The fleet of the document.
        found: FleetName,
    },
}

impl RootError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Envelope(EnvelopeError::Threshold { .. }) | Self::Version { .. } => {
                code::ROOT_CHAIN
            }
            Self::Malformed(_) | Self::Envelope(_) => code::ENVELOPE,
            Self::Fleet { .. } => code::WRONG_FLEET,
        }
    }
}

impl TrustRoot {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a trust root has only string keys")
    }

    /// Returns the digest that people compare on server and device before they trust the root.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.encode())
    }

    fn parse(payload: &[u8]) -> Result<Self, RootError> {
        let root: Self = serde_json::from_slice(payload)
            .map_err(|error| RootError::Malformed(error.to_string()))?;
        if root.schema != SCHEMA {
            return Err(RootError::Malformed(format!(
                "schema {}, this program knows {SCHEMA}",
                root.schema
            )));
        }
        if root.version == 0 {
            return Err(RootError::Malformed("version 0".to_owned()));
        }
        root.root.check("root")?;
        root.release.check("release")?;
        Ok(root)
    }

    fn signed_by(&self, envelope: &Envelope) -> Result<(), RootError> {
        envelope
            .verify(PAYLOAD_TYPE, &self.root.keys, self.root.threshold)
            .map(|_| ())
            .map_err(RootError::Envelope)
    }

    /// Opens a root that is trusted because of how it came (the join file): it must be signed by its own root keys.
    pub fn open(envelope: &Envelope) -> Result<Self, RootError> {
        let root = Self::parse(&envelope.unverified_payload().map_err(RootError::Envelope)?)?;
        root.signed_by(envelope)?;
        Ok(root)
    }

    /// Whether a document says that it is this version or an earlier one. Then it is not needed, whoever signed it.
    pub(crate) fn has(&self, envelope: &Envelope) -> bool {
        let payload = envelope.unverified_payload().map_err(RootError::Envelope);
        let root = payload.and_then(|payload| Self::parse(&payload));
        root.is_ok_and(|root| root.version <= self.version)
    }

    /// Opens the root that follows this one: version + 1, same fleet, signed by this root's keys and by its own.
    pub fn follow(&self, envelope: &Envelope) -> Result<Self, RootError> {
        self.signed_by(envelope)?;
        let next = Self::open(envelope)?;
        if next.fleet != self.fleet {
            return Err(RootError::Fleet {
                current: self.fleet.clone(),
                found: next.fleet,
            });
        }
        if self.version.checked_add(1) != Some(next.version) {
            return Err(RootError::Version {
                current: self.version,
                found: next.version,
            });
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;

    fn key() -> SigningKey {
        SigningKey::generate().expect("a key").0
    }

    fn root(version: u32, keys: &[&SigningKey], threshold: usize) -> TrustRoot {
        let role = |threshold| Role {
            threshold,
            ..Role::any_of(keys.iter().map(|key| key.public()))
        };
        let fleet = "shops".parse().expect("a fleet");
        TrustRoot {
            schema: SCHEMA,
            fleet,
            version,
            root: role(threshold),
            release: role(1),
        }
    }

    fn sign(root: &TrustRoot, keys: &[&SigningKey]) -> Envelope {
        Envelope::sign(PAYLOAD_TYPE, &root.encode(), keys)
    }

    #[test]
    fn a_root_follows_only_its_predecessor_signed_by_both() {
        let (old, new) = (key(), key());
        let first = TrustRoot::open(&sign(&root(1, &[&old], 1), &[&old])).expect("a root");
        let second = root(2, &[&new], 1);
        assert_eq!(
            first.follow(&sign(&second, &[&old, &new])),
            Ok(second.clone())
        );
        for keys in [vec![&old], vec![&new], vec![]] {
            assert_eq!(
                first
                    .follow(&sign(&second, &keys))
                    .expect_err("too few")
                    .code(),
                code::ROOT_CHAIN
            );
        }
        let skipped = root(3, &[&new], 1);
        assert_eq!(
            first.follow(&sign(&skipped, &[&old, &new])),
            Err(RootError::Version {
                current: 1,
                found: 3
            })
        );
        let same = root(1, &[&old], 1);
        assert!(first.follow(&sign(&same, &[&old])).is_err());
    }

    #[test]
    fn thresholds_hold() {
        let (a, b) = (key(), key());
        let two = root(1, &[&a, &b], 2);
        assert!(TrustRoot::open(&sign(&two, &[&a])).is_err());
        assert!(TrustRoot::open(&sign(&two, &[&a, &b])).is_ok());
        for threshold in [0, 3] {
            assert!(TrustRoot::open(&sign(&root(1, &[&a, &b], threshold), &[&a, &b])).is_err());
        }
    }
}
