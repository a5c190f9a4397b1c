//! An identity that was lost or damaged, in part: what can bring the part back.
//!
//! What the device joined and the authority that vouches for its server are kept twice, here and in the ledger. A certificate
//! is asked for anew by its key, and a sealing key is made anew and told to the server. Nothing brings a private key back:
//! there is no copy, and without it the device is nobody.

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

/// The folder next to the identity's that has the copies.
const COPIES: &str = "ledger";

/// What the device joined; none before it has. When that was lost, its copy in the ledger says it.
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

/// Brings back what can be, for the owner of the state directory. What was lost; `is_settled` says that all files of the
/// state were written once.
pub fn repair(folder: &Path, is_settled: bool) -> Result<Vec<Loss>, IdentityError> {
    let mut losses = Vec::new();
    let known = |bytes: &[u8]| parse_joined(bytes).map(drop);
    if !repair_twin(folder, JOINED, known, is_settled, &mut losses)? {
        // it has not joined, or nothing says any more what it joined
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
        let then = "a new one is made, and told to the server";
        losses.push(loss("identity", SEALING, how, then));
        // This first: asking for the next certificate is what tells the server.
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
        let then = "a new one is asked for by the key";
        losses.push(loss("identity", CERTIFICATE, how, then));
    }
    Ok(losses)
}

/// Brings a file back by its copy, or the other way round. Whether it is there then.
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
    let then = "it is made again from its copy";
    match (home?, copy?) {
        (Found::Whole(home), Found::Whole(copy)) if home == copy => {}
        (Found::Whole(home), copy) => {
            // another one is of the identity before this
            if let Some(how) = copy.how().filter(|_| is_settled) {
                losses.push(loss(COPIES, name, how, then));
            }
            // without its copy, too, it is there; on a full disk the copy waits for the next start
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

/// Whether these are certificates, PEM.
fn parse_authority(bytes: &[u8]) -> Result<(), String> {
    is_whole(bytes)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|error| error.to_string())?;
    let first = all.first().ok_or("it holds no certificate")?;
    let parsed = X509Certificate::from_der(first);
    parsed.map(drop).map_err(|error| error.to_string())
}

/// Whether certificates, PEM, come to their end: readers leave out one that does not.
fn is_whole(bytes: &[u8]) -> Result<(), String> {
    let is_whole = bytes
        .trim_ascii_end()
        .ends_with(b"-----END CERTIFICATE-----");
    is_whole
        .then_some(())
        .ok_or_else(|| "it is cut off".to_owned())
}
