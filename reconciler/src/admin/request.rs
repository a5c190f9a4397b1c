//! Bodies of the admin API's requests and their answers.

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
    /// How long it is good for.
    pub ttl_seconds: i64,
    /// Put no token in: the device asks, and waits for a person.
    #[serde(default)]
    pub ask: bool,
    /// The set the device becomes a member of.
    pub set: Option<String>,
    /// Labels the device gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The URL that devices reach the server at; the server's own idea when absent.
    pub server: Option<String>,
}

/// Answer to [`TokenRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// What the device gets.
    pub join: JoinFile,
    /// When the token ends; none when there is none.
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
    /// The beginning of its key's fingerprint, with or without `SHA256:`; needed when several ask for one name.
    pub key: Option<String>,
    /// The set the device becomes a member of.
    pub set: Option<String>,
    /// Labels the device gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it may take the place of a device that has joined by this name with another key.
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
    /// What the clock says.
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
    /// It had been decided before: nothing changed.
    #[serde(default)]
    pub again: bool,
}

impl Decided {
    /// What was decided now, of the device that has this key.
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
    /// Those that are back.
    pub approved: Vec<Decided>,
    /// Those that wait on for a person to look at them.
    pub left: Vec<Left>,
}

/// A request that was not approved with the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Left {
    /// Which one.
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
    /// The device authority's fingerprint, hex.
    pub device_ca: String,
    /// When its certificate ends.
    pub device_ca_expires: Timestamp,
    /// The URL of the edge API, as join files say it.
    pub server: String,
    /// When the server's certificate ends.
    pub server_expires: Timestamp,
    /// The data directory.
    pub data: String,
    /// Devices that hold a poll now: connected, and told of a change at once.
    #[serde(default)]
    pub waiting: usize,
    /// Why the server's clock is in doubt, and nothing signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Problem>,
}
