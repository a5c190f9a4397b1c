//! `EdgeDevice`: one machine.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, DeviceSettings};

/// One machine: its labels say what it is, its spec what it overrides of its sets.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeDevice",
    plural = "edgedevices",
    shortname = "ed",
    category = "flotta",
    namespaced,
    status = "EdgeDeviceStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDeviceSpec {
    /// The settings that override those of its sets.
    #[serde(flatten)]
    pub settings: DeviceSettings,
    /// When the device was admitted (set by Project Flotta's operator).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_time: Option<Time>,
}

/// How a device is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDeviceStatus {
    /// The `metadata.generation` that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One per type.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Project Flotta's summary: `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What the device last applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced_resource_version: Option<String>,
    /// What the machine is, as it says itself.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::free_form")]
    pub hardware: Map<String, Value>,
    /// Its workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadStatus>,
    /// Its playbooks. The name is Project Flotta's.
    #[serde(
        rename = "PlaybookExec",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "super::free_form_list")]
    pub playbook_exec: Vec<Value>,
    /// Name of its bucket claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_obc: Option<String>,
    /// Its operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_information: Option<UpgradeInformation>,
}

/// How one workload of a device is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its name.
    pub name: String,
    /// `Running` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When the phase last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// When its data was last sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_data_upload: Option<Time>,
}

/// A device's operating system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeInformation {
    /// The ostree commit it runs.
    #[serde(rename = "currentCommitID")]
    pub current_commit_id: String,
    /// `succeeded` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upgrade_status: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upgrade_time: Option<String>,
}
