//! Signatures: Ed25519 with `ring`, which TLS links anyway. No other module uses a signature library.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `ed25519:` and 32 bytes of base64.
    #[error("not a public key: expected `ed25519:` and 44 base64 characters")]
    Public,
    /// Not the PKCS#8 of an Ed25519 key.
    #[error("not the PKCS#8 document of an Ed25519 key")]
    Private,
    /// The operating system returned no random bytes.
    #[error("no random bytes to make a key from")]
    Random,
}

/// An Ed25519 public key, written `ed25519:<base64>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Returns the digest of the 32 key bytes, for people to compare.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Whether `signature` over `message` is by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let base64 = text.strip_prefix("ed25519:").ok_or(KeyError::Public)?;
        let bytes = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| KeyError::Public)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyError::Public)?))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The beginning of the PKCS#8 document of an Ed25519 key, before its 32 secret bytes (RFC 8410). Version 1, because people sign
/// with OpenSSL 3.0, which reads no other version.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// An Ed25519 key pair. Its Debug form shows the public half alone.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a key; returns it with the PKCS#8 document to keep.
    pub fn generate() -> Result<(Self, Vec<u8>), KeyError> {
        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| KeyError::Random)?;
        let pkcs8 = [&PKCS8_PREFIX[..], &secret].concat();
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Converts the PKCS#8 document of an earlier version of Flotta to the one that [`Self::generate`] makes today. The earlier one
    /// was of PKCS#8 version 2, which contains the public key.
    pub fn portable_pkcs8(der: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = Self::from_pkcs8(der)?;
        let secret = der.get(PKCS8_PREFIX.len()..PKCS8_PREFIX.len() + 32);
        let pkcs8 = [&PKCS8_PREFIX[..], secret.ok_or(KeyError::Private)?].concat();
        if Self::from_pkcs8(&pkcs8)?.public() != key.public() {
            return Err(KeyError::Private);
        }
        Ok(pkcs8)
    }

    /// Reads a key from its PKCS#8 document (DER) of version 1 or 2.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Self)
            .map_err(|_| KeyError::Private)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The 64-byte signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}
