//! `EdgeFleet`: the settings of the fleet as a whole.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Conditions;

/// The settings of the fleet as a whole. A fleet has at most one. Beyond Project Flotta.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeFleet",
    plural = "edgefleets",
    shortname = "ef",
    category = "flotta",
    status = "Conditions",
    derive = "PartialEq",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFleetSpec {
    /// How much one commit may remove before someone must approve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// How much one commit may remove before someone must approve it. A commit that removes everything from a device is always held.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The largest share of a workload's devices, in percent, from which a commit may remove it; 30 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub share_percent: Option<u32>,
    /// The number of devices from which on the share counts: a commit may always remove a workload from fewer; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_devices: Option<u32>,
}
