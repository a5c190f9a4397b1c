//! `EdgeConfig`: Ansible playbooks for devices.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// Ansible playbooks for devices.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "EdgeConfig",
    plural = "edgeconfigs",
    shortname = "ec",
    category = "flotta",
    namespaced,
    status = "EdgeConfigStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeConfigSpec {
    /// The playbooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_playbook: Option<EdgePlaybook>,
}

/// Playbooks, and the account that they run as.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EdgePlaybook {
    /// The account they run as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The playbooks, in the order in which they run.
    #[schemars(length(min = 1))]
    pub playbooks: Vec<Playbook>,
}

/// One playbook.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Playbook {
    /// The content of the playbook, in base64.
    pub content: String,
    /// The longest time that the playbook may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// The capabilities that the playbook needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_privilege_level: Option<PrivilegeLevel>,
    /// Options for Ansible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ansible_options: Option<AnsibleOptions>,
    /// Whether and how the playbook switches to another account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privilege_escalation_options: Option<PrivilegeEscalation>,
    /// `StopOnFailure`, `RetryOnFailure` or `ExecuteOnce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_strategy: Option<String>,
}

/// Linux capabilities by number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivilegeLevel {
    /// Capabilities to add.
    #[serde(default)]
    pub cap_add: Vec<i8>,
    /// Capabilities to drop.
    #[serde(default)]
    pub cap_drop: Vec<i8>,
}

/// Options for Ansible.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnsibleOptions {
    /// Whether Ansible only reports what would change (check mode).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<bool>,
}

/// Whether and how a playbook switches to another account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivilegeEscalation {
    /// Whether the playbook switches to another account.
    #[serde(rename = "become", skip_serializing_if = "Option::is_none")]
    pub become_: Option<bool>,
    /// How it switches: `sudo` or `su`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub become_method: Option<String>,
    /// The account to switch to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub become_user: Option<String>,
}

/// The results of the playbooks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeConfigStatus {
    /// The `metadata.generation` that the conditions refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions, at most one for each type.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The conditions, where Project Flotta keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_playbook_status: Option<PlaybookConditions>,
}

/// Conditions of playbooks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookConditions {
    /// The conditions, at most one for each type.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
