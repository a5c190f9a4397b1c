//! `EdgeWorkload`: what runs, and where.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Conditions, NameRef};

/// What runs on the devices that it names or selects.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeWorkload",
    plural = "edgeworkloads",
    shortname = "ew",
    category = "flotta",
    namespaced,
    status = "Conditions",
    derive = "PartialEq",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeWorkloadSpec {
    /// What kind of workload it is: it says which of `pod` and `quadlet` is given.
    #[serde(rename = "type")]
    pub type_: WorkloadType,
    /// The one device that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The devices that it runs on, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_selector: Option<LabelSelector>,
    /// A pod, as Kubernetes has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// Quadlet files by name (podman-systemd.unit(5)), run as they are. Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quadlet: Option<BTreeMap<String, String>>,
    /// What is synchronised with the device's storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfiguration>,
    /// Registries that want credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_registries: Option<ImageRegistries>,
    /// Metrics that it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<WorkloadMetrics>,
    /// The device's log target that its logs go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_collection: Option<String>,
}

/// What kind of workload it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// A pod of containers.
    Pod,
    /// The user's own Quadlet files.
    Quadlet,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// As Kubernetes has it. The definition keeps it open: inlined it would be twice what client-side apply takes; the
    /// renderer checks it against Kubernetes' own schema.
    #[schemars(schema_with = "super::free_form")]
    pub spec: PodSpec,
}

/// What is synchronised with the device's storage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataConfiguration {
    /// From the workload to the storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<DataPath>,
    /// From the storage to the workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<DataPath>,
}

/// One path that is synchronised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataPath {
    /// From here.
    pub source: String,
    /// To here.
    pub target: String,
}

/// Registries that want credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRegistries {
    /// Secret with `.dockerconfigjson`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// Metrics that a workload offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadMetrics {
    /// Path of the endpoint; `/` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its port; off when 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub port: Option<i32>,
    /// Seconds between two readings; 60 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// `ConfigMap` with the names of those to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_list: Option<NameRef>,
    /// Where a container differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, ContainerMetrics>,
}

/// Metrics that one container offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerMetrics {
    /// Path of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub port: Option<i32>,
    /// Whether they are off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}
