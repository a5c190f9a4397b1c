//! `flotta-agent status`.

use flotta_bundle::release::Revision;
use jiff::Timestamp;
use serde::Serialize;

use super::screen::{self, View};
use super::{Answer, CliError, Format, print, print_json};
use crate::clock::Clock;
use crate::config::Config;
use crate::enrol::{EnrolError, reset};
use crate::identity::{self, Identity, Joined};
use crate::ledger::Ledger;
use crate::status::Status;

/// The release in force, from the ledger.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Release {
    pub(super) sequence: u64,
    pub(super) revision: Revision,
    pub(super) issued: Timestamp,
    /// When its manifest was completely applied, if it was.
    pub(super) applied: Option<Timestamp>,
}

#[derive(Serialize)]
struct Json<'a> {
    joined: &'a Joined,
    /// Absent when the agent is not running.
    status: Option<&'a Status>,
    release: Option<&'a Release>,
    well: bool,
}

pub(super) async fn run(config: &Config, format: Format) -> Result<Answer, CliError> {
    let folder = config.identity();
    let Some(joined) = identity::joined(&folder).map_err(EnrolError::from)? else {
        if crate::enrol::waiting_file(config).is_some() {
            let key = Identity::open(&folder)
                .ok()
                .map(|i| identity::short(&i.fingerprint()));
            print(&screen::waiting(key.as_deref()))?;
            return Ok(Answer::No);
        }
        return Err(EnrolError::NotJoined.into());
    };
    let ledger = Ledger::open(&config.state)?;
    let applied = ledger.applied();
    let release = ledger.accepted().map(|accepted| Release {
        sequence: accepted.release,
        revision: accepted.revision.clone(),
        issued: accepted.issued,
        applied: applied
            .filter(|a| a.manifest == accepted.manifest)
            .map(|a| a.since),
    });
    let clock = Clock::load(&config.clock());
    clock.ask(&config.root).await;
    let view = View {
        now: clock.now(),
        status: Status::read(&config.status())?,
        joined,
        release,
        asks: reset::waiting(config).map(|(join, identity)| {
            let key = identity::short(&identity.fingerprint());
            format!(
                "{} of fleet {} with key {key}",
                join.device, join.file.fleet
            )
        }),
        disk_used: disk_used(&config.state),
        synchronised: clock.synchronised(),
    };
    let well = view.trouble().is_none();
    match format {
        Format::Text => print(&screen::status(&view))?,
        Format::Json => print_json(&Json {
            joined: &view.joined,
            status: view.status.as_ref(),
            release: view.release.as_ref(),
            well,
        })?,
    }
    Ok(if well { Answer::Yes } else { Answer::No })
}

/// How full the file system under the agent's state is, in per cent.
fn disk_used(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let used = disk.f_blocks.checked_sub(disk.f_bfree)?;
    // as df(1) counts: space reserved for root is not free
    (used * 100).checked_div(used + disk.f_bavail)
}
