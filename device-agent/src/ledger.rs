//! What the device remembers: what it accepted, which files and units belong to the fleet, and what happened. Every change is
//! durable (temporary file, fsync, rename) before anything acts on it.
//!
//! What it must not forget, its memory of trust and sequence, is kept twice: in `ledger/`, and in `identity/`, which it
//! belongs to. Any other file that is lost or damaged starts empty, is reported ([`Loss`]), and is rebuilt from the machine
//! or by the server.

mod blobs;
pub(crate) mod file;
mod log;
mod shape;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flotta_bundle::verify::{Accepted, Memory};
use flotta_bundle::wire::Offer;
use jiff::Timestamp;
use serde::Serialize;

pub use blobs::{Blobs, Partial};
pub use file::{Damage, LedgerError, Loss};
pub use shape::{AcceptedRelease, AcceptedState, AppliedState, Due, Owned, OwnedUnit};

use crate::config::make_private;
use crate::durable;
use file::{Found, MAX_BYTES, find};
use shape::{History, HostState, Log, Trust, VERSION};

/// Most accepted releases in the history, which is there to be compared with another device's.
const MAX_HISTORY: usize = 1_000;
/// The two copies of the trust file, in the order in which they are written.
const TRUST: [&str; 2] = ["identity/trust.json", "ledger/trust.json"];

/// The ledger. It has one owner, which holds the state directory.
#[derive(Debug)]
pub struct Ledger {
    state: PathBuf,
    folder: PathBuf,
    trust: Option<Trust>,
    /// Why there is no trust; before the device has joined that is not a loss.
    trust_lost: Option<String>,
    host: HostState,
    log: Log,
    /// The id of the last event on disk.
    saved: u64,
    /// Whether the log has changes that could not be written.
    is_log_unsaved: bool,
    history: History,
    blobs: Blobs,
    /// The losses that were found when it was opened.
    losses: Vec<Loss>,
    is_settled: bool,
    /// Whether the device has joined.
    has_joined: bool,
    /// Files whose content on disk is out of date.
    stale: BTreeSet<&'static str>,
}

/// What is found while the ledger is opened.
#[derive(Default)]
struct Opening {
    losses: Vec<Loss>,
    stale: BTreeSet<&'static str>,
    /// Whether some file says that all files have been written at least once.
    is_old: bool,
}

impl Opening {
    /// Notes what is wrong with a file; `version` returns the version that it has.
    fn note<T>(
        &mut self,
        file: &'static str,
        found: &Found<T>,
        version: impl FnOnce(&T) -> u32,
        then: &'static str,
    ) {
        match found {
            Found::Whole(whole) if version(whole) >= VERSION => self.is_old = true,
            Found::Whole(_) => {
                self.stale.insert(file);
            }
            other => {
                self.stale.insert(file);
                self.losses.extend(other.how().map(|how| Loss {
                    file: file.to_owned(),
                    how,
                    then,
                }));
            }
        }
    }
}

impl Ledger {
    /// Opens the ledger in the agent's state directory. A file that cannot be read starts empty; nothing is written before
    /// [`Self::settle`].
    pub fn open(state: &Path) -> Result<Self, LedgerError> {
        let folder = state.join("ledger");
        make_private(&folder).map_err(LedgerError::write(&folder))?;
        let mut opening = Opening::default();
        let [home, here] = consistent([
            look(state, TRUST[0], Trust::parse)?,
            look(state, TRUST[1], Trust::parse)?,
        ]);
        let version = |trust: &Trust| trust.version;
        let again = "it is restored from its copy";
        opening.note(TRUST[0], &home, version, again);
        opening.note(TRUST[1], &here, version, again);
        let host = look(state, "ledger/machine.json", HostState::parse)?;
        let then = "the fleet's files and units are found again on the machine";
        opening.note("ledger/machine.json", &host, |h| h.version, then);
        let log = look(state, "ledger/events.json", Log::parse)?;
        let then = "a new log is started, and events that were not sent yet are lost";
        opening.note("ledger/events.json", &log, |log| log.version, then);
        let history = look(state, "ledger/history.json", History::parse)?;
        let then = "it starts empty";
        opening.note("ledger/history.json", &history, |h| h.version, then);
        // before a device has joined, missing files were never written
        if !opening.is_old {
            let damaged = |found: &Loss| found.how != Damage::Gone;
            opening.losses.retain(damaged);
        }
        let mut is_other = false;
        if let (Found::Whole(home), Found::Whole(here)) = (&home, &here)
            && home != here
        {
            opening.stale.extend(TRUST);
            let is_new = home.memory.highest.is_none();
            is_other = is_new && home.memory.trust != here.memory.trust;
        }
        let how =
            |found: &Found<Trust>| found.how().map_or_else(String::new, |how| how.to_string());
        let lost = format!("{} {}, {} {}", TRUST[0], how(&home), TRUST[1], how(&here));
        let trust = newest(home.whole(), here.whole());
        if trust.is_none() {
            opening.losses.retain(|loss| !TRUST.contains(&&*loss.file));
        }
        // A device that joined another fleet must not send it the previous fleet's events.
        let log = log.whole().filter(|_| !is_other);
        let log = log.unwrap_or_else(|| {
            opening.stale.insert("ledger/events.json");
            Log::new()
        });
        let mut host = host.whole().unwrap_or_default();
        if is_other {
            opening.stale.insert("ledger/machine.json");
            host.leave();
        }
        Ok(Self {
            trust_lost: trust.is_none().then_some(lost),
            trust,
            host,
            saved: log.last,
            log,
            is_log_unsaved: false,
            history: history.whole().unwrap_or_default(),
            blobs: Blobs::open(state)?,
            losses: opening.losses,
            is_settled: opening.is_old,
            has_joined: opening.is_old,
            stale: opening.stale,
            state: state.to_owned(),
            folder,
        })
    }

    /// Writes files that were lost, or written by an older agent, in their current form; notes these losses and `others`. The
    /// caller must hold the state directory, and the device must have joined.
    pub fn settle(&mut self, others: Vec<Loss>, now: Timestamp) -> Result<(), LedgerError> {
        self.has_joined = true;
        let mut losses = std::mem::take(&mut self.losses);
        losses.extend(others);
        for loss in &losses {
            tracing::warn!(problem = %loss.problem(), "state");
            // an event that cannot be written here is written below
            let _ = self.note(now, "Repaired", loss.problem().to_string(), true);
        }
        for file in self.stale.clone() {
            self.write(file)?;
            self.stale.remove(file);
        }
        self.is_settled = true;
        Ok(())
    }

    /// Writes the current content of a file.
    fn write(&mut self, file: &'static str) -> Result<(), LedgerError> {
        match file {
            "ledger/machine.json" => self.save("machine.json", &self.host.json()),
            "ledger/events.json" => self.save_log(),
            "ledger/history.json" => self.save_history(self.history.releases.clone()),
            trust => match &self.trust {
                Some(kept) => self.save_at(&self.state.join(trust), &kept.json()),
                None => Ok(()),
            },
        }
    }

    /// The memory that [`flotta_bundle::verify`] needs; none before the device has joined, or when it was lost.
    pub fn memory(&self) -> Option<&Memory> {
        self.trust.as_ref().map(|trust| &trust.memory)
    }

    /// Whether all files of the state have been written at least once, so that a missing file was lost.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Why the trust was lost, if it was.
    pub fn trust_lost(&self) -> Option<&str> {
        self.trust_lost.as_deref().filter(|_| self.has_joined)
    }

    /// Starts a memory: the device has joined, and this trust root is believed from now on.
    pub fn begin(&mut self, memory: Memory) -> Result<(), LedgerError> {
        // A device that joined another fleet is not bound by the previous one's releases, and sends nothing about them.
        let is_other = memory.highest.is_none();
        if is_other && !self.log.events.is_empty() {
            self.log = Log::new();
        }
        let before = self.trust.as_ref().map(|trust| &trust.memory.trust);
        if is_other && before.is_some_and(|before| *before != memory.trust) {
            self.host.leave();
        }
        for file in [
            "ledger/machine.json",
            "ledger/events.json",
            "ledger/history.json",
        ] {
            self.write(file)?;
            self.stale.remove(file);
        }
        let accepted = self.trust.take().and_then(|trust| trust.accepted);
        let accepted = accepted.filter(|_| !is_other);
        self.keep_trust(Trust::new(memory, accepted))?;
        self.stale.clear();
        self.is_settled = true;
        Ok(())
    }

    /// Writes the trust for a new identity next to its keys in `folder`. What was accepted stays, unless the memory is of
    /// another fleet.
    pub fn hand_over(&self, memory: Memory, folder: &Path) -> Result<(), LedgerError> {
        let accepted = self.accepted().filter(|_| memory.highest.is_some());
        let trust = Trust::new(memory, accepted.cloned());
        self.save_at(&folder.join("trust.json"), &trust.json())
    }

    /// The accepted state to work towards.
    pub fn accepted(&self) -> Option<&AcceptedState> {
        self.trust.as_ref()?.accepted.as_ref()
    }

    /// Saves a verified offer: memory and goal in one write.
    pub fn accept(&mut self, offer: &Offer, accepted: &Accepted) -> Result<(), LedgerError> {
        let release = &accepted.release;
        let state = AcceptedState {
            release: release.sequence,
            revision: release.revision.clone(),
            issued: release.issued,
            expires: release.expires,
            manifest: accepted.manifest,
            envelope: offer.release.clone(),
            leaf: offer.leaf.clone(),
            index: offer.index,
            proof: offer.proof.clone(),
        };
        let seen = AcceptedRelease {
            sequence: release.sequence,
            root: release.tree.root,
            manifest: accepted.manifest,
            time: release.issued,
        };
        if self.history.releases.last() != Some(&seen) {
            let mut releases = self.history.releases.clone();
            releases.push(seen);
            let excess = releases.len().saturating_sub(MAX_HISTORY);
            releases.drain(..excess);
            self.save_history(releases)?;
        }
        let mut trust = Trust::new(accepted.memory.clone(), Some(state));
        if let Some(before) = &self.trust {
            trust.rest.clone_from(&before.rest);
        }
        self.keep_trust(trust)
    }

    fn save_history(&mut self, releases: Vec<AcceptedRelease>) -> Result<(), LedgerError> {
        let mut history = self.history.clone();
        (history.version, history.releases) = (VERSION, releases);
        self.save("history.json", &history)?;
        self.history = history;
        Ok(())
    }

    /// Writes both copies: after a crash in between, the newer of the two counts.
    fn keep_trust(&mut self, trust: Trust) -> Result<(), LedgerError> {
        let json = trust.json();
        let paths = TRUST.map(|file| self.state.join(file));
        let saved = paths.iter().try_for_each(|path| self.save_at(path, &json));
        if saved.is_ok() || self.trust.is_none() {
            self.trust = Some(trust);
            self.trust_lost = None;
        }
        saved
    }

    /// The last manifest that was completely applied.
    pub fn applied(&self) -> Option<&AppliedState> {
        self.host.applied.as_ref()
    }

    /// The files and units that belong to the fleet.
    pub fn owned(&self) -> &Owned {
        &self.host.owned
    }

    /// Sets what belongs to the fleet, and with `applied`, that a manifest is completely applied. One write.
    pub fn own(&mut self, owned: Owned, applied: Option<AppliedState>) -> Result<(), LedgerError> {
        let mut state = self.host.clone();
        state.applied = applied.or(state.applied);
        state.owned = owned;
        self.save("machine.json", &state.json())?;
        self.host = state;
        Ok(())
    }

    /// The server's addresses from the last manifest that was completely fetched, so that the device finds its server even when
    /// the manifest is lost.
    pub fn servers(&self) -> &[String] {
        &self.host.servers
    }

    /// Saves the server's addresses.
    pub fn keep_servers(&mut self, servers: &[String]) -> Result<(), LedgerError> {
        if self.host.servers == servers {
            return Ok(());
        }
        let mut state = self.host.clone();
        state.servers = servers.to_vec();
        self.save("machine.json", &state.json())?;
        self.host = state;
        Ok(())
    }

    /// The blob store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Writes a file of the ledger.
    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LedgerError> {
        self.save_at(&self.folder.join(name), value)
    }

    /// Writes a file. On a full disk, blobs that can be fetched again are removed for it.
    fn save_at<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), LedgerError> {
        file::save(path, value).or_else(|error| {
            if !error.is_full() || self.make_room().is_err() {
                return Err(error);
            }
            file::save(path, value)
        })
    }

    /// Removes blobs that are needed neither by the manifest applied last nor by an accepted one that is completely fetched.
    fn make_room(&self) -> Result<(), LedgerError> {
        let applied = self.applied().map(|applied| applied.manifest);
        if applied.is_some_and(|applied| self.blobs.read(&applied).is_err()) {
            // what it needs is not known
            return Ok(());
        }
        let mut keep: BTreeSet<_> = applied
            .into_iter()
            .flat_map(|applied| self.blobs.needed(applied))
            .collect();
        if let Some(accepted) = self.accepted() {
            let needed = self.blobs.needed(accepted.manifest);
            // it can be applied without the server
            if needed.iter().all(|digest| self.blobs.has(digest)) {
                keep.extend(needed);
            }
        }
        self.blobs.collect(&keep)
    }

    /// Removes half-written files that a power cut left. The caller must hold the state directory.
    pub fn sweep(&self) -> Result<(), LedgerError> {
        for folder in [self.folder.clone(), self.state.join("identity")] {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(LedgerError::read(&folder))?,
            };
            for entry in entries {
                let path = entry.map_err(LedgerError::read(&folder))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(durable::TEMPORARY) {
                    durable::remove(&path).map_err(LedgerError::write(&path))?;
                }
            }
        }
        Ok(())
    }

    /// Accepted releases, oldest first.
    pub fn history(&self) -> &[AcceptedRelease] {
        &self.history.releases
    }
}

/// Treats an inconsistent copy of the trust as damaged if the other copy is consistent.
fn consistent(copies: [Found<Trust>; 2]) -> [Found<Trust>; 2] {
    let is_good =
        |copy: &Found<Trust>| matches!(copy, Found::Whole(trust) if trust.is_consistent());
    if !copies.iter().any(is_good) {
        return copies;
    }
    copies.map(|copy| match copy {
        Found::Whole(trust) if !trust.is_consistent() => {
            Found::Damaged("it is inconsistent".to_owned())
        }
        copy => copy,
    })
}

/// Chooses between the two copies of the trust: that with the identity, which belongs to the current identity, unless the
/// ledger's is the same trust and has seen more.
fn newest(home: Option<Trust>, here: Option<Trust>) -> Option<Trust> {
    let seen = |trust: &Trust| {
        let highest = trust.memory.highest.map(|highest| highest.sequence);
        (highest, trust.accepted.is_some())
    };
    match (home, here) {
        (Some(home), Some(here))
            if home.memory.trust == here.memory.trust && seen(&here) > seen(&home) =>
        {
            Some(here)
        }
        (home, here) => home.or(here),
    }
}

fn look<T>(
    state: &Path,
    file: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Found<T>, LedgerError> {
    let path = state.join(file);
    find(&path, MAX_BYTES, parse).map_err(LedgerError::read(&path))
}

#[cfg(test)]
mod tests;
