//! Bodies of the edge API, and the join file. All are JSON. On the wire, unknown fields are ignored and unknown words are read as
//! `Unknown`, so that either side may be the newer one. The manifest, signed documents and the join file are strict, because
//! nothing in them may be ignored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::code::Problem;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::manifest;
use crate::name::{DeviceName, FleetName};

/// Longest join file, in bytes.
pub const MAX_JOIN_BYTES: usize = 64 << 10;
/// Longest request to join, in bytes: a CSR is about 600 bytes.
pub const MAX_ENROLMENT_BYTES: usize = 16 << 10;
/// Longest offer, in bytes: sixteen trust roots, a release, a leaf and a proof.
pub const MAX_OFFER_BYTES: usize = 1 << 20;
/// Longest report, in bytes: 2,000 workloads with a message each.
pub const MAX_REPORT_BYTES: usize = 1 << 20;

/// Everything a device needs to join, in one small file: `flotta token create > press-1.join`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    /// 1.
    pub schema: u32,
    /// The fleet.
    pub fleet: FleetName,
    /// URL of the edge API: `https://HOST:PORT`.
    pub server: String,
    /// Certificate of the authority that issued the server's certificate, PEM.
    pub ca: String,
    /// The fleet's trust root. The device trusts this one, not one from the server.
    pub trust_root: Envelope,
    /// The device to join as; the machine's host name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// One-time token; without it the device waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// A secret that is visible only when it is serialised on purpose.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The token, to hash or send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// `POST /v1/enrolments`: a device asks to join. Sent again with the same keys it gets the same answer: the answer may have
/// been lost. This is also how a device whose certificate has expired gets a new one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrolmentRequest {
    /// The name asked for.
    pub device: DeviceName,
    /// One-time token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// PKCS#10 request, PEM: its signature proves possession of the P-256 identity key.
    pub csr: String,
    /// X25519 public key that secrets will be sealed to, base64.
    pub sealing_key: String,
    /// ECDSA signature (ASN.1, base64) by the identity key over [`sealing_statement`]: binds the sealing key to it.
    pub sealing_proof: String,
    /// The machine.
    #[serde(default)]
    pub hardware: Hardware,
}

/// Returns the bytes that an identity key signs to vouch for a sealing key.
pub fn sealing_statement(device: &DeviceName, sealing_key: &str) -> Vec<u8> {
    format!("flotta sealing key v1\n{device}\n{sealing_key}\n").into_bytes()
}

/// What a machine reports about itself, so that people recognise it. It is never trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Vendor and product, from DMI.
    #[serde(default)]
    pub model: String,
    /// Serial number, from DMI.
    #[serde(default)]
    pub serial: String,
    /// CPU architecture: `x86_64`, `aarch64`.
    #[serde(default)]
    pub architecture: String,
    /// `PRETTY_NAME` of os-release.
    #[serde(default)]
    pub os: String,
}

/// Answer to [`EnrolmentRequest`], and to `GET /v1/enrolments/{id}`; `id` is the key fingerprint's 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Enrolment {
    /// The device has joined.
    Approved {
        /// The name it joined as.
        device: DeviceName,
        /// Its certificate, then the authority's, PEM.
        certificate: String,
    },
    /// A person must approve it.
    Pending {
        /// The name asked for.
        device: DeviceName,
    },
    /// A person denied it.
    Denied {
        /// Why, in their words.
        reason: String,
    },
    /// Never sent: stands for a word that the reader does not know. Nothing was decided that it could act on.
    #[serde(other)]
    Unknown,
}

/// `POST /v1/certificates`, with the certificate still in force: a new one for the same key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewalRequest {
    /// PKCS#10 request, PEM, by the same key.
    pub csr: String,
}

/// Answer to [`RenewalRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Renewal {
    /// The new certificate, then the authority's, PEM.
    pub certificate: String,
}

/// `GET /v1/desired?root=N`: what the device should have. The answer is held until it differs from `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Trust roots after version N, in order.
    #[serde(default)]
    pub roots: Vec<Envelope>,
    /// The release.
    pub release: Envelope,
    /// The device's leaf: these exact bytes are in the tree.
    pub leaf: String,
    /// Its place in the tree.
    pub index: u64,
    /// The hashes that lead from it to the root, nearest first.
    pub proof: Vec<Digest>,
    /// Which of the leaf's manifests to have.
    pub manifest: Digest,
}

/// `PUT /v1/report`: the state of the device. Level-triggered: the newest report contains everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub agent: String,
    /// Kernel boot id: distinguishes a reboot from a restart.
    pub boot: String,
    /// When the device made this report, by its own clock.
    pub time: Timestamp,
    /// Whether the network sets that clock; absent if this is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_synchronised: Option<bool>,
    /// Newest manifest schema that the agent reads; it reads all from 1. Agents that do not send it read 1.
    #[serde(default = "first_schema")]
    pub manifest_schema: u32,
    /// Highest release accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// The manifest of that release: what the device works towards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Digest>,
    /// The last manifest that was applied whole, and the release it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// What the device is doing.
    pub phase: Phase,
    /// What is wrong, worst first: refused offers, failed steps.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Every workload of the wanted manifest, sorted by name.
    #[serde(default)]
    pub workloads: Vec<WorkloadReport>,
    /// What happened since the last report that the server acknowledged, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// The random name of the log in which these events are numbered. Agents of the first version do not send it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// The release accepted last, as it was signed. Sent when the server asked for it (`prove`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Envelope>,
    /// Which of the server's addresses it is connected to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// The machine.
    #[serde(default)]
    pub hardware: Hardware,
}

fn first_schema() -> u32 {
    1
}

impl Report {
    /// Creates the report of an idle device without anything to report; callers fill in what they know.
    pub fn new(agent: impl Into<String>, boot: impl Into<String>, time: Timestamp) -> Self {
        Self {
            agent: agent.into(),
            boot: boot.into(),
            time,
            clock_synchronised: None,
            manifest_schema: manifest::SCHEMA,
            release: None,
            wanted: None,
            applied: None,
            phase: Phase::Idle,
            problems: Vec::new(),
            workloads: Vec::new(),
            events: Vec::new(),
            log: String::new(),
            accepted: None,
            server: String::new(),
            hardware: Hardware::default(),
        }
    }
}

/// A manifest that a device has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its digest.
    pub manifest: Digest,
    /// The release it came with.
    pub release: u64,
}

/// What a device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing: what runs is what is wanted, or the device waits for a retry (then `problems` says why).
    Idle,
    /// Fetching blobs and images; nothing has changed yet.
    Fetching,
    /// Changing the machine.
    Applying,
    /// Never sent: stands for a word that the reader does not know.
    #[serde(other)]
    Unknown,
}

/// The state of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadReport {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: WorkloadState,
    /// Why, when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Since when it is in this state, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How often systemd has restarted its units since they were started.
    #[serde(default)]
    pub restarts: u32,
}

/// The state of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkloadState {
    /// All its units are as wanted.
    Running,
    /// Its images are being fetched.
    Pulling,
    /// Its units are starting.
    Starting,
    /// A unit or image of it failed.
    Failed,
    /// It does not exist yet, or no longer.
    Stopped,
    /// Never sent: stands for a word that the reader does not know.
    #[serde(other)]
    Unknown,
}

/// Something that happened on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event of the log that the report names, so that the server stores each event once.
    pub id: u64,
    /// When, by the device's clock.
    pub time: Timestamp,
    /// One word in `CamelCase`: `Applied`, `Refused`, `Restarted`.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// Whether someone should look at it.
    #[serde(default)]
    pub warning: bool,
}

/// Answer to a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The highest event id that the server has stored; the device does not send these events again.
    pub events: u64,
    /// The device has accepted a later release than this server signed, and must prove it with its next report.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prove: bool,
    /// What the server knows about the device and the device cannot know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong and what to do.
    pub error: Problem,
    /// More details by name, for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}
