//! The objects that people commit to Git: Project Flotta's kinds with all their fields, and the fields that we add.
//!
//! Each kind is a type that knows its own schema. What a field does is decided elsewhere; the renderer reports the fields that
//! are not acted on yet.

pub mod condition;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
};
use kube::CustomResourceExt as _;

/// The group of all kinds.
pub const GROUP: &str = "management.project-flotta.io";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// The kinds whose `spec` may be left out: all its fields have defaults.
pub const WITHOUT_SPEC: [&str; 3] = ["EdgeDevice", "EdgeDeviceSet", "EdgeFleet"];

/// Returns the CRDs of all kinds, to apply to a cluster.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        v1alpha1::EdgeConfig::crd(),
        v1alpha1::EdgeDevice::crd(),
        v1alpha1::EdgeDeviceSet::crd(),
        v1alpha1::EdgeDeviceSignedRequest::crd(),
        v1alpha1::EdgeFleet::crd(),
        v1alpha1::EdgeWorkload::crd(),
        v1alpha1::PlaybookExecution::crd(),
    ];
    crds.iter_mut().for_each(complete);
    crds
}

/// Adds what the types do not say.
fn complete(crd: &mut CustomResourceDefinition) {
    let kind = crd.spec.names.kind.as_str();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(schema) = schema else { continue };
        let fields = schema.properties.get_or_insert_default();
        // Without a status, Flux takes an object for ready before anybody has seen it.
        if let Some(status) = fields.get_mut("status") {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
        if let Some(spec) = fields.get_mut("spec") {
            schema.description.clone_from(&spec.description);
            if WITHOUT_SPEC.contains(&kind) {
                spec.default = Some(JSON(serde_json::json!({})));
            }
        }
    }
}

#[cfg(test)]
mod tests;
