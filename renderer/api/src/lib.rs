//! The objects that people commit to Git: Project Flotta's kinds with all their fields, and the fields that we add.
//!
//! Each kind is a type that knows its own schema. What a field does is decided elsewhere; the renderer reports the fields that
//! are not acted on yet.

pub mod condition;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The group of all kinds.
pub const GROUP: &str = "management.project-flotta.io";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Returns the CRDs of all kinds, to apply to a cluster.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        v1alpha1::EdgeConfig::crd(),
        v1alpha1::EdgeDevice::crd(),
        v1alpha1::EdgeDeviceSet::crd(),
        v1alpha1::EdgeDeviceSignedRequest::crd(),
        v1alpha1::EdgeFleet::crd(),
        v1alpha1::EdgeWorkload::crd(),
        v1alpha1::PlaybookExecution::crd(),
    ]
}

#[cfg(test)]
mod tests;
