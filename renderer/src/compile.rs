//! A workload to the files, units and images that carry it out on a device.
//!
//! A `PodSpec` becomes Quadlet `.container` files, with a `.pod` when it has more than one container, and must mean what
//! `podman kube play` means by it. Users' own Quadlet files run as given. Nothing here depends on the device, so a workload
//! is compiled once for all of them.

mod container;
mod env;
mod given;
mod pod;
mod unused;
mod volume;
mod writer;

use std::collections::BTreeMap;

use flotta_api::v1alpha1::EdgeWorkload;
use flotta_bundle::manifest::{FileKind, Image, Unit};
use flotta_bundle::{Code, DevicePath, code};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::check::Checked;
use crate::finding::{Finding, Place};

pub use writer::{exec_word, line_value};

/// Where Quadlet reads system units from.
pub const QUADLET_FOLDER: &str = "/etc/containers/systemd";
/// Where the files that workloads mount lie.
pub const DATA_FOLDER: &str = "/etc/flotta/workloads";

/// `ConfigMap`s by namespace and name.
pub type ConfigMaps<'a> = BTreeMap<(&'a str, &'a str), &'a Checked<ConfigMap>>;

/// A compiled workload.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// Files, by path.
    pub files: BTreeMap<DevicePath, Content>,
    /// Units.
    pub units: Vec<Unit>,
    /// Images.
    pub images: Vec<Image>,
    /// Ports of the device that it publishes.
    pub ports: Vec<Port>,
    /// What is wrong with it. An error here concerns the devices that have the workload; [`Finding::devices`] is filled
    /// in by the caller, unless [`Compiled::refused`] says that the object itself is at fault.
    pub findings: Vec<Finding>,
    /// The object itself cannot be carried out, on whatever device.
    pub refused: bool,
}

/// A file's content and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Quadlet source or plain data.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Host address; empty for all.
    pub address: String,
    /// Port of the device.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where it is asked for.
    pub place: Place,
}

impl Port {
    /// Whether both cannot be published on one device.
    pub fn clashes(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.is_any() || other.is_any();
        self.number == other.number && self.protocol == other.protocol && same_address
    }

    /// Whether it is published on every address.
    fn is_any(&self) -> bool {
        let address = self.address.parse::<std::net::IpAddr>();
        self.address.is_empty() || address.is_ok_and(|address| address.is_unspecified())
    }
}

/// Compiles a workload.
pub fn compile(workload: &Checked<EdgeWorkload>, config_maps: &ConfigMaps<'_>) -> Compiled {
    let mut job = Job {
        name: workload.object.metadata.name.as_deref().unwrap_or_default(),
        namespace: workload
            .object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default(),
        workload,
        config_maps,
        out: Compiled::default(),
    };
    if let Some(pod) = &workload.object.spec.pod {
        pod::compile(&mut job, &pod.spec);
    } else if let Some(files) = &workload.object.spec.quadlet {
        given::compile(&mut job, files);
    }
    job.out
}

/// One workload on its way through this module.
struct Job<'a> {
    name: &'a str,
    namespace: &'a str,
    workload: &'a Checked<EdgeWorkload>,
    config_maps: &'a ConfigMaps<'a>,
    out: Compiled,
}

impl Job<'_> {
    /// The object cannot be carried out: an error for the whole commit.
    fn refuse(&mut self, code: Code, pointer: &str, message: impl Into<String>) {
        let place = self.workload.document.place(pointer);
        self.out.findings.push(Finding::error(code, place, message));
        self.out.refused = true;
    }

    /// What it refers to is not there: an error for the devices that have it.
    fn miss(&mut self, pointer: &str, message: impl Into<String>) {
        let place = self.workload.document.place(pointer);
        self.out
            .findings
            .push(Finding::error(code::MISSING_REFERENCE, place, message));
    }

    fn warn(&mut self, code: Code, place: Place, message: impl Into<String>) {
        self.out
            .findings
            .push(Finding::warning(code, place, message));
    }

    /// Puts a file; returns its path, or nothing (with a finding) when the name cannot be a path.
    fn put(
        &mut self,
        folder: &str,
        name: &str,
        bytes: Vec<u8>,
        kind: FileKind,
        mode: u32,
        pointer: &str,
    ) -> Option<DevicePath> {
        match format!("{folder}/{name}").parse::<DevicePath>() {
            Ok(path) => {
                self.out
                    .files
                    .insert(path.clone(), Content { bytes, kind, mode });
                Some(path)
            }
            Err(error) => {
                self.refuse(code::BAD_NAME, pointer, error.to_string());
                None
            }
        }
    }

    /// Notes that the workload needs an image; says so when it has no digest.
    fn need_image(&mut self, reference: &str, pull: flotta_bundle::manifest::Pull, pointer: &str) {
        let digest = reference.split_once('@').map(|(_, digest)| digest.parse());
        let digest = match digest {
            None => {
                let place = self.workload.document.place(pointer);
                self.warn(
                    code::NO_DIGEST,
                    place,
                    format!("image `{reference}` has no digest: it may differ between devices"),
                );
                None
            }
            Some(Ok(digest)) => Some(digest),
            Some(Err(error)) => {
                self.refuse(
                    code::SCHEMA,
                    pointer,
                    format!("image `{reference}`: {error}"),
                );
                return;
            }
        };
        if self
            .out
            .images
            .iter()
            .all(|image| image.reference != reference)
        {
            self.out.images.push(Image {
                reference: reference.to_owned(),
                digest,
                pull,
                workloads: vec![self.name.to_owned()],
            });
        }
    }
}
