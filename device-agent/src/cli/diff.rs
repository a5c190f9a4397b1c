//! `flotta-agent diff`: what on the machine differs from the accepted release.

use similar::TextDiff;

use super::verify::{manifest, on_disk};
use super::{Answer, CliError, ledger, print};
use crate::config::Config;
use crate::converge::{self, Host};
use crate::policy;
use flotta_bundle::code::{self, Problem};

/// Largest file, in bytes, that is shown line by line.
const MAX_TEXT: usize = 1 << 20;

pub(super) async fn run(config: &Config) -> Result<Answer, CliError> {
    let ledger = ledger(config)?;
    let Some(accepted) = ledger.accepted() else {
        print("no release has been accepted yet: there is nothing to compare with\n")?;
        return Ok(Answer::Yes);
    };
    let manifest = manifest(&ledger, accepted.manifest)
        .map_err(|why| CliError::Problem(Box::new(Problem::new(code::LEDGER, why))))?;
    let (policy, forbidden) = policy::problems(&config.policy(), &manifest);
    for problem in policy.iter().chain(&forbidden) {
        print(&format!("{problem}\n"))?;
    }
    if forbidden.is_some() {
        // none of it is fetched, and nothing will change
        return Ok(Answer::No);
    }
    let mut text = String::new();
    for file in &manifest.files {
        let path = file.path.as_str();
        let new = ledger.blobs().read(&file.digest)?;
        let old = on_disk(&config.root, path, (MAX_TEXT as u64).max(file.size))?;
        text.push_str(&file_diff(path, old.as_deref(), &new));
    }
    let mut host = Host::open(config).await.map_err(|error| {
        CliError::Problem(Box::new(Problem::new(code::BACKEND, error.to_string())))
    })?;
    let plan = converge::plan_only(&manifest, &ledger, &mut host).await;
    text.push_str(&plan.to_string());
    if text.is_empty() {
        return Ok(Answer::Yes);
    }
    print(&text)?;
    Ok(Answer::No)
}

/// A unified diff from the file on disk to the wanted one; empty when they are the same.
pub(super) fn file_diff(path: &str, old: Option<&[u8]>, new: &[u8]) -> String {
    if old == Some(new) {
        return String::new();
    }
    let label = if old.is_some() { path } else { "/dev/null" };
    let text = |bytes| {
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text: &&str| text.len() <= MAX_TEXT)
    };
    match (text(old.unwrap_or_default()), text(new)) {
        (Some(old), Some(new)) => TextDiff::from_lines(old, new)
            .unified_diff()
            .context_radius(3)
            .header(label, path)
            .to_string(),
        _ => format!("Binary files {label} and {path} differ\n"),
    }
}
