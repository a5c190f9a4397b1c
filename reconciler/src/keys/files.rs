//! Secret files: mode 0600 in folders of 0700, each written as a temporary file, synced and renamed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flotta_bundle::crypto::SigningKey;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::KeysError;

/// Longest file read here, in bytes: keys and certificates are a few hundred, trust roots at most 64 KiB.
const MAX_BYTES: u64 = 256 << 10;

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KeysError + '_ {
    move |error| KeysError::Io(path.to_owned(), error)
}

/// Creates a folder that only this user may enter. The mode of an existing one is corrected.
pub(super) fn make_private_directory(path: &Path) -> Result<(), KeysError> {
    match DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Ok(()) => {}
        Err(error) => return Err(io(path)(error)),
    }
    let mode = std::fs::metadata(path)
        .map_err(io(path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io(path))?;
    }
    Ok(())
}

pub(super) fn remove_directory(path: &Path) -> Result<(), KeysError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(path)(error)),
        _ => Ok(()),
    }
}

/// Syncs a directory: only then are its entries durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), KeysError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(io(path))
}

/// The names in a folder, sorted.
pub(super) fn list(path: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let entries = std::fs::read_dir(path).map_err(io(path))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(io(path))?.file_name().into());
    }
    names.sort();
    Ok(names)
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), KeysError> {
    std::fs::rename(from, to).map_err(io(to))?;
    sync_directory(to.parent().expect("a file within the data directory"))
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), KeysError> {
    let mut name = path.file_name().expect("a file name").to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io(&temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(io(&temporary))?;
    rename(&temporary, path)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeysError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(io(path))?;
    Ok(bytes)
}

pub(super) fn read_text(path: &Path) -> Result<String, KeysError> {
    String::from_utf8(read(path)?)
        .map_err(|_| KeysError::Malformed(path.to_owned(), "not text".to_owned()))
}

pub(super) fn write_signing_key(path: &Path, pkcs8: &[u8]) -> Result<(), KeysError> {
    write(path, pem("PRIVATE KEY", pkcs8).as_bytes())
}

pub(super) fn read_signing_key(path: &Path) -> Result<SigningKey, KeysError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| KeysError::Malformed(path.to_owned(), error.to_string()))?;
    Ok(SigningKey::from_pkcs8(der.secret_pkcs8_der())?)
}

/// Reads a signing key's file in the format that other programs can read.
pub(super) fn portable_signing_key(path: &Path) -> Result<Vec<u8>, KeysError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| KeysError::Malformed(path.to_owned(), error.to_string()))?;
    let pkcs8 = SigningKey::portable_pkcs8(der.secret_pkcs8_der())?;
    Ok(pem("PRIVATE KEY", &pkcs8).into_bytes())
}

/// Encodes PEM (RFC 7468): base64 in lines of 64 characters.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeysError::Random)?;
    Ok(bytes)
}
