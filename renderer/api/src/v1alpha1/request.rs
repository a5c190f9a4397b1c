//! `EdgeDeviceSignedRequest`: a device that asks to join.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Conditions;

/// A device that asks to join.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeDeviceSignedRequest",
    plural = "edgedevicesignedrequest",
    shortname = "edsr",
    category = "flotta",
    namespaced,
    status = "Conditions",
    derive = "PartialEq",
    printcolumn(name = "Approved", type_ = "boolean", json_path = ".spec.approved"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDeviceSignedRequestSpec {
    /// The namespace that the device asks to join.
    pub target_namespace: String,
    /// The set that the device asks to join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_set: Option<String>,
    /// Whether the request is approved.
    #[serde(default)]
    pub approved: bool,
    /// What the machine reports about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
}

/// What a machine reports about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// The model of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The hardware of the machine.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::free_form")]
    pub hardware: Map<String, Value>,
}
