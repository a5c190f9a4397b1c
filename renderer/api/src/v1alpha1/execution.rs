//! `PlaybookExecution`: one playbook on one device.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Conditions, Playbook};

/// One playbook on one device, and its result.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "management.project-flotta.io",
    version = "v1alpha1",
    kind = "PlaybookExecution",
    plural = "playbookexecutions",
    shortname = "pe",
    category = "flotta",
    namespaced,
    status = "Conditions",
    derive = "PartialEq",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PlaybookExecutionSpec {
    /// The playbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playbook: Option<Playbook>,
    /// How often the device has tried to run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_attempt: Option<u8>,
}
