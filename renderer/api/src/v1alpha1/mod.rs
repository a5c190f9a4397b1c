//! Version `v1alpha1` of every kind.
#![allow(
    clippy::duplicated_attributes,
    reason = "each `printcolumn` of kube's attribute names its own `type_`"
)]

mod config;
mod device;
mod execution;
mod fleet;
mod request;
mod set;
mod settings;
mod status;
mod workload;

pub use config::{
    AnsibleOptions, EdgeConfig, EdgeConfigSpec, EdgeConfigStatus, EdgePlaybook, Playbook,
    PlaybookConditions, PrivilegeEscalation, PrivilegeLevel,
};
pub use device::{
    EdgeDevice, EdgeDeviceSpec, EdgeDeviceStatus, UpgradeInformation, WorkloadStatus,
};
pub use execution::{PlaybookExecution, PlaybookExecutionSpec};
pub use fleet::{EdgeFleet, EdgeFleetSpec, Guard};
pub use request::{EdgeDeviceSignedRequest, EdgeDeviceSignedRequestSpec, Features};
pub use set::{EdgeDeviceSet, EdgeDeviceSetSpec};
pub use settings::{
    DataTransfer, DeviceSettings, HardwareProfile, Heartbeat, LogCollection, LogKind, Metrics,
    MetricsReceiver, Mount, NameRef, OsInformation, Retention, S3, Storage, SystemMetrics,
};
pub use status::{Condition, Conditions};
pub use workload::{
    ContainerMetrics, DataConfiguration, DataPath, EdgeWorkload, EdgeWorkloadSpec, ImageRegistries,
    Pod, WorkloadMetrics, WorkloadType,
};

/// Returns the schema of a mapping that may have any fields.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Returns the schema of a list of such mappings.
fn free_form_list(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = free_form(generator);
    schemars::json_schema!({"type": "array", "items": item})
}
