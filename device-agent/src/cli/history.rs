//! `flotta-agent history`.

use super::{Answer, CliError, Format, ledger, print, print_json};
use crate::config::Config;
use crate::ledger::AcceptedRelease;

pub(super) fn run(config: &Config, format: Format) -> Result<Answer, CliError> {
    let ledger = ledger(config)?;
    match format {
        Format::Json => print_json(&ledger.history())?,
        Format::Text => print(&table(ledger.history()))?,
    }
    Ok(Answer::Yes)
}

/// A table of accepted releases, newest first.
pub(super) fn table(seen: &[AcceptedRelease]) -> String {
    let line = |seen: &AcceptedRelease| {
        let manifest = seen.manifest.short();
        format!("{:<7}  {manifest}  {:.0}\n", seen.sequence, seen.time)
    };
    let head = "RELEASE  MANIFEST      ISSUED\n".to_owned();
    std::iter::once(head)
        .chain(seen.iter().rev().map(line))
        .collect()
}
