//! Publishes releases without a server: `flotta render --key`.

use std::collections::BTreeMap;
use std::path::Path;

use flotta_bundle::FleetName;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::release::Revision;
use flotta_bundle::root::Role;
use flotta_renderer::Rendered;
use jiff::Timestamp;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::{PublishError, Published};
use crate::depot::Depot;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a release key: {1}")]
pub struct KeyFileError(String, String);

/// Reads a release key: an Ed25519 key as PKCS#8, PEM.
pub fn read_key(path: &Path) -> Result<SigningKey, KeyFileError> {
    let fail = |message: String| KeyFileError(path.display().to_string(), message);
    let key = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|error| fail(error.to_string()))?;
    SigningKey::from_pkcs8(key.secret_pkcs8_der()).map_err(|error| fail(error.to_string()))
}

/// Writes the next release to the depot in `out`, which is created if it does not exist. Returns its sequence.
pub async fn write(
    out: &Path,
    rendered: &Rendered,
    revision: Revision,
    fleet: &FleetName,
    key: &SigningKey,
    now: Timestamp,
) -> Result<u64, PublishError> {
    let depot = Depot::local(out)?;
    let role = Role::any_of([key.public()]);
    let previous = super::in_force(&depot, &role).await?;
    let none = BTreeMap::new();
    let (sequence, leaves) = match &previous {
        Some(previous) => (previous.release.sequence + 1, &previous.leaves),
        None => (1, &none),
    };
    let leaves = flotta_renderer::leaves(rendered, leaves);
    let release = Published::sign(fleet, key, sequence, revision, leaves, now);
    super::store(&depot, &rendered.blobs, &release).await?;
    Ok(sequence)
}
