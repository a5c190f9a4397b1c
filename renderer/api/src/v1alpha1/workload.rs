//! `EdgeWorkload`: what runs, and on which devices.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Conditions, NameRef};

/// A workload, and the devices that it runs on.
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
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.device) != has(self.deviceSelector)",
        "message": "give one of `device` and `deviceSelector`"
    },
    {
        "rule": "self.type == 'pod' ? has(self.pod) && !has(self.quadlet) : has(self.quadlet) && !has(self.pod)",
        "message": "give the field that `type` names, and not the other: `pod` or `quadlet`"
    }
]))]
pub struct EdgeWorkloadSpec {
    /// The type of the workload, which says whether `pod` or `quadlet` is given.
    #[serde(rename = "type")]
    pub type_: WorkloadType,
    /// The one device that the workload runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Selects the devices that the workload runs on, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_selector: Option<LabelSelector>,
    /// A pod, as in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// Quadlet files by name (podman-systemd.unit(5)), run as they are. Beyond Project Flotta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quadlet: Option<BTreeMap<String, String>>,
    /// What is synchronised with the device's storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfiguration>,
    /// Credentials for image registries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_registries: Option<ImageRegistries>,
    /// Metrics that the workload exposes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<WorkloadMetrics>,
    /// The log target of the device that the workload's logs go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_collection: Option<String>,
}

/// The type of a workload.
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
    /// The spec, as in Kubernetes. The CRD does not define its fields, because with them it would be twice as large as
    /// client-side apply allows. The renderer checks it against Kubernetes' own schema.
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
    /// The path that is read.
    pub source: String,
    /// The path that is written.
    pub target: String,
}

/// Credentials for image registries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRegistries {
    /// The Secret with `.dockerconfigjson`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// Metrics that a workload exposes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadMetrics {
    /// The path of the endpoint; `/` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port of the endpoint; 0 disables metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub port: Option<i32>,
    /// Seconds between two samples; 60 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// The `ConfigMap` with the names of the metrics to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_list: Option<NameRef>,
    /// Settings of single containers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, ContainerMetrics>,
}

/// Metrics that one container exposes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerMetrics {
    /// The path of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub port: Option<i32>,
    /// Whether the container's metrics are disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}
