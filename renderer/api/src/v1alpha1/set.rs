//! `EdgeDeviceSet`: a group of devices and what they have in common.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Conditions, Heartbeat, LogCollection, Metrics, Mount, OsInformation, Storage};

/// A group of devices: those that it selects, and those that name it in the label `flotta/member-of`.
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
    /// Which devices belong to it, apart from those that name it. Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Where two sets of a device differ, the higher one wins; 0 when absent, then by name. Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// How often the device reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// Where the server is, `https://HOST:PORT` each, in the order in which devices try them; when none answers, and when none
    /// is given, where it was when the device joined. The server's certificate must have these names (`flotta serve --name`).
    /// Beyond Project Flotta.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Which operating system it should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_information: Option<OsInformation>,
    /// Where its data goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Its own metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Log targets, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub log_collection: BTreeMap<String, LogCollection>,
    /// Block devices to mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["folder"]))]
    pub mounts: Vec<Mount>,
    /// Values for templates: `{{ values.NAME }}` in the workloads of the device. Beyond Project Flotta.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::free_form")]
    pub values: Map<String, Value>,
}
