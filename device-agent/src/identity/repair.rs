//! Repairs an identity of which some files were lost or damaged.
//!
//! What the device joined and the CA of its server are kept twice, here and in the ledger. A lost certificate is requested
//! again with the key, and a lost sealing key is made again and sent to the server. A private key cannot be restored: there
//! is no copy, and without it the device has no identity.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    CA, CERTIFICATE, Certificate, IdentityError, JOINED, Joined, KEY, MAX_FILE, SEALING,
    make_sealing, parse_key, parse_sealing, write,
};
use crate::config::make_private;
use crate::durable;
use crate::ledger::file::{Found, find};
use crate::ledger::{Damage, Loss};

/// The folder with the copies, next to the identity's.
const COPIES: &str = "ledger";

/// Reads what the device joined, if necessary from its copy in the ledger; none before it has joined.
pub fn joined(folder: &Path) -> Result<Option<Joined>, IdentityError> {
    let home = folder.join(JOINED);
    let why = match look(&home, parse_joined)? {
        Found::Whole(joined) => return Ok(Some(joined)),
        Found::Absent => None,
        Found::Damaged(why) => Some(why),
    };
    match (look(&copy(folder, JOINED), parse_joined)?, why) {
        (Found::Whole(joined), _) => Ok(Some(joined)),
        (_, Some(why)) => Err(IdentityError::Malformed(home, why)),
        (_, None) => Ok(None),
    }
}

/// Restores what can be restored, and returns what was lost. The caller must hold the state directory. `is_settled` says that
/// all files of the state have been written at least once.
pub fn repair(folder: &Path, is_settled: bool) -> Result<Vec<Loss>, IdentityError> {
    let mut losses = Vec::new();
    let known = |bytes: &[u8]| parse_joined(bytes).map(drop);
    if !repair_twin(folder, JOINED, known, is_settled, &mut losses)? {
        // it has not joined, or there is no record any more of what it joined
        return Ok(losses);
    }
    repair_twin(folder, CA, parse_authority, is_settled, &mut losses)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
    let key = look(&folder.join(KEY), |bytes| {
        parse_key(&text(bytes)?).map(drop)
    })?;
    if let Some(how) = key.how() {
        let then = "without it this device must join again: flotta-agent enrol --reset JOINFILE";
        losses.push(loss("identity", KEY, how, then));
        return Ok(losses);
    }
    let sealing = look(&folder.join(SEALING), |bytes| {
        parse_sealing(&text(bytes)?).map(drop)
    })?;
    if let Some(how) = sealing.how() {
        let then = "a new one is made and sent to the server";
        losses.push(loss("identity", SEALING, how, then));
        // The sealing key comes first, because the request for a certificate sends it to the server.
        let path = folder.join(CERTIFICATE);
        durable::remove(&path).map_err(|error| IdentityError::Io(path, error))?;
        make_sealing(folder)?;
        return Ok(losses);
    }
    let certificate = look(&folder.join(CERTIFICATE), |bytes| {
        is_whole(bytes)?;
        let parsed = Certificate::parse(&text(bytes)?);
        parsed.map(drop).map_err(|error| error.to_string())
    })?;
    if let Some(how) = certificate.how() {
        let then = "a new one is requested with the key";
        losses.push(loss("identity", CERTIFICATE, how, then));
    }
    Ok(losses)
}

/// Restores a file from its copy, or the copy from the file. Returns whether the file is there afterwards.
fn repair_twin(
    folder: &Path,
    name: &'static str,
    parse: impl Fn(&[u8]) -> Result<(), String>,
    is_settled: bool,
    losses: &mut Vec<Loss>,
) -> Result<bool, IdentityError> {
    let paths = [folder.join(name), copy(folder, name)];
    let [home, copy] = paths
        .each_ref()
        .map(|path| look(path, |bytes| parse(bytes).map(|()| bytes.to_vec())));
    let then = "it is restored from its copy";
    match (home?, copy?) {
        (Found::Whole(home), Found::Whole(copy)) if home == copy => {}
        (Found::Whole(home), copy) => {
            // a different copy is that of an earlier identity
            if let Some(how) = copy.how().filter(|_| is_settled) {
                losses.push(loss(COPIES, name, how, then));
            }
            // the file is there even without its copy; on a full disk the copy waits for the next start
            if let Err(error) = keep(&paths[1], &home) {
                tracing::warn!(problem = %error.problem(), "not copied");
            }
        }
        (home, Found::Whole(copy)) => {
            losses.extend(home.how().map(|how| loss("identity", name, how, then)));
            keep(&paths[0], &copy)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn copy(folder: &Path, name: &str) -> PathBuf {
    folder.with_file_name(COPIES).join(name)
}

fn loss(folder: &str, name: &str, how: Damage, then: &'static str) -> Loss {
    Loss {
        file: format!("{folder}/{name}"),
        how,
        then,
    }
}

fn look<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Found<T>, IdentityError> {
    find(path, MAX_FILE, parse).map_err(|error| IdentityError::Io(path.to_owned(), error))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    make_private(path.parent().unwrap_or(Path::new("/")))
        .map_err(|error| IdentityError::Io(path.to_owned(), error))?;
    write(path, bytes, 0o600)
}

fn parse_joined(bytes: &[u8]) -> Result<Joined, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Checks that these are PEM certificates.
fn parse_authority(bytes: &[u8]) -> Result<(), String> {
    is_whole(bytes)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|error| error.to_string())?;
    let first = all.first().ok_or("it holds no certificate")?;
    let parsed = X509Certificate::from_der(first);
    parsed.map(drop).map_err(|error| error.to_string())
}

/// Checks that the last PEM certificate is complete: parsers silently skip one that is not.
fn is_whole(bytes: &[u8]) -> Result<(), String> {
    let is_whole = bytes
        .trim_ascii_end()
        .ends_with(b"-----END CERTIFICATE-----");
    is_whole
        .then_some(())
        .ok_or_else(|| "it is truncated".to_owned())
}
