//! A device's identity key, always ECDSA on P-256, and the certificate request that proves possession of it.

use flotta_bundle::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// The prefix of every `SubjectPublicKeyInfo` with an uncompressed P-256 point (RFC 5480): only this form is accepted, so a
/// key has one fingerprint.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// 0x04 and two coordinates.
const POINT_BYTES: usize = 65;
/// Longest request in bytes of PEM. The agent's has about 600.
const MAX_CSR_BYTES: usize = 8 << 10;

/// Why a certificate request is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too long, or not a PKCS#10 request in PEM.
    #[error("the certificate request cannot be read")]
    Malformed,
    /// Not P-256.
    #[error("the certificate request's key is not ECDSA on P-256")]
    Key,
    /// The signature is not valid.
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// A P-256 public key.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey([u8; SPKI_PREFIX.len() + POINT_BYTES]);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DeviceKey")
            .field(&self.fingerprint())
            .finish()
    }
}

impl DeviceKey {
    /// Parses the key of a `SubjectPublicKeyInfo` (DER), if it is an uncompressed point on P-256.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let point = der.strip_prefix(&SPKI_PREFIX)?;
        if point.first() != Some(&4) {
            return None;
        }
        der.try_into().ok().map(Self)
    }

    /// The `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`, which identifies a device.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Whether `signature` (ASN.1) over `message` is by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0[SPKI_PREFIX.len()..])
            .verify(message, signature)
            .is_ok()
    }
}

/// A certificate request with a valid proof of possession. Its subject, names and extensions are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    key: DeviceKey,
}

impl Csr {
    /// Reads a PKCS#10 request (PEM) and verifies its signature.
    pub fn parse(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(CsrError::Malformed);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| CsrError::Malformed)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = DeviceKey::from_spki(info.subject_pki.raw).ok_or(CsrError::Key)?;
        if !key.verifies(info.raw, &request.signature_value.data) {
            return Err(CsrError::Signature);
        }
        Ok(Self { key })
    }

    /// The key.
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }
}
