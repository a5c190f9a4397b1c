//! What the device remembers: what it accepted, what of the machine is the fleet's, what happened. Every change is whole on
//! disk (written beside, synced, renamed) before anything acts on it.

mod blobs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flotta_bundle::code::{MAX_MESSAGE, Problem, cut};
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::Revision;
use flotta_bundle::verify::{Accepted, Memory};
use flotta_bundle::wire::{Event, Offer};
use flotta_bundle::{DevicePath, Digest};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use blobs::{Blobs, Partial};

use crate::durable;
use crate::settings::make_private;

/// Largest file of the ledger: 2,000 units and 10,000 files with long names fit many times.
const MAX_BYTES: usize = 16 << 20;
/// Events kept, to be told and to tell no event twice; then the oldest go.
const MAX_EVENTS: usize = 200;
/// After so long what goes on is noted again.
const REMINDER: SignedDuration = SignedDuration::from_hours(24);
/// Accepted releases kept, to compare with another device's.
const MAX_HISTORY: usize = 1_000;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct LedgerError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LedgerError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self {
            what: "cannot read",
            path,
            source,
        }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self {
            what: "cannot write",
            path,
            source,
        }
    }

    /// Whether the disk has no space.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }
}

/// What was accepted last, with all that proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedState {
    /// The release's sequence.
    pub release: u64,
    /// What it was made from.
    pub revision: Revision,
    /// When it was signed.
    pub issued: Timestamp,
    /// Until when it is to be believed.
    pub expires: Timestamp,
    /// The manifest to work towards.
    pub manifest: Digest,
    /// The release, as signed.
    pub envelope: Envelope,
    /// This device's leaf, as it is in the tree.
    pub leaf: String,
    /// Its place.
    pub index: u64,
    /// The hashes that lead from it to the root.
    pub proof: Vec<Digest>,
}

/// The last manifest that was applied whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedState {
    /// Its digest.
    pub manifest: Digest,
    /// The release it came with.
    pub release: u64,
    /// When it was done.
    pub since: Timestamp,
}

/// An accepted release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Its sequence.
    pub sequence: u64,
    /// The root of its tree.
    pub root: Digest,
    /// The manifest it gave this device.
    pub manifest: Digest,
    /// When it was accepted: the time of the release, which no wrong clock of the device changes.
    pub time: Timestamp,
}

/// What on the machine is the fleet's: nothing else is ever changed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// Files, and the workload each belongs to (empty for none).
    pub files: BTreeMap<DevicePath, String>,
    /// Units.
    pub units: BTreeMap<String, OwnedUnit>,
}

/// A unit that is the fleet's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedUnit {
    /// The workload it belongs to.
    pub workload: String,
    /// Digest over the files it was, or is to be, started with.
    pub inputs: Digest,
    /// Set from before its files change until it is known to run with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Due>,
}

/// How far a change of a unit has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Due {
    /// Its files are being written: whatever runs may be old.
    Files,
    /// systemd knows the new files. Whatever was started since this invocation (a unit's `InvocationID`) has them.
    Since(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    memory: Memory,
    accepted: Option<AcceptedState>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineState {
    applied: Option<AppliedState>,
    #[serde(default)]
    owned: Owned,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    last: u64,
    /// The server has kept events up to this one.
    #[serde(default)]
    kept: u64,
    /// Those it has not, and before them the newest that it has: they are not noted again either.
    events: Vec<Event>,
}

/// The ledger. It has one owner, who holds the state directory.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    trust: Option<Trust>,
    machine: MachineState,
    log: Log,
    /// The last event that is on disk.
    saved: u64,
    /// The log has changed and could not be written.
    is_log_unsaved: bool,
    history: Vec<Seen>,
    blobs: Blobs,
}

impl Ledger {
    /// Opens the ledger in the agent's state directory, or makes it.
    pub fn open(state: &Path) -> Result<Self, LedgerError> {
        let folder = state.join("ledger");
        make_private(&folder).map_err(LedgerError::write(&folder))?;
        let history: Option<Vec<Seen>> = load(&folder, "history.json")?;
        let log: Log = load(&folder, "events.json")?.unwrap_or_default();
        Ok(Self {
            trust: load(&folder, "trust.json")?,
            machine: load(&folder, "machine.json")?.unwrap_or_default(),
            saved: log.last,
            log,
            is_log_unsaved: false,
            history: history.unwrap_or_default(),
            blobs: Blobs::open(state)?,
            folder,
        })
    }

    /// What [`flotta_bundle::verify`] needs; none before the device has joined.
    pub fn memory(&self) -> Option<&Memory> {
        self.trust.as_ref().map(|trust| &trust.memory)
    }

    /// The device has joined: this trust root is believed from now on.
    pub fn begin(&mut self, memory: Memory) -> Result<(), LedgerError> {
        // A device that joined another fleet owes nothing to the last one's releases, and tells it nothing of them.
        let is_other = memory.highest.is_none();
        if is_other && !self.log.events.is_empty() {
            self.log.events.clear();
            self.log.kept = self.log.last;
            self.save_log()?;
        }
        let accepted = self.trust.take().and_then(|trust| trust.accepted);
        let accepted = accepted.filter(|_| !is_other);
        self.keep_trust(Trust { memory, accepted })
    }

    /// What to work towards.
    pub fn accepted(&self) -> Option<&AcceptedState> {
        self.trust.as_ref()?.accepted.as_ref()
    }

    /// Keeps an offer that was verified: memory and goal in one write.
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
        let seen = Seen {
            sequence: release.sequence,
            root: release.tree.root,
            manifest: accepted.manifest,
            time: release.issued,
        };
        if self.history.last() != Some(&seen) {
            let mut history = self.history.clone();
            history.push(seen);
            let excess = history.len().saturating_sub(MAX_HISTORY);
            history.drain(..excess);
            self.save("history.json", &history)?;
            self.history = history;
        }
        self.keep_trust(Trust {
            memory: accepted.memory.clone(),
            accepted: Some(state),
        })
    }

    fn keep_trust(&mut self, trust: Trust) -> Result<(), LedgerError> {
        let saved = self.save("trust.json", &trust);
        if saved.is_ok() || self.trust.is_none() {
            self.trust = Some(trust);
        }
        saved
    }

    /// The last manifest that was applied whole.
    pub fn applied(&self) -> Option<&AppliedState> {
        self.machine.applied.as_ref()
    }

    /// What on the machine is the fleet's.
    pub fn owned(&self) -> &Owned {
        &self.machine.owned
    }

    /// Changes what is the fleet's, and with `applied` says that a manifest is applied whole. One write.
    pub fn own(&mut self, owned: Owned, applied: Option<AppliedState>) -> Result<(), LedgerError> {
        let state = MachineState {
            applied: applied.or(self.machine.applied),
            owned,
        };
        self.save("machine.json", &state)?;
        self.machine = state;
        Ok(())
    }

    /// The content store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Notes an event for the server, its message cut at 1,024 characters. What was said within a day, and since something was
    /// applied, is not said again. An event that cannot be written is kept in memory, and written with the next.
    pub fn note(
        &mut self,
        time: Timestamp,
        reason: &str,
        mut message: String,
        warning: bool,
    ) -> Result<(), LedgerError> {
        cut(&mut message, MAX_MESSAGE);
        let is_applied = |event: &Event| event.reason == "Applied" && reason != "Applied";
        if self.has_said(time, reason, is_applied, |said| said == message) {
            return self.save_unsaved();
        }
        self.push(time, reason, message, warning)
    }

    /// Notes that a workload failed; not when that was said within a day, and since something of it was applied. What follows a
    /// colon in the message makes it no other failure: the workload's own words, or Podman's, may have another time or port in
    /// them each time.
    pub fn note_failure(
        &mut self,
        time: Timestamp,
        workload: &str,
        problem: &Problem,
    ) -> Result<(), LedgerError> {
        let (what, _) = problem
            .message
            .split_once(": ")
            .unwrap_or((&problem.message, ""));
        let mut failure = format!("{workload}: {}: {what}", problem.code);
        cut(&mut failure, MAX_MESSAGE);
        let is_it = |said: &str| {
            let rest = said.strip_prefix(&failure);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
        };
        // `release 7: restarted web; started db, radio`
        let is_applied = |event: &Event| {
            let mut words = event.message.split([' ', ',', ';']);
            event.reason == "Applied" && words.any(|word| word == workload)
        };
        if self.has_said(time, "Failed", is_applied, is_it) {
            return self.save_unsaved();
        }
        let mut message = format!("{workload}: {}: {}", problem.code, problem.message);
        cut(&mut message, MAX_MESSAGE);
        self.push(time, "Failed", message, true)
    }

    fn has_said(
        &self,
        time: Timestamp,
        reason: &str,
        is_applied: impl Fn(&Event) -> bool,
        is_it: impl Fn(&str) -> bool,
    ) -> bool {
        let events = self.log.events.iter().rev();
        let mut since_applied = events.take_while(|event| !is_applied(event));
        since_applied.any(|event| {
            event.reason == reason
                && is_it(&event.message)
                && time.duration_since(event.time).abs() < REMINDER
        })
    }

    fn push(
        &mut self,
        time: Timestamp,
        reason: &str,
        message: String,
        warning: bool,
    ) -> Result<(), LedgerError> {
        self.log.last += 1;
        self.log.events.push(Event {
            id: self.log.last,
            time,
            reason: reason.to_owned(),
            message,
            warning,
        });
        let excess = self.log.events.len().saturating_sub(MAX_EVENTS);
        self.log.events.drain(..excess);
        self.save_log()
    }

    /// Events that the server has not kept yet, oldest first. Only those on disk: the number of one that a power cut took
    /// would be given again, and the server keeps each number once.
    pub fn unacknowledged(&self) -> &[Event] {
        let after = |id: u64| self.log.events.partition_point(|event| event.id <= id);
        &self.log.events[after(self.log.kept)..after(self.saved)]
    }

    /// The server has kept events up to this id.
    pub fn acknowledge(&mut self, up_to: u64) -> Result<(), LedgerError> {
        let up_to = up_to.min(self.saved);
        if up_to <= self.log.kept {
            return self.save_unsaved();
        }
        self.log.kept = up_to;
        self.save_log()
    }

    /// Writes the events that could not be written.
    pub fn save_unsaved(&mut self) -> Result<(), LedgerError> {
        if self.is_log_unsaved {
            self.save_log()
        } else {
            Ok(())
        }
    }

    fn save_log(&mut self) -> Result<(), LedgerError> {
        let saved = self.save("events.json", &self.log);
        self.is_log_unsaved = saved.is_err();
        if saved.is_ok() {
            self.saved = self.log.last;
        }
        saved
    }

    /// Writes a file of the ledger. On a full disk, what can be had again gives way to it.
    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LedgerError> {
        save(&self.folder, name, value).or_else(|error| {
            if !error.is_full() || self.make_room().is_err() {
                return Err(error);
            }
            save(&self.folder, name, value)
        })
    }

    /// Removes content that neither the manifest that was applied last nor an accepted one that is there whole needs.
    fn make_room(&self) -> Result<(), LedgerError> {
        let applied = self.applied().map(|applied| applied.manifest);
        if applied.is_some_and(|applied| self.blobs.read(&applied).is_err()) {
            // nobody knows what it needs
            return Ok(());
        }
        let mut keep: BTreeSet<_> = applied
            .into_iter()
            .flat_map(|applied| self.blobs.needed(applied))
            .collect();
        if let Some(accepted) = self.accepted() {
            let needed = self.blobs.needed(accepted.manifest);
            // without the server, too, it can be applied
            if needed.iter().all(|digest| self.blobs.has(digest)) {
                keep.extend(needed);
            }
        }
        self.blobs.collect(&keep)
    }

    /// Removes what a power cut left half-written. For the owner of the state directory alone.
    pub fn sweep(&self) -> Result<(), LedgerError> {
        for entry in fs::read_dir(&self.folder).map_err(LedgerError::read(&self.folder))? {
            let path = entry.map_err(LedgerError::read(&self.folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(durable::TEMPORARY) {
                durable::remove(&path).map_err(LedgerError::write(&path))?;
            }
        }
        Ok(())
    }

    /// Accepted releases, oldest first.
    pub fn history(&self) -> &[Seen] {
        &self.history
    }
}

fn load<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, LedgerError> {
    let path = folder.join(name);
    let Some(bytes) = durable::read(&path, MAX_BYTES).map_err(LedgerError::read(&path))? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes).map_err(io::Error::from);
    read.map(Some).map_err(LedgerError::read(&path))
}

fn save<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<(), LedgerError> {
    let path = folder.join(name);
    let written = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|bytes| durable::bounded(bytes, MAX_BYTES))
        .and_then(|bytes| durable::write(&path, &bytes, 0o600));
    written.map_err(LedgerError::write(&path))
}

#[cfg(test)]
mod tests;
