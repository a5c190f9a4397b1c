//! The device's identity: keys that are made here and never leave, and the certificate for them.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use flotta_bundle::code::{self, Problem};
use flotta_bundle::manifest::check_servers;
use flotta_bundle::wire::sealing_statement;
use flotta_bundle::{DeviceName, Digest, FleetName};
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _, SigningKey as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{config, durable};

mod repair;

pub use repair::{joined, repair};

const KEY: &str = "key.pem";
const SEALING: &str = "sealing.key";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";
const JOINED: &str = "joined.json";
/// The file with the address at which the server answered last. It is only a help: losing it loses nothing.
const SERVER: &str = "server";
/// Longest file of an identity, in bytes: a chain of certificates.
const MAX_FILE: usize = 64 << 10;

/// What is wrong with keys or certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// A file is malformed.
    #[error("{0}: {1}")]
    Malformed(PathBuf, String),
    /// The cryptography library refused the keys.
    #[error("the keys cannot be used: {0}")]
    Keys(String),
    /// A certificate for another key or device.
    #[error("the server's certificate for this device is not usable: {0}")]
    Certificate(String),
}

impl IdentityError {
    /// The error with its code, its causes and what to do.
    pub fn problem(&self) -> Problem {
        let message = match self {
            Self::Io(path, source) => format!("{}: {source}", path.display()),
            other => other.to_string(),
        };
        match self {
            Self::Certificate(_) => Problem::new(code::BAD_CERTIFICATE, message),
            _ => Problem::new(code::IDENTITY, message),
        }
    }
}

/// What the device joined. It is written last, so that it exists only when everything else does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The fleet's name.
    pub fleet: FleetName,
    /// The device's name in the fleet.
    pub device: DeviceName,
    /// URL of its edge API.
    pub server: String,
}

/// The device's certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, then the CA's.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it becomes valid.
    pub not_before: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
    key: Vec<u8>,
    names: Vec<String>,
}

impl Certificate {
    /// Reads a chain in PEM; its first certificate is the device's.
    pub fn parse(pem: &str) -> Result<Self, IdentityError> {
        let bad = |error: &dyn std::fmt::Display| IdentityError::Certificate(error.to_string());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| bad(&error))?;
        let first = chain.first().ok_or_else(|| bad(&"there is none"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| bad(&error))?;
        let at = |seconds| Timestamp::from_second(seconds).map_err(|error| bad(&error));
        let not_before = at(parsed.validity().not_before.timestamp())?;
        let not_after = at(parsed.validity().not_after.timestamp())?;
        let key = parsed.public_key().raw.to_vec();
        let names = match parsed.subject_alternative_name() {
            Ok(Some(names)) => names
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            chain,
            not_before,
            not_after,
            key,
            names,
        })
    }

    /// A placeholder for a certificate that was lost.
    pub fn lost() -> Self {
        Self {
            chain: Vec::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            key: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Whether this is the placeholder for a lost certificate.
    pub fn is_lost(&self) -> bool {
        self.chain.is_empty()
    }

    /// When to renew it: at two thirds of its lifetime, so that a month without network does no harm.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after
            .checked_sub(life / 3)
            .unwrap_or(self.not_after)
    }
}

/// The device's keys.
pub struct Identity {
    folder: PathBuf,
    key: KeyPair,
    sealing: StaticSecret,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity")
            .field(&self.fingerprint())
            .finish()
    }
}

impl Identity {
    /// Opens the keys in `folder`, and makes them if there are none. Returns whether they were made now.
    pub fn open_or_make(folder: &Path) -> Result<(Self, bool), IdentityError> {
        config::make_private(folder).map_err(|error| IdentityError::Io(folder.into(), error))?;
        let path = folder.join(KEY);
        let make = read(&path)?.is_none();
        if make {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|error| IdentityError::Keys(error.to_string()))?;
            let pem = Zeroizing::new(key.serialize_pem());
            write(&path, pem.as_bytes(), 0o600)?;
        }
        if read(&folder.join(SEALING))?.is_none() {
            make_sealing(folder)?;
        }
        Ok((Self::open(folder)?, make))
    }

    /// Opens the keys in `folder`.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let there = |name: &str| {
            let path = folder.join(name);
            let text = read(&path)?
                .ok_or_else(|| IdentityError::Io(path.clone(), io::ErrorKind::NotFound.into()))?;
            Ok::<_, IdentityError>((path, Zeroizing::new(text)))
        };
        let (path, pem) = there(KEY)?;
        let key = parse_key(&pem).map_err(|why| IdentityError::Malformed(path, why))?;
        let (path, text) = there(SEALING)?;
        let bytes = parse_sealing(&text).map_err(|why| IdentityError::Malformed(path, why))?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            sealing: StaticSecret::from(*bytes),
        })
    }

    /// Copies the keys to another folder.
    pub fn copy_keys(from: &Path, to: &Path) -> Result<(), IdentityError> {
        config::make_private(to).map_err(|error| IdentityError::Io(to.into(), error))?;
        for name in [KEY, SEALING] {
            let path = from.join(name);
            let text = read(&path)?.map(Zeroizing::new);
            let text =
                text.ok_or_else(|| IdentityError::Io(path, io::ErrorKind::NotFound.into()))?;
            write(&to.join(name), text.as_bytes(), 0o600)?;
        }
        Ok(())
    }

    /// Removes keys and certificate: the device has no identity until it joins again.
    pub fn reset(folder: &Path) -> Result<(), IdentityError> {
        for name in [JOINED, CERTIFICATE, CA, KEY, SEALING, SERVER] {
            let path = folder.join(name);
            durable::remove(&path).map_err(|error| IdentityError::Io(path, error))?;
        }
        Ok(())
    }

    /// Where the keys are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHA-256 of the key's `SubjectPublicKeyInfo`, by which the server identifies the device.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.key.subject_public_key_info())
    }

    /// A certificate signing request, PEM; it proves possession of the private key.
    pub fn csr(&self, device: &DeviceName) -> Result<String, IdentityError> {
        let keys = |error: rcgen::Error| IdentityError::Keys(error.to_string());
        let mut params = CertificateParams::default();
        // RFC 5280 allows 64 characters; the name that counts is the one that the CA gives
        let name: String = device.to_string().chars().take(64).collect();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .serialize_request(&self.key)
            .and_then(|request| request.pem())
            .map_err(keys)
    }

    /// The public half of the sealing key, base64.
    pub fn sealing_key(&self) -> String {
        BASE64.encode(PublicKey::from(&self.sealing).as_bytes())
    }

    /// The identity key's signature over the sealing key, base64.
    pub fn sealing_proof(&self, device: &DeviceName) -> Result<String, IdentityError> {
        let statement = sealing_statement(device, &self.sealing_key());
        self.key
            .sign(&statement)
            .map(|signature| BASE64.encode(&signature))
            .map_err(|error| IdentityError::Keys(error.to_string()))
    }

    /// The private key, for TLS.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// Checks that a chain is for this key and this name, and saves it.
    pub fn keep_certificate(
        &self,
        pem: &str,
        fleet: &FleetName,
        device: &DeviceName,
    ) -> Result<Certificate, IdentityError> {
        let certificate = Certificate::parse(pem)?;
        if certificate.key != self.key.subject_public_key_info() {
            let why = "it is for another key".to_owned();
            return Err(IdentityError::Certificate(why));
        }
        let name = device.identity(fleet);
        if certificate.names != [name.as_str()] {
            let why = format!("it is not for {name}");
            return Err(IdentityError::Certificate(why));
        }
        write(&self.folder.join(CERTIFICATE), pem.as_bytes(), 0o600)?;
        Ok(certificate)
    }

    /// Saves what the device joined. The certificate is there already; this puts it in force.
    pub fn keep_joined(&self, joined: &Joined, ca: &str) -> Result<(), IdentityError> {
        write(&self.folder.join(CA), ca.as_bytes(), 0o600)?;
        let path = self.folder.join(JOINED);
        let json = serde_json::to_vec_pretty(joined)
            .map_err(|error| IdentityError::Malformed(path.clone(), error.to_string()))?;
        write(&path, &json, 0o600)
    }

    /// Reads the certificate.
    pub fn certificate(&self) -> Result<Certificate, IdentityError> {
        let path = self.folder.join(CERTIFICATE);
        let pem =
            read(&path)?.ok_or_else(|| IdentityError::Io(path, io::ErrorKind::NotFound.into()))?;
        Certificate::parse(&pem)
    }

    /// Whether all files of a joined device are there.
    pub fn is_complete(&self) -> bool {
        let has = |name: &str| self.folder.join(name).is_file();
        self.certificate().is_ok() && has(CA) && has(JOINED)
    }

    /// The address at which the server answered last, if that is known.
    pub fn last_server(&self) -> Option<String> {
        let text = read(&self.folder.join(SERVER)).ok()??;
        let server = text.trim().to_owned();
        let is_one = check_servers(std::slice::from_ref(&server)).is_ok();
        is_one.then_some(server)
    }

    /// Saves the address at which the server answers, if it has changed.
    pub fn keep_last_server(&self, server: &str) -> Result<(), IdentityError> {
        if self.last_server().as_deref() == Some(server) {
            return Ok(());
        }
        write(
            &self.folder.join(SERVER),
            format!("{server}\n").as_bytes(),
            0o600,
        )
    }

    /// The CA certificate for the server, PEM.
    pub fn ca(&self) -> Result<String, IdentityError> {
        let path = self.folder.join(CA);
        read(&path)?.ok_or_else(|| IdentityError::Io(path, io::ErrorKind::NotFound.into()))
    }
}

/// A short fingerprint for people to compare and paste: `SHA256:` and 16 hex digits.
pub fn short(fingerprint: &Digest) -> String {
    let mut hex = fingerprint.hex();
    hex.truncate(16);
    format!("SHA256:{hex}")
}

fn parse_key(pem: &str) -> Result<KeyPair, String> {
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| error.to_string())
}

fn parse_sealing(text: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let bytes = BASE64.decode(text.trim().as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|error| error.to_string())?;
    let bytes: [u8; 32] = bytes[..].try_into().map_err(|_| "not 32 bytes")?;
    Ok(Zeroizing::new(bytes))
}

fn make_sealing(folder: &Path) -> Result<(), IdentityError> {
    let mut secret = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(secret.as_mut())
        .map_err(|_| IdentityError::Keys("no random bytes".to_owned()))?;
    let text = Zeroizing::new(BASE64.encode(secret.as_ref()));
    write(&folder.join(SEALING), text.as_bytes(), 0o600)
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    durable::read(path, MAX_FILE)
        .map_err(|error| IdentityError::Io(path.into(), error))?
        .map(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| IdentityError::Malformed(path.into(), "not text".to_owned()))
        })
        .transpose()
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    durable::write(path, bytes, mode).map_err(|error| IdentityError::Io(path.into(), error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    #[test]
    fn keys_are_made_once_kept_private_and_vouch_for_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity");
        let (first, made) = Identity::open_or_make(&path).expect("keys");
        let (again, made_again) = Identity::open_or_make(&path).expect("keys");
        assert!(made && !made_again);
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.sealing_key(), again.sealing_key());
        for name in [KEY, SEALING] {
            let file = std::fs::metadata(path.join(name)).expect("a file");
            assert_eq!(file.permissions().mode() & 0o777, 0o600);
        }
        let device: DeviceName = "shop-17".parse().expect("a name");
        let proof = BASE64
            .decode(first.sealing_proof(&device).expect("a proof").as_bytes())
            .expect("base64");
        let spki = first.key.subject_public_key_info();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki[26..])
            .verify(&sealing_statement(&device, &first.sealing_key()), &proof)
            .expect("a signature by the identity key");
        assert!(
            first
                .csr(&device)
                .expect("a request")
                .contains("CERTIFICATE REQUEST")
        );
        Identity::reset(&path).expect("reset");
        let (new, _) = Identity::open_or_make(&path).expect("keys");
        assert_ne!(new.fingerprint(), first.fingerprint());
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (identity, _) = Identity::open_or_make(folder.path()).expect("keys");
        let other = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
        let (fleet, device) = (
            "shops".parse().expect("a fleet"),
            "a".parse().expect("a name"),
        );
        let error = identity
            .keep_certificate(&other.cert.pem(), &fleet, &device)
            .expect_err("another key");
        assert_eq!(error.problem().code, "FLT0402");
        assert!(identity.certificate().is_err(), "nothing was kept");
    }
}
