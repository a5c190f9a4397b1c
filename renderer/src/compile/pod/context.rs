//! A container of a `PodSpec` and its place in the workload: the input of each feature.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The pointer to the spec of a workload's pod.
pub(super) const SPEC: &str = "/spec/pod/spec";

/// A container of a pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContainerContext<'a> {
    /// The spec of its pod.
    pub(super) spec: &'a PodSpec,
    /// The container.
    pub(super) container: &'a Container,
    /// The pointer to the container.
    pub(super) pointer: &'a str,
    /// Whether it is an init container that must finish before the others start.
    pub(super) init: bool,
}

impl ContainerContext<'_> {
    /// Returns the pointer to one of its fields, such as `ports/0/hostPort`.
    pub(super) fn at(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }
}
