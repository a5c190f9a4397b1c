//! The request and response bodies of the admin API.

use std::collections::BTreeMap;

use flotta_bundle::wire::JoinFile;
use flotta_bundle::{DeviceName, Digest, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The device that may join with it; any when absent.
    pub device: Option<DeviceName>,
    /// How long it is valid.
    pub ttl_seconds: i64,
    /// Leave the token out: the device asks, and waits for approval.
    #[serde(default)]
    pub ask: bool,
    /// The set the device becomes a member of.
    pub set: Option<String>,
    /// The labels that the device gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The URL at which devices reach the server; the server's own name and port when absent.
    pub server: Option<String>,
}

/// Answer to [`TokenRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The join file for the device.
    pub join: JoinFile,
    /// When the token expires; none without a token.
    pub expires: Option<Timestamp>,
}

/// `POST /v1/tokens/revoke`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevocation {
    /// The token, as `flotta token list` calls it.
    pub token: String,
}

/// `POST /v1/approve`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The device.
    pub device: DeviceName,
    /// The beginning of its key's fingerprint, with or without `SHA256:`; needed when several requests have the same name.
    pub key: Option<String>,
    /// The set the device becomes a member of.
    pub set: Option<String>,
    /// The labels that the device gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it may replace a device that has joined under this name with another key.
    #[serde(default)]
    pub replace: bool,
}

/// `POST /v1/deny`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The device.
    pub device: DeviceName,
    /// As in [`Approval`].
    pub key: Option<String>,
    /// Why; shown on the device.
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/revoke`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The device.
    pub device: DeviceName,
}

/// `POST /v1/releases/allow`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// The commit, or its beginning.
    pub commit: String,
}

/// Answer to [`Allowance`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Allowed {
    /// The commit.
    pub commit: String,
}

/// Answer to `POST /v1/clock/accept`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClockAccepted {
    /// The time by the server's clock.
    pub now: Timestamp,
    /// Why it was in doubt; none when it was not, and there was nothing to accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Problem>,
}

/// `POST /v1/decommission`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decommission {
    /// The device.
    pub device: DeviceName,
}

/// Answer to [`Approval`], [`Denial`], [`Revocation`] and [`Decommission`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decided {
    /// The device.
    pub device: DeviceName,
    /// The key it is about, hex; empty when the server does not know it.
    pub fingerprint: String,
    /// Whether this had been decided before, so that nothing changed.
    #[serde(default)]
    pub again: bool,
}

impl Decided {
    /// A decision made now about the device with this key.
    pub fn new(device: DeviceName, key: Digest) -> Self {
        Self {
            device,
            fingerprint: key.hex(),
            again: false,
        }
    }
}

/// Answer to `POST /v1/approve-restored`: what became of the requests of devices that have a certificate of this fleet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RestoredDevices {
    /// The devices that were approved.
    pub approved: Vec<Decided>,
    /// The requests that still wait for a person.
    pub left: Vec<Left>,
}

/// A request that was not approved with the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Left {
    /// The device.
    #[serde(flatten)]
    pub request: Decided,
    /// Why.
    pub problem: Problem,
}

/// `GET /v1/fleet`: what `flotta keys show` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetFacts {
    /// The fleet's name.
    pub fleet: String,
    /// The trust root's fingerprint, hex, and its version.
    pub trust_root: String,
    /// Its version.
    pub trust_root_version: u32,
    /// The device CA's fingerprint, hex.
    pub device_ca: String,
    /// When the device CA's certificate expires.
    pub device_ca_expires: Timestamp,
    /// The URL of the edge API, as in join files.
    pub server: String,
    /// When the server's certificate expires.
    pub server_expires: Timestamp,
    /// The data directory.
    pub data: String,
    /// Number of devices with a held poll: they are connected and hear of a change at once.
    #[serde(default)]
    pub waiting: usize,
    /// Why the server's clock is in doubt, and nothing signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Problem>,
}
