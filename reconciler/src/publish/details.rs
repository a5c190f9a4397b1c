//! The stored details of a release, or of a commit that did not become one, for people to read. Bounded.

use flotta_bundle::DeviceName;
use flotta_renderer::{Finding, Severity};
use serde::{Deserialize, Serialize};

/// Most errors, workloads, and devices of each, that are stored by name; the rest is counted.
pub const MOST: usize = 100;

/// The details of a release. Fields of a later version are ignored, and those that an earlier one did not write are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Whether the commit is valid but held for what it takes away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The errors of a refused commit, in the order of files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<CommitError>,
    /// How many more errors there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_errors: u64,
    /// The workloads that it takes from devices, the most devices first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removes: Vec<Removal>,
    /// Devices that it leaves without a workload.
    #[serde(skip_serializing_if = "Few::is_empty")]
    pub empties: Few,
    /// Devices that leave Git with it. They keep what they run until they are decommissioned.
    #[serde(skip_serializing_if = "Few::is_empty")]
    pub leaves_git: Few,
    /// Devices that have nothing to run from this release on: they left Git and were decommissioned.
    #[serde(skip_serializing_if = "Few::is_empty")]
    pub let_go: Few,
    /// Who allowed what it takes away.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub allowed_by: String,
    /// Other remarks, for example that the source's history was rewritten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An error of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitError {
    /// The stable code.
    pub code: String,
    /// `fleet/workloads/web.yaml:14:13`.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// A workload that is taken from devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// `NAMESPACE/NAME`.
    pub workload: String,
    /// How many devices run it now.
    pub of: u64,
    /// Whether its files stay and it only stops running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stops: bool,
    /// The devices that lose it.
    pub devices: Few,
}

/// A bounded list of devices: how many, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Few {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub names: Vec<DeviceName>,
}

impl Few {
    /// Summarises these devices.
    pub fn of(devices: &[DeviceName]) -> Self {
        Self {
            count: devices.len() as u64,
            names: devices.iter().take(MOST).cloned().collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Details {
    /// The details of a refusal.
    pub fn refused(errors: &[Finding]) -> Self {
        let error = |finding: &Finding| CommitError {
            code: finding.code.id.to_owned(),
            place: finding.place.to_string(),
            message: short(&finding.message),
            help: short(finding.help.as_deref().unwrap_or(finding.code.help)),
        };
        let errors = errors
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        Self {
            more_errors: errors.clone().skip(MOST).count() as u64,
            errors: errors.take(MOST).map(error).collect(),
            ..Self::default()
        }
    }
}

/// Cuts a message, which may quote text of any length from the commit.
fn short(text: &str) -> String {
    let mut text = text.to_owned();
    flotta_bundle::code::cut(&mut text, flotta_bundle::code::MAX_MESSAGE);
    text
}
