//! The format of the ledger's files. Each has a version. An agent ignores fields that it does not know and keeps them when it
//! writes the file again, because a machine whose system is rolled back runs an older agent on a newer ledger. The memory of
//! trust and sequence ([`Memory`]) is strict: its format never changes, and new fields are kept next to it.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::Unit;
use flotta_bundle::policy;
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::verify::Memory;
use flotta_bundle::wire::Event;
use flotta_bundle::{DevicePath, Digest, Owner};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The version of the files that this agent writes. Files without one (0) were written before there were versions.
pub(super) const VERSION: u32 = 1;

/// The accepted release, with everything that proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcceptedState {
    /// The release's sequence.
    pub release: u64,
    /// The revision it was made from.
    pub revision: Revision,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// The digest of the manifest to work towards.
    pub manifest: Digest,
    /// The signed release.
    pub envelope: Envelope,
    /// This device's leaf, as encoded in the tree.
    pub leaf: String,
    /// The index of the leaf in the tree.
    pub index: u64,
    /// The inclusion proof: the hashes from the leaf to the root.
    pub proof: Vec<Digest>,
}

/// The last manifest that was completely applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedState {
    /// The manifest's digest.
    pub manifest: Digest,
    /// The sequence of the release it came with.
    pub release: u64,
    /// When it was applied.
    pub since: Timestamp,
}

/// An accepted release, in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRelease {
    /// The release's sequence.
    pub sequence: u64,
    /// The root of the release's tree.
    pub root: Digest,
    /// The manifest it gave this device.
    pub manifest: Digest,
    /// When the release was issued, which does not depend on the device's clock.
    pub time: Timestamp,
}

/// What belongs to the fleet on the machine: nothing else is ever changed or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Files, and the object each belongs to.
    pub files: BTreeMap<DevicePath, Owner>,
    /// The fleet's units, by name.
    pub units: BTreeMap<String, OwnedUnit>,
}

impl Owned {
    /// Whether it is unknown what a unit was started with.
    pub fn is_unknown(&self, unit: &Unit) -> bool {
        let known = self.units.get(&unit.name);
        known.is_none_or(|known| known.inputs == OwnedUnit::unknown_inputs())
    }
}

/// A unit of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedUnit {
    /// The object it belongs to.
    pub workload: Owner,
    /// The digest over the files that it was, or will be, started with.
    pub inputs: Digest,
    /// Set before its files change, until it is known to run with them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "due"
    )]
    pub due: Option<Due>,
}

impl OwnedUnit {
    /// A unit that was found on the machine after the ledger was lost: what it was started with is unknown.
    pub fn found(workload: Owner) -> Self {
        Self {
            workload,
            inputs: Self::unknown_inputs(),
            due: None,
        }
    }

    /// Stands for unknown inputs. No unit has this digest, because no list of files does.
    fn unknown_inputs() -> Digest {
        Digest::of(b"unknown")
    }
}

/// How far a change of a unit has progressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Due {
    /// Its files are being written: what runs may have the old ones.
    Files,
    /// systemd has loaded the new files. A run with another `InvocationID` than this one has them.
    Since(String),
}

/// Reads `due`; a value of a newer agent counts as unknown.
fn due<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Due>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or(Some(Due::Files)))
}

/// `trust.json`, kept twice: in the ledger, and with the identity that the trust belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trust {
    pub(super) version: u32,
    pub(super) memory: Memory,
    /// Also none when another version of the agent wrote it in a form that cannot be read: it is then requested again.
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

    /// Whether the accepted release is the highest one seen, also by the sequence in the signed release if the current keys
    /// signed it.
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
    /// The server's addresses, from the last manifest that was completely fetched.
    pub(super) servers: Vec<String>,
    /// Files and units in a form that only a newer agent knows.
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
        files.retain(
            |path, said| match (path.parse::<DevicePath>(), whose(said)) {
                // a spoilt ledger makes nothing the fleet's that no release can have
                (Ok(path), Some(object)) if policy::never(path.as_str()).is_none() => {
                    owned.files.insert(path, object);
                    false
                }
                _ => true,
            },
        );
        units.retain(|name, unit| {
            let known = serde_json::from_value(unit.clone());
            known
                .map(|known| owned.units.insert(name.clone(), known))
                .is_err()
        });
        Ok(state)
    }

    /// Forgets the settings of another fleet's manifest. Files and units on the machine stay owned, to be kept or removed.
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

/// The owner of a file. The first agents wrote nothing for a file without a workload.
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
    /// The id of this log: numbers start again in a new one.
    #[serde(default)]
    pub(super) id: String,
    pub(super) last: u64,
    /// The server has stored events up to this one.
    #[serde(default)]
    pub(super) kept: u64,
    /// The events that the server has not stored, after the newest of those that it has, which must not be repeated either.
    pub(super) events: Vec<Event>,
    /// What the events are about, by their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) about: BTreeMap<u64, About>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What an event is about. This is not sent; the log uses it to recognise repeated failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The workloads that were changed, or the one that failed.
    #[serde(default)]
    pub(super) workloads: BTreeSet<String>,
    /// The code and message of the failure, without its detail.
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
    pub(super) releases: Vec<AcceptedRelease>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl History {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        // version 0 is only the list
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

/// Takes a field out of the object, if it is there and can be read.
fn take<T: DeserializeOwned>(rest: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(rest.remove(name)?).ok()
}

fn json<T: Serialize>(value: &T) -> Value {
    // plain data with string keys cannot fail to serialise
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
