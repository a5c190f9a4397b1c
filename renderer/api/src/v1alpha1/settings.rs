//! The settings that an `EdgeDevice` and an `EdgeDeviceSet` share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The settings of a device. Its sets and the device itself give them with the same fields, and they merge field by field: a
/// set of higher priority overrides a lower one, and the device overrides its sets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSettings {
    /// How often the device reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// The addresses of the server, each `https://HOST:PORT`, in the order in which devices try them. When none answers or none
    /// is given, devices use the address that they joined with. The server's certificate must have these names
    /// (`flotta serve --name`). Beyond Project Flotta.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Which operating system the device should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_information: Option<OsInformation>,
    /// Where the device's data goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Metrics of the device itself.
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

impl DeviceSettings {
    /// The names of the fields, as they are written in YAML.
    pub fn fields() -> &'static BTreeSet<String> {
        static FIELDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
            let schema = schemars::schema_for!(DeviceSettings);
            let properties = schema.get("properties").and_then(Value::as_object);
            properties
                .into_iter()
                .flat_map(Map::keys)
                .cloned()
                .collect()
        });
        &FIELDS
    }
}

/// The name of an object in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// The name of the object.
    pub name: String,
}

/// How often a device reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The longest time between two reports, in seconds; 60 when absent.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<u32>,
    /// What reports say about the hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_profile: Option<HardwareProfile>,
}

/// What reports say about the hardware.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HardwareProfile {
    /// Whether reports include the hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<bool>,
    /// How much reports include: `full`, or `delta` for changes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// Which operating system a device should run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OsInformation {
    /// Whether the device upgrades automatically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatically_upgrade: Option<bool>,
    /// The ostree commit that the device should run.
    #[serde(rename = "commitID", skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
    /// The URL of the ostree repository.
    #[serde(rename = "hostedObjectsURL", skip_serializing_if = "Option::is_none")]
    pub hosted_objects_url: Option<String>,
}

/// Where a device's data goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Storage {
    /// An S3 bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// An S3 bucket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// The name of the Secret with the access keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The name of the `ConfigMap` with the endpoint and the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_name: Option<String>,
    /// Whether the cluster should create a bucket.
    #[serde(rename = "createOBC", skip_serializing_if = "Option::is_none")]
    pub create_obc: Option<bool>,
}

/// Metrics of the device itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// How long metrics are kept on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Metrics of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemMetrics>,
    /// Metrics of data synchronisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_transfer: Option<DataTransfer>,
    /// Where metrics are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver_configuration: Option<MetricsReceiver>,
}

/// How long metrics are kept on the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Retention {
    /// The most space that metrics may take, in MiB.
    #[serde(rename = "maxMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_mib: Option<i32>,
    /// The longest time that metrics are kept, in hours.
    #[serde(rename = "maxHours", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_hours: Option<i32>,
}

/// Metrics of the system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemMetrics {
    /// Seconds between two samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub interval: Option<i32>,
    /// The `ConfigMap` with the names of the metrics to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_list: Option<NameRef>,
    /// Whether these metrics are disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// Metrics of data synchronisation: the same fields.
pub type DataTransfer = SystemMetrics;

/// A Prometheus remote-write receiver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsReceiver {
    /// The URL of the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of the Secret with the CA of the receiver's certificate (`ca.crt`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_name: Option<String>,
    /// The most samples in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_num_samples: Option<i64>,
    /// The timeout of a request, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
}

/// A target that logs are sent to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogCollection {
    /// The protocol of the target.
    pub kind: LogKind,
    /// The size of the buffer, in KiB; 12 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub buffer_size: Option<i32>,
    /// The `ConfigMap` with the target's `Address` and `Protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog_config: Option<NameRef>,
}

/// The protocol of a log target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Syslog.
    Syslog,
}

/// A block device to mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    /// The device node.
    pub device: String,
    /// Where the device is mounted. Mounts of sets and devices merge by this key.
    pub folder: String,
    /// The type of the file system.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// Mount options.
    #[serde(default)]
    pub options: String,
}
