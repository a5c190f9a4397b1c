//! `EdgeDeviceSet`: a group of devices and the settings that they share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Conditions, DeviceSettings};

/// A group of devices: those that its selector matches, and those whose label `flotta/member-of` names it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeDeviceSet",
    plural = "edgedevicesets",
    shortname = "eds",
    category = "flotta",
    namespaced,
    status = "Conditions",
    derive = "PartialEq",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeDeviceSetSpec {
    /// Which devices belong to the set, apart from those whose label names it. Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Where two sets of a device differ, the one with the higher priority wins; 0 when absent. Among equals the name decides.
    /// Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The settings of its devices.
    #[serde(flatten)]
    pub settings: DeviceSettings,
}
