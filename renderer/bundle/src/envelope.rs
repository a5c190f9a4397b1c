//! DSSE, the Dead Simple Signing Envelope, version 1 (secure-systems-lab/dsse `protocol.md`).
//!
//! The exact bytes that were signed are the bytes that are parsed; nothing is re-serialised to verify. The `keyid` is a hint
//! for people and is never trusted.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::crypto::{PublicKey, SigningKey};

/// Longest encoded envelope, in bytes. A release is about 1 KB, a trust root grows by 60 bytes a key.
pub const MAX_BYTES: usize = 64 << 10;
/// Most signatures in one envelope: bounds the work of verifying a hostile one.
pub const MAX_SIGNATURES: usize = 16;

/// A signed document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// What the payload is.
    payload_type: String,
    /// The signed bytes, base64.
    payload: String,
    /// At most [`MAX_SIGNATURES`].
    signatures: Vec<Signature>,
}

/// One signature over type and payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// Fingerprint of the key: a hint for people, never trusted.
    keyid: String,
    /// The Ed25519 signature, base64.
    sig: String,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too long, not JSON, not base64 or too many signatures.
    #[error("the envelope cannot be read: {0}")]
    Malformed(String),
    /// The payload is something else.
    #[error("the envelope holds {found:?}, expected {expected:?}")]
    PayloadType {
        /// What the envelope says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// Fewer distinct keys signed than the threshold asks for.
    #[error("{valid} of the {threshold} signatures needed are valid")]
    Threshold {
        /// Distinct keys with a valid signature.
        valid: usize,
        /// Distinct keys needed.
        threshold: usize,
    },
}

/// DSSE's pre-authentication encoding: type and payload with their lengths, so that neither can be read as the other.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Signs `payload` with each key.
    pub fn sign(payload_type: &'static str, payload: &[u8], keys: &[&SigningKey]) -> Self {
        let message = pre_authentication(payload_type, payload);
        let signatures = keys
            .iter()
            .map(|key| Signature {
                keyid: key.public().fingerprint().to_string(),
                sig: BASE64.encode(&key.sign(&message)),
            })
            .collect();
        Self {
            payload_type: payload_type.to_owned(),
            payload: BASE64.encode(payload),
            signatures,
        }
    }

    /// Reads an envelope; nothing in it is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_BYTES {
            return Err(EnvelopeError::Malformed(format!(
                "{} bytes, at most {MAX_BYTES} are allowed",
                bytes.len()
            )));
        }
        serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    /// The encoded envelope.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope has only string keys")
    }

    /// The payload, if at least `threshold` distinct keys of `keys` signed it under this type.
    pub fn verify(
        &self,
        payload_type: &'static str,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<Vec<u8>, EnvelopeError> {
        if self.payload_type != payload_type {
            let found = self.payload_type.chars().take(80).collect();
            return Err(EnvelopeError::PayloadType {
                found,
                expected: payload_type,
            });
        }
        if self.signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::Malformed(format!(
                "{} signatures, at most {MAX_SIGNATURES} are allowed",
                self.signatures.len()
            )));
        }
        let payload = self.unverified_payload()?;
        let message = pre_authentication(payload_type, &payload);
        let mut signers: BTreeSet<&PublicKey> = BTreeSet::new();
        for signature in &self.signatures {
            let Ok(bytes) = BASE64.decode(signature.sig.as_bytes()) else {
                continue;
            };
            signers.extend(keys.iter().filter(|key| key.verifies(&message, &bytes)));
        }
        if threshold == 0 || signers.len() < threshold {
            return Err(EnvelopeError::Threshold {
                valid: signers.len(),
                threshold,
            });
        }
        Ok(payload)
    }

    /// The payload before any check: only to find out which keys should verify it.
    pub(crate) fn unverified_payload(&self) -> Result<Vec<u8>, EnvelopeError> {
        if self.payload.len() > MAX_BYTES {
            return Err(EnvelopeError::Malformed(format!(
                "payload longer than {MAX_BYTES} bytes"
            )));
        }
        BASE64
            .decode(self.payload.as_bytes())
            .map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.flotta.test";

    fn key() -> SigningKey {
        SigningKey::generate().expect("a key").0
    }

    #[test]
    fn the_encoding_is_the_one_of_the_specification() {
        // protocol.md, "Test Vectors"
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn distinct_keys_are_counted_not_signatures() {
        let (a, b, c) = (key(), key(), key());
        let twice = Envelope::sign(TYPE, b"x", &[&a, &a]);
        let keys = [a.public(), b.public()];
        assert_eq!(twice.verify(TYPE, &keys, 1), Ok(b"x".to_vec()));
        assert_eq!(
            twice.verify(TYPE, &keys, 2),
            Err(EnvelopeError::Threshold {
                valid: 1,
                threshold: 2
            })
        );
        // The same key listed twice is one key as well.
        assert_eq!(
            twice.verify(TYPE, &[a.public(), a.public()], 2),
            Err(EnvelopeError::Threshold {
                valid: 1,
                threshold: 2
            })
        );
        let foreign = Envelope::sign(TYPE, b"x", &[&a, &c]);
        assert!(foreign.verify(TYPE, &keys, 2).is_err());
        assert!(
            Envelope::sign(TYPE, b"x", &[&b, &a])
                .verify(TYPE, &keys, 2)
                .is_ok()
        );
        assert!(
            twice.verify(TYPE, &keys, 0).is_err(),
            "a threshold of nothing trusts nothing"
        );
    }

    #[test]
    fn a_payload_of_another_type_is_refused_though_the_signature_is_good() {
        let a = key();
        let envelope = Envelope::sign("application/vnd.flotta.other", b"x", &[&a]);
        assert!(matches!(
            envelope.verify(TYPE, &[a.public()], 1),
            Err(EnvelopeError::PayloadType { .. })
        ));
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let a = key();
        let good = Envelope::sign(TYPE, b"payload", &[&a]);
        let encoded = good.encode();
        let keyid_at = encoded
            .windows(7)
            .position(|w| w == b"\"keyid\"")
            .expect("a keyid")
            + 8;
        for at in 0..encoded.len() {
            for bit in 0..8 {
                let mut bent = encoded.clone();
                bent[at] ^= 1 << bit;
                let accepted = Envelope::parse(&bent)
                    .and_then(|envelope| envelope.verify(TYPE, &[a.public()], 1))
                    .is_ok();
                // Nobody signs the keyid and nobody trusts it: a flip there changes nothing that is believed.
                let in_keyid = (keyid_at..keyid_at + 73).contains(&at);
                assert!(!accepted || in_keyid, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn envelopes_are_bounded() {
        assert!(matches!(
            Envelope::parse(&vec![b' '; MAX_BYTES + 1]),
            Err(EnvelopeError::Malformed(_))
        ));
        let a = key();
        let many = Envelope::sign(TYPE, b"x", &[&a; MAX_SIGNATURES + 1]);
        assert!(matches!(
            many.verify(TYPE, &[a.public()], 1),
            Err(EnvelopeError::Malformed(_))
        ));
    }
}
