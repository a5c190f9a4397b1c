//! The fleet's keys: trust root, release key, device CA, server certificate. They are made once, at the first start.
//!
//! ```text
//! DATA/keys/fleet            the fleet's name
//!   root.pem release.pem     Ed25519, PKCS#8: sign trust roots, sign releases. Either may be taken offline
//!   roots/VERSION.json       the trust roots, each signed
//!   device-ca.pem            P-256 key and certificate of the CA for devices
//!   server-ca.pem            the same for the server, so that a device's certificate can never pass for a server's
//!   server.pem               the server's key and certificate, renewed by the server itself
//!   hmac                     32 secret bytes: what salts of sealed files are derived from
//! ```
//!
//! The first start fills a folder next to the final one and renames it: a crash leaves all of it or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use flotta_bundle::code::{self, Code};
use flotta_bundle::crypto::{KeyError, SigningKey};
use flotta_bundle::envelope::{Envelope, EnvelopeError};
use flotta_bundle::root::{self, Role, RootError, TrustRoot};
use flotta_bundle::{DeviceName, Digest, FleetName};
use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::clock::{Clock, InDoubt};

mod authority;
mod device_key;
mod files;

pub use authority::Issued;
use authority::{Authority, ServerIdentity};
pub use device_key::{Csr, CsrError, DeviceKey};
pub(crate) use files::random;

#[cfg(test)]
pub(crate) mod tests;

/// The signing keys.
const ROOT: &str = "root.pem";
const RELEASE: &str = "release.pem";
/// The CAs: key and certificate.
const DEVICES: &str = "device-ca.pem";
const SERVERS: &str = "server-ca.pem";
/// The fleet's default name.
const DEFAULT_FLEET: &str = "fleet";

/// Why the fleet's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or folder cannot be read or written.
    #[error("{}: cannot be read or written", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// A file is malformed.
    #[error("{path}: {what}", path = .0.display(), what = .1)]
    Malformed(PathBuf, String),
    /// A signing key cannot be generated or parsed.
    #[error("a signing key cannot be made or read")]
    Key(#[from] KeyError),
    /// A trust root that is not signed by its predecessor.
    #[error("the trust roots do not form a chain")]
    Root(#[from] RootError),
    /// A trust root that cannot be read.
    #[error("a trust root cannot be read")]
    Envelope(#[from] EnvelopeError),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The operating system gave no random bytes.
    #[error("no random bytes to make a key from")]
    Random,
    /// The data directory belongs to another fleet.
    #[error("this data directory belongs to fleet {found}, not {wanted}")]
    OtherFleet {
        /// The requested fleet.
        wanted: FleetName,
        /// The fleet of the directory.
        found: FleetName,
    },
    /// A folder of keys within a folder of keys: they were copied to where keys already were.
    #[error("{} holds the keys of another fleet, in the folder {}", .0.display(), .1.display())]
    Nested(PathBuf, PathBuf),
    /// A restore did not finish.
    #[error("{}: a restore into this directory did not finish", .0.display())]
    Unfinished(PathBuf),
    /// The clock is in doubt, so nothing is signed.
    #[error(transparent)]
    Clock(#[from] InDoubt),
    /// A text is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadName(String),
}

impl KeysError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Nested(..) => code::NESTED_KEYS,
            Self::Unfinished(_) => code::UNFINISHED,
            Self::Clock(doubt) => doubt.code(),
            _ => code::KEYS,
        }
    }
}

/// The options for creating a fleet, and the names under which it serves.
#[derive(Debug, Clone)]
pub struct FirstStart {
    /// The fleet's name: `fleet` when absent; at later starts it must match.
    pub fleet: Option<FleetName>,
    /// DNS names and addresses for the server's certificate.
    pub names: Vec<String>,
    /// The current time.
    pub now: Timestamp,
}

/// Whether the fleet existed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It was created: the first start.
    Created,
    /// It was read from the data directory.
    Opened,
}

/// The fleet's keys. Their Debug form shows nothing secret.
pub struct Fleet {
    directory: PathBuf,
    name: FleetName,
    roots: Vec<Envelope>,
    trust: TrustRoot,
    release: Option<Arc<SigningKey>>,
    devices: ArcSwap<Authority>,
    servers: ArcSwap<Authority>,
    server: ArcSwap<ServerIdentity>,
    hmac: [u8; 32],
    clock: Clock,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("directory", &self.directory)
            .field("name", &self.name)
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Creates the data directory, which only this user may enter. Refuses one with an unfinished restore.
pub fn make_data_directory(data: &Path) -> Result<(), KeysError> {
    if data.join(crate::backup::UNFINISHED).exists() {
        return Err(KeysError::Unfinished(data.to_owned()));
    }
    files::make_private_directory(data)
}

impl Fleet {
    /// Reads the fleet's keys from `data`, or creates them.
    pub fn open_or_create(data: &Path, options: &FirstStart) -> Result<(Self, Start), KeysError> {
        files::make_private_directory(data)?;
        let directory = data.join("keys");
        let start = if directory.exists() {
            Start::Opened
        } else {
            create(data, &directory, options)?;
            Start::Created
        };
        let fleet = Self::open(directory)?;
        if let Some(wanted) = options.fleet.as_ref().filter(|name| **name != fleet.name) {
            return Err(KeysError::OtherFleet {
                wanted: wanted.clone(),
                found: fleet.name,
            });
        }
        authority::checked_names(&options.names)?;
        Ok((fleet, start))
    }

    /// Reads the keys in a folder.
    pub(crate) fn open(directory: PathBuf) -> Result<Self, KeysError> {
        check_nested(&directory)?;
        let path = directory.join("fleet");
        let name: FleetName = files::read_text(&path)?
            .trim_end()
            .parse()
            .map_err(|error| KeysError::Malformed(path, format!("{error}")))?;
        let (roots, trust) = read_roots(&directory.join("roots"))?;
        if trust.fleet != name {
            return Err(KeysError::OtherFleet {
                wanted: name,
                found: trust.fleet,
            });
        }
        let path = directory.join(RELEASE);
        let release = if path.exists() {
            let key = files::read_signing_key(&path)?;
            // devices would refuse everything that it signs
            if !trust.release.keys.contains(&key.public()) {
                let what = format!("not a release key of trust root {}", trust.version);
                return Err(KeysError::Malformed(path, what));
            }
            Some(Arc::new(key))
        } else {
            None
        };
        let path = directory.join("hmac");
        let hmac = files::read(&path)?
            .try_into()
            .map_err(|_| KeysError::Malformed(path, "expected 32 bytes".to_owned()))?;
        Ok(Self {
            devices: ArcSwap::from_pointee(Authority::read(&directory.join(DEVICES))?),
            servers: ArcSwap::from_pointee(Authority::read(&directory.join(SERVERS))?),
            server: ArcSwap::from_pointee(ServerIdentity::read(&directory.join("server.pem"))?),
            directory,
            name,
            roots,
            trust,
            release,
            hmac,
            clock: Clock::default(),
        })
    }

    /// The fleet's name.
    pub fn name(&self) -> &FleetName {
        &self.name
    }

    /// Every trust root in order; the one at index `i` is version `i + 1`.
    pub fn trust_roots(&self) -> &[Envelope] {
        &self.roots
    }

    /// The trust root in force.
    pub fn trust_root(&self) -> &TrustRoot {
        &self.trust
    }

    /// The signed trust root in force, for join files.
    pub fn trust_root_envelope(&self) -> &Envelope {
        self.roots.last().expect("open() refuses an empty chain")
    }

    /// The fingerprint of the trust root in force: the digest of its canonical bytes.
    pub fn trust_root_fingerprint(&self) -> Digest {
        self.trust.fingerprint()
    }

    /// The key that signs releases; none when it was removed because CI signs.
    pub fn release_key(&self) -> Option<Arc<SigningKey>> {
        self.release.clone()
    }

    /// The device CA's certificate, PEM.
    pub fn ca_certificate_pem(&self) -> String {
        self.devices.load().certificate_pem().to_owned()
    }

    /// The device CA's certificate, DER, to verify client certificates with.
    pub fn ca_certificate(&self) -> CertificateDer<'static> {
        self.devices.load().certificate().clone()
    }

    /// Digest of the device CA's certificate (DER).
    pub fn ca_fingerprint(&self) -> Digest {
        Digest::of(self.devices.load().certificate())
    }

    /// When the device CA's certificate expires.
    pub fn ca_not_after(&self) -> Timestamp {
        self.devices.load().not_after()
    }

    /// The server CA's certificate, PEM: `ca` of a join file.
    pub fn server_ca_certificate_pem(&self) -> String {
        self.servers.load().certificate_pem().to_owned()
    }

    /// The names in the server's certificate, sorted.
    pub fn server_names(&self) -> Vec<String> {
        self.server.load().names().iter().cloned().collect()
    }

    /// When the server's certificate expires.
    pub fn server_not_after(&self) -> Timestamp {
        self.server.load().not_after()
    }

    /// The server's current certificate with its key, for TLS.
    pub fn server_certificate(&self) -> Arc<CertifiedKey> {
        self.server.load().for_tls()
    }

    /// The clock for all signatures here.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Renews certificates where necessary: the server's when it lacks one of `names`, when less than a third of its lifetime is
    /// left, or when it was made by a wrong clock; before it the CAs' certificates, with their existing keys. Returns whether
    /// anything was renewed.
    pub fn renew_certificates(&self, names: &[String], now: Timestamp) -> Result<bool, KeysError> {
        let names = authority::checked_names(names)?;
        let mut is_new = false;
        for (authority, file) in [(&self.devices, DEVICES), (&self.servers, SERVERS)] {
            let current = authority.load_full();
            if current.is_off(now) {
                self.clock.check()?;
                let made = current.renewed(now)?;
                made.write(&self.directory.join(file))?;
                authority.store(Arc::new(made));
                is_new = true;
            }
        }
        let current = self.server.load_full();
        let has_all = names.is_subset(current.names());
        if has_all && !current.is_due(now) {
            return Ok(is_new);
        }
        self.clock.check()?;
        let names = if has_all { current.names() } else { &names };
        let made = ServerIdentity::make(names, &self.servers.load(), now)?;
        made.write(&self.directory.join("server.pem"))?;
        self.server.store(Arc::new(made));
        Ok(true)
    }

    /// Signs a device's certificate for a key that the device has proven to possess. Nothing else of its request is used.
    pub fn sign_device_certificate(
        &self,
        key: &DeviceKey,
        device: &DeviceName,
        now: Timestamp,
    ) -> Result<Issued, KeysError> {
        self.clock.check()?;
        let authority = self.devices.load();
        authority.sign_device(key, device, &self.name, now)
    }

    /// The secret that salts of sealed files are derived from.
    pub fn hmac_secret(&self) -> &[u8; 32] {
        &self.hmac
    }
}

/// Refuses a folder of keys with another one in it, which `cp -r` creates where there are keys already: the server would keep
/// using the wrong ones.
pub(crate) fn check_nested(directory: &Path) -> Result<(), KeysError> {
    for name in files::list(directory)? {
        let inner = directory.join(&name);
        if inner.join("fleet").is_file() {
            return Err(KeysError::Nested(directory.to_owned(), name));
        }
    }
    Ok(())
}

/// The content of a key file for an export, in a format that other programs can read.
pub(crate) fn portable(path: &Path) -> Result<Vec<u8>, KeysError> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name {
        Some(ROOT | RELEASE) => files::portable_signing_key(path),
        _ => files::read(path),
    }
}

/// A short fingerprint for people: `SHA256:` and the first 16 hex digits. Nobody can make a second key with the same 64 bits
/// while an approval is pending; programs compare the whole digest.
pub fn fingerprint_text(digest: &Digest) -> String {
    format!("SHA256:{}", &digest.hex()[..16])
}

fn create(data: &Path, directory: &Path, options: &FirstStart) -> Result<(), KeysError> {
    let fleet = match &options.fleet {
        Some(name) => name.clone(),
        None => DEFAULT_FLEET.parse().expect("a valid name"),
    };
    let names = authority::checked_names(&options.names)?;
    let new = data.join("keys.new");
    files::remove_directory(&new)?; // left by an interrupted first start
    files::make_private_directory(&new)?;
    let roots = new.join("roots");
    files::make_private_directory(&roots)?;

    let (root_key, root_pkcs8) = SigningKey::generate()?;
    let (release_key, release_pkcs8) = SigningKey::generate()?;
    let trust = TrustRoot {
        schema: root::SCHEMA,
        fleet: fleet.clone(),
        version: 1,
        root: Role::any_of([root_key.public()]),
        release: Role::any_of([release_key.public()]),
    };
    let envelope = Envelope::sign(root::PAYLOAD_TYPE, &trust.encode(), &[&root_key]);
    files::write_signing_key(&new.join(ROOT), &root_pkcs8)?;
    files::write_signing_key(&new.join(RELEASE), &release_pkcs8)?;
    files::write(&roots.join("1.json"), &envelope.encode())?;

    let devices = Authority::make(&format!("{fleet} devices"), options.now)?;
    devices.write(&new.join(DEVICES))?;
    let servers = Authority::make(&format!("{fleet} server"), options.now)?;
    servers.write(&new.join(SERVERS))?;
    ServerIdentity::make(&names, &servers, options.now)?.write(&new.join("server.pem"))?;
    files::write(&new.join("hmac"), &files::random::<32>()?)?;
    files::write(&new.join("fleet"), format!("{fleet}\n").as_bytes())?;

    files::sync_directory(&roots)?;
    files::sync_directory(&new)?;
    files::rename(&new, directory)
}

fn read_roots(directory: &Path) -> Result<(Vec<Envelope>, TrustRoot), KeysError> {
    let mut roots = Vec::new();
    let mut trust: Option<TrustRoot> = None;
    for version in 1_u32.. {
        let path = directory.join(format!("{version}.json"));
        if !path.exists() {
            break;
        }
        let envelope = Envelope::parse(&files::read(&path)?)?;
        trust = Some(match trust {
            None => TrustRoot::open(&envelope)?,
            Some(before) => before.follow(&envelope)?,
        });
        roots.push(envelope);
    }
    let missing = || KeysError::Malformed(directory.join("1.json"), "missing".to_owned());
    Ok((roots, trust.ok_or_else(missing)?))
}
