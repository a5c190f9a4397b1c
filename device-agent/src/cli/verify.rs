//! `flotta-agent verify`: checks everything again, from the signature to the files on disk.

use std::path::Path;

use flotta_bundle::verify::{verify_blob, verify_manifest, verify_offer};
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Manifest};

use super::{Answer, CliError, ledger, print};
use crate::config::Config;
use crate::enrol::EnrolError;
use crate::fetch;
use crate::identity;
use crate::ledger::Ledger;
use crate::policy;
use crate::pull::chain;

pub(super) fn run(config: &Config) -> Result<Answer, CliError> {
    let ledger = ledger(config)?;
    let joined = identity::joined(&config.identity()).map_err(EnrolError::from)?;
    let device = joined.ok_or(EnrolError::NotJoined)?.device;
    let (Some(memory), Some(accepted)) = (ledger.memory(), ledger.accepted()) else {
        print("no release has been accepted yet: there is nothing to verify\n")?;
        return Ok(Answer::Yes);
    };
    let offer = Offer {
        roots: Vec::new(),
        release: accepted.envelope.clone(),
        leaf: accepted.leaf.clone(),
        index: accepted.index,
        proof: accepted.proof.clone(),
        manifest: accepted.manifest,
    };
    let mut findings = Vec::new();
    match verify_offer(&offer, &device, memory) {
        Ok(_) => print(&format!(
            "release   {} is signed by trust root v{}, and its tree holds this device's leaf\n",
            accepted.release, memory.trust.version
        ))?,
        Err(refusal) => findings.push(refusal.problem().to_string()),
    }
    match manifest(&ledger, accepted.manifest) {
        Ok(manifest) => {
            let (policy, forbidden) = policy::problems(&config.policy(), &manifest);
            findings.extend(policy.map(|problem| problem.to_string()));
            if let Some(problem) = forbidden {
                // nothing of it is here, and that is as it should be
                print(&format!("refused   {problem}\n"))?;
                return said(&findings).map(|_| Answer::No);
            }
            let blobs = fetch::needed(accepted.manifest, &manifest);
            let count = blobs.len();
            findings.extend(
                blobs
                    .into_iter()
                    .filter_map(|digest| blob(&ledger, digest).err()),
            );
            findings.extend(files(&manifest, &config.root));
            print(&format!(
                "checked   {count} blobs, {} files on disk\n",
                manifest.files.len()
            ))?;
        }
        Err(why) => findings.push(why),
    }
    said(&findings)
}

fn said(findings: &[String]) -> Result<Answer, CliError> {
    for finding in findings {
        print(&format!("broken    {finding}\n"))?;
    }
    if findings.is_empty() {
        print("everything checks out\n")?;
        return Ok(Answer::Yes);
    }
    Ok(Answer::No)
}

pub(super) fn manifest(ledger: &Ledger, digest: Digest) -> Result<Manifest, String> {
    let bytes = ledger
        .blobs()
        .read(&digest)
        .map_err(|error| chain(&error))?;
    verify_manifest(&bytes, digest).map_err(|refusal| refusal.problem().to_string())
}

fn blob(ledger: &Ledger, digest: Digest) -> Result<(), String> {
    let bytes = ledger
        .blobs()
        .read(&digest)
        .map_err(|error| chain(&error))?;
    verify_blob(&bytes, digest).map_err(|refusal| refusal.problem().to_string())
}

/// Files on disk that are not what the manifest says.
fn files(manifest: &Manifest, root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for file in &manifest.files {
        match on_disk(root, file.path.as_str(), file.size) {
            Ok(Some(bytes)) if Digest::of(&bytes) == file.digest => {}
            Ok(Some(_)) => findings.push(format!("{} differs from the manifest", file.path)),
            Ok(None) => findings.push(format!("{} is missing", file.path)),
            Err(error) => findings.push(format!("{}: {error}", file.path)),
        }
    }
    findings
}

/// The content at a device path. A file longer than `size` is read one byte past it, so that it differs.
pub(super) fn on_disk(root: &Path, path: &str, size: u64) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let path = root.join(path.trim_start_matches('/'));
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Err(std::io::Error::other("not a regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(size + 1)
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
