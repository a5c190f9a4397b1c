//! What a workload is compiled to.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::DevicePath;
use flotta_bundle::health::HealthCheck;
use flotta_bundle::manifest::{FileKind, Image, Unit};

use super::unit::Protocol;
use crate::finding::{Finding, Scope, Severity};
use crate::place::Place;

/// A compiled workload.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The files, by path.
    pub files: BTreeMap<DevicePath, Content>,
    /// The units.
    pub units: Vec<Unit>,
    /// The images.
    pub images: Vec<Image>,
    /// The health checks of its containers that the agent runs.
    pub checks: Vec<HealthCheck>,
    /// The ports of the device that it publishes.
    pub ports: Vec<Port>,
    /// The Podman volumes that it uses.
    pub volumes: Vec<Volume>,
    /// Files of other workloads that it needs on the device.
    pub needs: Vec<Need>,
    /// What is wrong with it. A finding whose scope is devices concerns those that have the workload; the caller fills them in.
    pub findings: Vec<Finding>,
    /// Whether it contains the name of the device, so that it must be compiled for each device.
    pub per_device: bool,
    /// `ConfigMap`s that it needs and that cannot be used. Each `ConfigMap` has a finding of its own.
    pub lacks: BTreeSet<String>,
}

impl Compiled {
    /// Whether the workload cannot be compiled for any device.
    pub fn is_refused(&self) -> bool {
        let of_object = |finding: &Finding| finding.scope == Scope::Object;
        let mut errors = self
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        errors.any(of_object)
    }

    /// Whether its devices must keep their current bundle.
    pub fn is_broken(&self) -> bool {
        !self.lacks.is_empty() || self.findings.iter().any(Finding::is_error)
    }
}

/// The content of a file, with its kind and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether it is a Quadlet file or plain data.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
}

/// A file or folder that must be on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The path of the file or folder.
    pub path: String,
    /// Where the workload names it.
    pub place: Place,
    /// The error message if it is missing.
    pub message: String,
}

/// A Podman volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The name of the volume in Podman.
    pub name: String,
    /// What the workload calls it, for messages.
    pub what: String,
    /// Whether it belongs to the workload alone. A volume that is named in full is shared by all that name it.
    pub is_own: bool,
    /// Where the workload names it.
    pub place: Place,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The address on the device; empty for all addresses.
    pub address: String,
    /// The first port of the device.
    pub first: u16,
    /// The last port of the device; equal to the first unless it is a range.
    pub last: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Where the workload names it.
    pub place: Place,
}

impl Port {
    /// Returns the first port that both need, or `None` if both can be published on one device.
    pub fn clash(&self, other: &Self) -> Option<u16> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        let same_address = || self.address == other.address || self.is_any() || other.is_any();
        (first <= last && self.protocol == other.protocol && same_address()).then_some(first)
    }

    /// Whether it is published on every address.
    fn is_any(&self) -> bool {
        let address = self.address.parse::<std::net::IpAddr>();
        self.address.is_empty() || address.is_ok_and(|address| address.is_unspecified())
    }
}
