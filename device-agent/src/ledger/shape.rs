//! What the ledger's files hold. Each says its version. Whoever reads one ignores what it does not know and keeps it when it
//! writes the file again: a machine whose system is rolled back runs an older agent on a newer ledger. What the agent
//! remembers of trust and sequence ([`Memory`]) is strict: it never changes its shape, and what is new is kept next to it.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::Unit;
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::verify::Memory;
use flotta_bundle::wire::Event;
use flotta_bundle::{DevicePath, Digest, Owner};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The version of the files that this program writes. Those without one (0) were written before there was any.
pub(super) const VERSION: u32 = 1;

/// What was accepted last, with all that proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Files, and the object each belongs to.
    pub files: BTreeMap<DevicePath, Owner>,
    /// Units.
    pub units: BTreeMap<String, OwnedUnit>,
}

impl Owned {
    /// Whether nothing is known of what a unit was started with.
    pub fn is_unknown(&self, unit: &Unit) -> bool {
        let known = self.units.get(&unit.name);
        known.is_none_or(|known| known.inputs == OwnedUnit::unknown_inputs())
    }
}

/// A unit that is the fleet's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedUnit {
    /// The object it belongs to.
    pub workload: Owner,
    /// Digest over the files it was, or is to be, started with.
    pub inputs: Digest,
    /// Set from before its files change until it is known to run with them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "due"
    )]
    pub due: Option<Due>,
}

impl OwnedUnit {
    /// A unit that was found again, and of which it is not known what it was started with.
    pub fn found(workload: Owner) -> Self {
        Self {
            workload,
            inputs: Self::unknown_inputs(),
            due: None,
        }
    }

    /// In place of inputs that are not known: no unit has it, for it is the digest of no list of files.
    fn unknown_inputs() -> Digest {
        Digest::of(b"unknown")
    }
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

/// A state of change that this program does not know is one of which it knows nothing.
fn due<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Due>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or(Some(Due::Files)))
}

/// `trust.json`, kept twice: in the ledger, and with the identity that the trust belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trust {
    pub(super) version: u32,
    pub(super) memory: Memory,
    /// None as well when it was written by a program that says it in another way: it is asked for anew.
    pub(super) accepted: Option<AcceptedState>,
    pub(super) rest: Map<String, Value>,
}

impl Trust {
    pub(super) fn new(memory: Memory, accepted: Option<AcceptedState>) -> Self {
        Self {
            version: VERSION,
            memory,
            accepted,
            rest: Map::new(),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = object(bytes)?;
        let memory = rest.remove("memory").unwrap_or_default();
        Ok(Self {
            version: version(&mut rest),
            memory: serde_json::from_value(memory).map_err(|error| error.to_string())?,
            accepted: take(&mut rest, "accepted"),
            rest,
        })
    }

    /// Whether what was accepted last is the highest release; as the release itself says it, too, if the keys in force signed it.
    pub(super) fn is_consistent(&self) -> bool {
        let Some(accepted) = &self.accepted else {
            return true;
        };
        let keys = &self.memory.trust.release;
        let signed = accepted
            .envelope
            .verify(release::PAYLOAD_TYPE, &keys.keys, keys.threshold);
        let signed = signed.ok().and_then(|bytes| Release::parse(&bytes).ok());
        self.memory.highest.is_some_and(|highest| {
            highest.sequence == accepted.release
                && signed.is_none_or(|signed| {
                    (signed.sequence, signed.tree.root) == (highest.sequence, highest.root)
                })
        })
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        with(
            &self.rest,
            [
                ("memory", json(&self.memory)),
                ("accepted", json(&self.accepted)),
            ],
        )
    }
}

/// `machine.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HostState {
    pub(super) version: u32,
    pub(super) applied: Option<AppliedState>,
    pub(super) owned: Owned,
    /// Where the server is, as the last manifest said that was there whole.
    pub(super) servers: Vec<String>,
    /// Files and units that a newer program owns in a way unknown here.
    files: Map<String, Value>,
    units: Map<String, Value>,
    rest: Map<String, Value>,
}

impl HostState {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = object(bytes)?;
        let mut owned: Map<String, Value> = take(&mut rest, "owned").unwrap_or_default();
        let mut state = Self {
            version: version(&mut rest),
            applied: take(&mut rest, "applied"),
            servers: take(&mut rest, "servers").unwrap_or_default(),
            files: take(&mut owned, "files").unwrap_or_default(),
            units: take(&mut owned, "units").unwrap_or_default(),
            rest,
            owned: Owned::default(),
        };
        let Self {
            files,
            units,
            owned,
            ..
        } = &mut state;
        files.retain(|path, said| match (path.parse(), whose(said)) {
            (Ok(path), Some(object)) => {
                owned.files.insert(path, object);
                false
            }
            _ => true,
        });
        units.retain(|name, unit| {
            let known = serde_json::from_value(unit.clone());
            known
                .map(|known| owned.units.insert(name.clone(), known))
                .is_err()
        });
        Ok(state)
    }

    /// Forgets what another fleet's manifest said. What is on the machine stays the agent's, to keep or to remove.
    pub(super) fn leave(&mut self) {
        self.applied = None;
        self.servers.clear();
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        let (mut files, mut units) = (self.files.clone(), self.units.clone());
        for (path, owner) in &self.owned.files {
            files.insert(path.to_string(), json(owner));
        }
        for (name, unit) in &self.owned.units {
            units.insert(name.clone(), json(unit));
        }
        let mut owned = Map::new();
        owned.insert("files".to_owned(), Value::Object(files));
        owned.insert("units".to_owned(), Value::Object(units));
        with(
            &self.rest,
            [
                ("applied", json(&self.applied)),
                ("servers", json(&self.servers)),
                ("owned", Value::Object(owned)),
            ],
        )
    }
}

/// Whose a file is. The first programs wrote nothing for one of no workload.
fn whose(said: &Value) -> Option<Owner> {
    match said.as_str()? {
        "" => Some(Owner::device().clone()),
        object => object.parse().ok(),
    }
}

/// `events.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) version: u32,
    /// Tells this log from every other: numbers begin anew in a new one.
    #[serde(default)]
    pub(super) id: String,
    pub(super) last: u64,
    /// The server has kept events up to this one.
    #[serde(default)]
    pub(super) kept: u64,
    /// Those it has not, and before them the newest that it has: they are not noted again either.
    pub(super) events: Vec<Event>,
    /// What they are about, by their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) about: BTreeMap<u64, About>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What an event is about. The server is not told: it tells the log which failures are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The workloads that something was done for, or the one that failed.
    #[serde(default)]
    pub(super) workloads: BTreeSet<String>,
    /// Code and message of the failure, without its detail.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) failure: String,
}

impl Log {
    /// An empty log.
    pub(super) fn new() -> Self {
        Self {
            id: new_id(),
            ..Self::default()
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut log: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if log.id.is_empty() {
            log.id = new_id();
        }
        let newest = log.events.last().map_or(0, |event| event.id);
        if log.events.windows(2).any(|two| two[0].id >= two[1].id) {
            return Err("its events are out of order".to_owned());
        }
        if newest.max(log.kept) > log.last {
            return Err("its numbers contradict each other".to_owned());
        }
        Ok(log)
    }
}

/// 128 random bits, in hex.
fn new_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// `history.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct History {
    #[serde(default)]
    pub(super) version: u32,
    pub(super) releases: Vec<Seen>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl History {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        // the list alone: version 0
        if bytes.first() == Some(&b'[') {
            let releases = serde_json::from_slice(bytes).map_err(wrong)?;
            return Ok(Self {
                releases,
                ..Self::default()
            });
        }
        serde_json::from_slice(bytes).map_err(wrong)
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn version(rest: &mut Map<String, Value>) -> u32 {
    take(rest, "version").unwrap_or_default()
}

/// A field, if it is there and can be read.
fn take<T: DeserializeOwned>(rest: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(rest.remove(name)?).ok()
}

fn json<T: Serialize>(value: &T) -> Value {
    // plain data with strings for keys: nothing in it can fail
    serde_json::to_value(value).unwrap_or_default()
}

fn with<const N: usize>(
    rest: &Map<String, Value>,
    fields: [(&str, Value); N],
) -> Map<String, Value> {
    let mut all = rest.clone();
    all.insert("version".to_owned(), VERSION.into());
    all.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    all
}
