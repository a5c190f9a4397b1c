//! The objects of the admin API, in the shape of Kubernetes objects, so that the tools people have can read `-o json` and
//! `-o yaml`.

use std::collections::BTreeMap;

use flotta_api::v1alpha1::Condition;
use flotta_bundle::wire::{Hardware, WorkloadState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::publish::details::Details;
use crate::server_state::{SourceState, Warning};

/// The API version of every kind here.
pub const API_VERSION: &str = "management.project-flotta.io/v1alpha1";
/// The label that makes a device a member of a set.
pub const MEMBER_OF: &str = "flotta/member-of";

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<Spec, Status> {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name, namespace and labels.
    pub metadata: Metadata,
    /// Its desired state.
    pub spec: Spec,
    /// Its kind.
    pub status: Status,
}

/// The metadata of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name within its namespace.
    pub name: String,
    /// Its namespace; releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Distinguishes it from another object of the same name: for devices and requests the key's fingerprint, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

impl Metadata {
    /// `NAMESPACE/NAME`, or the name alone.
    pub fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// A key that no other object of its kind has.
    pub fn key(&self) -> (String, Option<String>) {
        (self.full_name(), self.uid.clone())
    }
}

/// A kind that the admin API lists.
pub trait Resource: Serialize + for<'de> Deserialize<'de> + Clone + PartialEq + Send {
    /// Its name in an object: `EdgeDevice`.
    const KIND: &'static str;
    /// Its name in a path and on the command line: `devices`.
    const PLURAL: &'static str;

    /// Its name, namespace and labels.
    fn metadata(&self) -> &Metadata;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $plural:literal, $spec:ty, $status:ty;)*) => {
        $($(#[$doc])*
        pub type $name = Object<$spec, $status>;

        impl Resource for $name {
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;

            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
        })*
    };
}

kinds! {
    /// A machine.
    Device = "EdgeDevice", "devices", Empty, DeviceStatus;
    /// A workload, over all devices of a namespace that should have it.
    Workload = "EdgeWorkload", "workloads", Empty, WorkloadStatus;
    /// A request to join.
    Request = "EdgeDeviceSignedRequest", "requests", Empty, RequestStatus;
    /// A token, without its secret.
    JoinToken = "JoinToken", "tokens", Empty, TokenStatus;
    /// A release, or a commit that was refused.
    ReleaseObject = "Release", "releases", Empty, ReleaseStatus;
    /// Something that happened.
    EventObject = "Event", "events", Empty, EventStatus;
}

impl<Spec: Default, Status> Object<Spec, Status>
where
    Self: Resource,
{
    /// An object of this kind.
    pub fn new(metadata: Metadata, status: Status) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            metadata,
            spec: Spec::default(),
            status,
        }
    }
}

/// `{}`, because the specification is in Git and the admin API does not repeat it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Several objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// `v1`.
    pub api_version: String,
    /// `List`.
    pub kind: String,
    /// The objects, sorted by namespace and name; events oldest first, releases newest first.
    pub items: Vec<T>,
}

impl<T> List<T> {
    /// A list of these.
    pub fn of(items: Vec<T>) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "List".to_owned(),
            items,
        }
    }
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<T> {
    /// What happened to it.
    #[serde(rename = "type")]
    pub what: What,
    /// The object as it is now, or its last state if it is gone.
    pub object: T,
}

/// What happened to a watched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum What {
    /// It was added; the first lines of a watch are all objects there are.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted.
    Deleted,
}

/// The status of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// One word: `Ready`, `Updating`, `Failed`, `Offline`, `Pending`, `Revoked`.
    pub state: String,
    /// The reason of the state, for people; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The sets it is in, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<String>,
    /// When the server last heard from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Its key and certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What it should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Running>,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Its conditions, in order of importance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Its workloads, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<DeviceWorkload>,
    /// Facts that the machine gives about itself.
    #[serde(default)]
    pub hardware: Hardware,
    /// The address of the server that it is connected to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Version of its agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
}

/// The identity of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// SHA-256 of its public key, hex.
    pub fingerprint: String,
    /// When its certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
}

/// The status of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenStatus {
    /// `Open`, `Used`, `Expired` or `Revoked`.
    pub state: String,
    /// What happened with it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The only device that may use it; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The set that the device becomes a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// The device that joined with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_as: Option<String>,
}

/// A manifest and the release it came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The release.
    pub release: u64,
    /// The manifest's digest.
    pub manifest: String,
    /// The commit of the release, and the first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

/// A workload on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWorkload {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub state: WorkloadState,
    /// The stable code of why it does not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Why it does not run, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How often it was restarted.
    #[serde(default)]
    pub restarts: u32,
    /// The images of the manifest that was applied, as its units name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

impl DeviceWorkload {
    /// Whether one of its images is this one: by its reference, its digest, or its name without tag and digest.
    pub fn has_image(&self, wanted: &str) -> bool {
        self.images.iter().any(|reference| {
            let (tagged, digest) = match reference.split_once('@') {
                Some((tagged, digest)) => (tagged, digest),
                None => (reference.as_str(), ""),
            };
            // a colon before the last slash is a registry's port
            let name = match tagged.rsplit_once(':') {
                Some((name, tag)) if !tag.contains('/') => name,
                _ => tagged,
            };
            [reference, tagged, digest, name].contains(&wanted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_reference_digest_or_name() {
        let workload = |images: &[&str]| DeviceWorkload {
            name: "web".to_owned(),
            state: WorkloadState::Running,
            code: String::new(),
            message: String::new(),
            since: None,
            restarts: 0,
            images: images.iter().map(|image| (*image).to_owned()).collect(),
        };
        let both = workload(&["registry.example:5000/web:1.2@sha256:ab", "localhost/db"]);
        for wanted in [
            "registry.example:5000/web:1.2@sha256:ab",
            "registry.example:5000/web:1.2",
            "registry.example:5000/web",
            "sha256:ab",
            "localhost/db",
        ] {
            assert!(both.has_image(wanted), "{wanted}");
        }
        for wanted in ["web", "registry.example", "1.2", "", "sha256:a"] {
            assert!(
                !workload(&["registry.example:5000/web:1.2@sha256:ab"]).has_image(wanted),
                "{wanted}"
            );
        }
    }
}

/// The status of a workload, over all its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// On how many devices it runs.
    pub running: u32,
    /// On how many it failed.
    pub failed: u32,
    /// How many devices should have it and have reported.
    pub devices: u32,
    /// The first problem, for people: `shop-19: exited 1 after 2s`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Each device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<WorkloadOn>,
}

/// A workload on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadOn {
    /// The device's name.
    pub device: String,
    /// The state of the workload there.
    #[serde(flatten)]
    pub workload: DeviceWorkload,
}

/// A request to join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Always `Pending`, because decided requests are not listed.
    pub state: String,
    /// Why it waits, if there is a special reason: another device has the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// SHA-256 of its public key, hex, to compare with what the device shows.
    pub fingerprint: String,
    /// Facts that the machine gives about itself.
    #[serde(default)]
    pub hardware: Hardware,
    /// The address it asked from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
}

/// A release, or a commit that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// `InForce`, `Superseded`, `Refused`, or `Held`: valid, but held for what it takes away.
    pub state: String,
    /// Why it was refused or held, in one line; or another remark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where the commit is from.
    pub source: String,
    /// The commit.
    pub commit: Commit,
    /// When it was signed, or refused.
    pub issued: Timestamp,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How many devices it is for.
    #[serde(default)]
    pub devices: u64,
    /// How many workloads.
    #[serde(default)]
    pub workloads: u64,
    /// How many manifests its devices share.
    #[serde(default)]
    pub manifests: u64,
    /// What it takes away, and what is wrong with it.
    #[serde(flatten)]
    pub details: Details,
}

/// `GET /v1/status`: the status of the server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerStatus {
    /// The source that it follows.
    pub source: SourceState,
    /// The release in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
    /// Warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// The release in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its sequence.
    pub sequence: u64,
    /// Its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    /// When it happened.
    pub time: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One word: `Applied`.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// What it happened to: `device/default/shop-17`, or `fleet`.
    pub object: String,
}
