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
    /// Files, by path.
    pub files: BTreeMap<DevicePath, Content>,
    /// Units.
    pub units: Vec<Unit>,
    /// Images.
    pub images: Vec<Image>,
    /// Checks that the agent makes of its containers.
    pub checks: Vec<HealthCheck>,
    /// Ports of the device that it publishes.
    pub ports: Vec<Port>,
    /// Volumes of Podman's that it uses.
    pub volumes: Vec<Volume>,
    /// Files of other workloads that must be on the device with it.
    pub needs: Vec<Need>,
    /// What is wrong with it. One whose scope is devices concerns those that have the workload: the caller fills them in.
    pub findings: Vec<Finding>,
    /// Whether it holds the device's name: then it is compiled for each device.
    pub per_device: bool,
    /// `ConfigMap`s that it needs and that cannot be used. What is wrong is said of them.
    pub lacks: BTreeSet<String>,
}

impl Compiled {
    /// Whether the object itself cannot be compiled, on whatever device.
    pub fn is_refused(&self) -> bool {
        let of_object = |finding: &Finding| finding.scope == Scope::Object;
        let mut errors = self
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        errors.any(of_object)
    }

    /// Whether the devices that have it must keep what they have.
    pub fn is_broken(&self) -> bool {
        !self.lacks.is_empty() || self.findings.iter().any(Finding::is_error)
    }
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

/// A file, or a folder of them, that must be on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where it must be.
    pub path: String,
    /// Where it is asked for.
    pub place: Place,
    /// What is wrong when it is not there.
    pub message: String,
}

/// A volume of Podman's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What Podman calls it.
    pub name: String,
    /// What it is to its workload, in words.
    pub what: String,
    /// Whether it is the workload's alone. One that is named in full is meant by all who name it.
    pub is_own: bool,
    /// Where it is asked for.
    pub place: Place,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Host address; empty for all.
    pub address: String,
    /// First port of the device.
    pub first: u16,
    /// Last port of the device: the first, unless it is a range.
    pub last: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is asked for.
    pub place: Place,
}

impl Port {
    /// The first port that both want and only one of them can have; none when both can be published on one device.
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
