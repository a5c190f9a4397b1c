//! A container as the `PodSpec` asks for it, with where it stands: what each feature looks at.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Where the spec of a workload's pod stands.
pub(super) const SPEC: &str = "/spec/pod/spec";

/// A container of a pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The pod it is in.
    pub(super) spec: &'a PodSpec,
    /// Itself.
    pub(super) container: &'a Container,
    /// Where it stands.
    pub(super) pointer: &'a str,
    /// Whether it runs to its end before the others start.
    pub(super) init: bool,
}

impl Asked<'_> {
    /// Where one of its fields stands: `ports/0/hostPort`.
    pub(super) fn at(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }
}
