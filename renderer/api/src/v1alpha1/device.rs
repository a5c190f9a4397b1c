//! `EdgeDevice`: one machine.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, DeviceSettings};

/// One machine. Its labels say what it is; its spec overrides the settings of its sets.
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

/// The status of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDeviceStatus {
    /// The `metadata.generation` that the conditions refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions, at most one for each type.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Project Flotta's summary of the status, such as `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The version of the spec that the device applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced_resource_version: Option<String>,
    /// The hardware that the machine reports.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::free_form")]
    pub hardware: Map<String, Value>,
    /// The workloads of the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadStatus>,
    /// The playbooks of the device. Project Flotta chose the name.
    #[serde(
        rename = "PlaybookExec",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "super::free_form_list")]
    pub playbook_exec: Vec<Value>,
    /// The name of the device's bucket claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_obc: Option<String>,
    /// The device's operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_information: Option<UpgradeInformation>,
}

/// The status of one workload of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// The name of the workload.
    pub name: String,
    /// The phase of the workload, such as `Running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When the phase last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// When the workload's data was last sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_data_upload: Option<Time>,
}

/// A device's operating system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeInformation {
    /// The ostree commit that the device runs.
    #[serde(rename = "currentCommitID")]
    pub current_commit_id: String,
    /// The result of the last upgrade: `succeeded` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upgrade_status: Option<String>,
    /// When the last upgrade ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upgrade_time: Option<String>,
}
