//! Certificates: two CAs (devices, server) and what they sign.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use flotta_bundle::{DeviceName, FleetName};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::device_key::DeviceKey;
use super::{KeysError, files};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Lifetime of a CA's certificate. A device identifies the CA by name and key (RFC 5280, 6.1.1 d), so it can be renewed with
/// the same key; people compare its fingerprint, so that should be rare.
const AUTHORITY_DAYS: i32 = 3653;
/// Lifetime of the server's certificate; it is renewed when a third is left.
const SERVER_DAYS: i32 = 365;
/// Lifetime of a device's certificate: renewed at two thirds, which leaves a month for a device that is off.
const DEVICE_DAYS: i32 = 90;
/// A CA's certificate is renewed when this much is left: twice the lifetime of a server certificate.
const AUTHORITY_LEFT: i32 = 2 * SERVER_DAYS;
/// How far certificates are backdated, because the clocks of server replicas and devices differ.
const SKEW: SignedDuration = crate::clock::SKEW;

/// A device's new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then the CA's, PEM.
    pub pem: String,
    /// Its serial number, hex.
    pub serial: String,
    /// When it expires.
    pub not_after: Timestamp,
}

/// Sorts names and checks that each is a DNS name or an IP address.
pub(super) fn checked_names(names: &[String]) -> Result<BTreeSet<String>, KeysError> {
    let check = |name: &String| {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(address.to_string());
        }
        let lower = name.to_ascii_lowercase();
        match flotta_bundle::name::check_subdomain(&lower) {
            Ok(()) => Ok(lower),
            Err(_) => Err(KeysError::BadName(name.chars().take(80).collect())),
        }
    };
    names.iter().map(check).collect()
}

fn at(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn params(
    common_name: &str,
    now: Timestamp,
    end: Timestamp,
) -> Result<CertificateParams, KeysError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 allows 64 characters here; the name that counts is the SAN's.
    let common_name: String = common_name.chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = at(now - SKEW);
    params.not_after = at(end);
    let mut serial = files::random::<16>()?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and always 16 bytes
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn malformed(path: &Path, error: impl std::fmt::Display) -> KeysError {
    KeysError::Malformed(path.to_owned(), error.to_string())
}

/// A key and its certificate in one file, so that neither can be renamed into place without the other.
fn read_pair(path: &Path) -> Result<(KeyPair, CertificateDer<'static>), KeysError> {
    let pem = files::read(path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|error| malformed(path, error))?;
    let certificate =
        CertificateDer::from_pem_slice(&pem).map_err(|error| malformed(path, error))?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok((key, certificate))
}

fn write_pair(
    path: &Path,
    key: &KeyPair,
    certificate: &CertificateDer<'_>,
) -> Result<(), KeysError> {
    let key = files::pem("PRIVATE KEY", key.serialized_der());
    let pem = key + &files::pem("CERTIFICATE", certificate);
    files::write(path, pem.as_bytes())
}

/// The validity of a certificate.
#[derive(Debug, Clone, Copy)]
struct Life {
    begins: Timestamp,
    ends: Timestamp,
}

impl Life {
    fn of(path: &Path, certificate: &X509Certificate<'_>) -> Result<Self, KeysError> {
        let validity = certificate.validity();
        let at = |seconds| Timestamp::from_second(seconds).map_err(|error| malformed(path, error));
        Ok(Self {
            begins: at(validity.not_before.timestamp())?,
            ends: at(validity.not_after.timestamp())?,
        })
    }

    fn made(now: Timestamp, ends: Timestamp) -> Self {
        let begins = now - SKEW;
        Self { begins, ends }
    }

    /// Whether it was made by a clock that was ahead: it is not valid yet, or expires later than one made in an hour would.
    fn is_ahead(self, now: Timestamp, days: i32) -> bool {
        self.begins > now || self.ends > now + DAY * days + SKEW
    }

    /// Whether at most this many days are left: time has passed, or it was made by a clock that was behind.
    fn is_short(self, now: Timestamp, days: i32) -> bool {
        now + DAY * days >= self.ends
    }
}

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    name: String,
    life: Life,
}

impl Authority {
    pub(super) fn make(name: &str, now: Timestamp) -> Result<Self, KeysError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Self::with(key, name, now)
    }

    /// Renews the certificate, with the same name and key.
    pub(super) fn renewed(&self, now: Timestamp) -> Result<Self, KeysError> {
        let der = PrivatePkcs8KeyDer::from(self.issuer.key().serialize_der());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)?;
        Self::with(key, &self.name, now)
    }

    fn with(key: KeyPair, name: &str, now: Timestamp) -> Result<Self, KeysError> {
        let not_after = now + DAY * AUTHORITY_DAYS;
        let mut params = params(name, now, not_after)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem: files::pem("CERTIFICATE", &certificate),
            certificate,
            name: name.to_owned(),
            life: Life::made(now, not_after),
        })
    }

    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        let (key, certificate) = read_pair(path)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| malformed(path, error))?;
        if !parsed.public_key().raw.ends_with(key.der_bytes()) {
            return Err(malformed(path, "key and certificate do not match"));
        }
        let name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .ok_or_else(|| malformed(path, "the certificate has no name"))?;
        Ok(Self {
            name: name.to_owned(),
            life: Life::of(path, &parsed)?,
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            pem: files::pem("CERTIFICATE", &certificate),
            certificate,
        })
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), KeysError> {
        write_pair(path, self.issuer.key(), &self.certificate)
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn not_after(&self) -> Timestamp {
        self.life.ends
    }

    /// Whether its certificate must be renewed.
    pub(super) fn is_off(&self, now: Timestamp) -> bool {
        self.life.is_ahead(now, AUTHORITY_DAYS) || self.life.is_short(now, AUTHORITY_LEFT)
    }

    /// When a certificate made now expires: it must not outlive its CA.
    fn end(&self, now: Timestamp, days: i32) -> Timestamp {
        (now + DAY * days).min(self.life.ends)
    }

    pub(super) fn sign_device(
        &self,
        key: &DeviceKey,
        device: &DeviceName,
        fleet: &FleetName,
        now: Timestamp,
    ) -> Result<Issued, KeysError> {
        let not_after = self.end(now, DEVICE_DAYS);
        let mut params = params(&device.to_string(), now, not_after)?;
        params.subject_alt_names = vec![SanType::URI(device.identity(fleet).try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes);
        let key = rcgen::SubjectPublicKeyInfo::from_der(key.spki())?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            pem: files::pem("CERTIFICATE", certificate.der()) + &self.pem,
            serial: data_encoding::HEXLOWER.encode(&serial.unwrap_or_default()),
            // X.509 has whole seconds
            not_after: Timestamp::from_second(not_after.as_second()).unwrap_or(not_after),
        })
    }
}

/// The server's key and certificate.
pub(super) struct ServerIdentity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    certified: Arc<CertifiedKey>,
    names: BTreeSet<String>,
    life: Life,
}

fn certified(
    key: &KeyPair,
    certificate: &CertificateDer<'static>,
) -> Result<Arc<CertifiedKey>, KeysError> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key =
        any_ecdsa_type(&der).map_err(|error| malformed(Path::new("the server's key"), error))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)))
}

impl ServerIdentity {
    pub(super) fn make(
        names: &BTreeSet<String>,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let not_after = authority.end(now, SERVER_DAYS);
        let first = names.first().map_or("flotta", String::as_str);
        let mut params = params(first, now, not_after)?;
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name.clone().try_into().map(SanType::DnsName),
            })
            .collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &authority.issuer)?.der().clone();
        Ok(Self {
            certified: certified(&key, &certificate)?,
            key,
            certificate,
            names: names.clone(),
            life: Life::made(now, not_after),
        })
    }

    pub(super) fn read(path: &Path) -> Result<Self, KeysError> {
        let (key, certificate) = read_pair(path)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| malformed(path, error))?;
        if !parsed.public_key().raw.ends_with(key.der_bytes()) {
            return Err(malformed(path, "key and certificate do not match"));
        }
        let life = Life::of(path, &parsed)?;
        let names = match parsed.subject_alternative_name() {
            Ok(Some(san)) => san
                .value
                .general_names
                .iter()
                .filter_map(san_text)
                .collect(),
            _ => BTreeSet::new(),
        };
        Ok(Self {
            certified: certified(&key, &certificate)?,
            key,
            names,
            life,
            certificate,
        })
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), KeysError> {
        write_pair(path, &self.key, &self.certificate)
    }

    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    pub(super) fn not_after(&self) -> Timestamp {
        self.life.ends
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.life.is_ahead(now, SERVER_DAYS) || self.life.is_short(now, SERVER_DAYS / 3)
    }

    pub(super) fn for_tls(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

fn san_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}
