//! The manifest: the whole desired state of a machine.
//!
//! It holds no device name, commit or time: devices that want the same share one manifest, and a commit that does not concern
//! a device does not change its digest. What binds a manifest to a device is the [`crate::leaf`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::health::{HealthCheck, MAX_CHECKS};
use crate::owner::Owner;
use crate::path::{DEFAULT_PREFIXES, DevicePath, UNITS};
use rules::{ascending, check_account, check_reference, check_unit_name, is_unit_name_of_old};

mod owners;
mod rules;

pub use rules::check_servers;

/// The newest schema that this program knows. It reads all from 1 and refuses newer ones, because a device must not run half of
/// what was meant. A manifest is encoded in the lowest schema that can express its content, so that a new section changes no
/// digest of a fleet that does not use it.
pub const SCHEMA: u32 = 3;

/// Longest encoded manifest, in bytes. A device with 40 workloads needs about 40 KB.
pub const MAX_BYTES: usize = 4 << 20;
/// Most files in a manifest.
pub const MAX_FILES: usize = 10_000;
/// Most units in a manifest. systemd itself slows down well before this.
pub const MAX_UNITS: usize = 2_000;
/// Most images in a manifest.
pub const MAX_IMAGES: usize = 1_000;
/// Largest single file, in bytes. Larger things are images.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most addresses of the server. A device tries them in turn, each for the time of a failed connection.
pub const MAX_SERVERS: usize = 8;
/// Longest address of the server, in bytes: a DNS name has at most 253 characters.
pub const MAX_SERVER_BYTES: usize = 270;

/// The desired state of a machine. Encoded as JSON: fields in this order, lists sorted, numbers integers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The lowest version that can express the rest; [`Self::encode`] sets it. 2: `settings.servers`. 3: units of systemd's own
    /// (files in [`crate::path::UNITS`], names that end in `.socket`, `.path` or `.target`), instances of templates,
    /// [`Wanted::Once`], `health`, [`File::belongs_to`], owners other than workloads, and paths outside [`DEFAULT_PREFIXES`].
    pub schema: u32,
    /// Files on the device, sorted by path.
    pub files: Vec<File>,
    /// Units and the state that systemd should have them in, sorted by name.
    pub units: Vec<Unit>,
    /// Images that must be in the device's store before anything changes, sorted by reference.
    pub images: Vec<Image>,
    /// Checks that the agent makes of containers, sorted by unit, container and purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthCheck>,
    /// How the agent itself behaves.
    pub settings: Settings,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is.
    pub path: DevicePath,
    /// Permission bits.
    pub mode: Mode,
    /// Owner, by name.
    pub owner: String,
    /// Group, by name.
    pub group: String,
    /// Digest of the content; the blob of this digest is the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// How the machine uses the file.
    pub kind: FileKind,
    /// The object it belongs to. It is omitted if it is the object of all units that restart on the file, or if no unit does and
    /// the file belongs to the device itself. A parsed manifest always has it: see [`File::object`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub belongs_to: Option<Owner>,
}

/// How the machine uses a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A Quadlet file or a systemd unit: systemd must reload its units when it changes.
    Quadlet,
    /// Plain content.
    Data,
}

/// Permission bits, written as four octal digits (`"0644"`): set-id and sticky bits are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// Creates a mode from the nine permission bits; other bits are dropped.
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for Mode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = |b: u8| (b'0'..=b'7').contains(&b);
        if text.len() != 4 || !text.starts_with('0') || !text.bytes().all(octal) {
            return Err("mode must be four octal digits, the first 0");
        }
        u32::from_str_radix(&text, 8)
            .map(Self)
            .map_err(|_| "mode must be octal")
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// One systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Full name, as systemd knows it: `web.service`.
    pub name: String,
    /// The object it belongs to, which people and reports name.
    pub workload: Owner,
    /// The state that it should have.
    pub wanted: Wanted,
    /// Files whose change means that the unit must be restarted, sorted.
    pub restart_on: Vec<DevicePath>,
}

/// The state that a unit should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Active: running, or finished with `RemainAfterExit=`.
    Active,
    /// Known to systemd, and started by something else (another unit, a timer) or by nobody.
    Loaded,
    /// Started after each change of its files, and by systemd at boot; it is expected to end. An interrupted run is
    /// repeated.
    Once,
}

/// One container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The reference that the units use: `registry.example/web@sha256:…` or `registry.example/web:1.2`.
    pub reference: String,
    /// The digest within the reference, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When to pull.
    pub pull: Pull,
    /// The objects that need it, sorted.
    pub workloads: Vec<Owner>,
}

/// When the agent pulls an image (Kubernetes' `imagePullPolicy`). Where two workloads differ, the lesser value wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// For each new manifest, even if an image with this name exists.
    Always,
    /// If no image with this name exists.
    Missing,
    /// Never: the image must exist.
    Never,
}

/// How the agent itself behaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Longest time between two reports, in seconds; at least 1.
    pub heartbeat_seconds: u32,
    /// The server's addresses, `https://HOST:PORT`, in the order in which the device tries them. If empty, the device uses the
    /// address from when it joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        // Project Flotta's default (`heartbeat.periodSeconds`).
        Self {
            heartbeat_seconds: 60,
            servers: Vec::new(),
        }
    }
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_BYTES`].
    #[error("manifest of {0} bytes is longer than {MAX_BYTES}")]
    TooLong(usize),
    /// Not the JSON that [`Manifest`] describes.
    #[error("manifest cannot be read")]
    Json(#[source] serde_json::Error),
    /// A version of the shape that this program does not know.
    #[error("manifest has schema {0}, this program knows 1 to {SCHEMA}: update flotta-agent first")]
    Schema(u64),
    /// A rule is broken.
    #[error("manifest breaks a rule: {0}")]
    Rule(String),
}

impl Manifest {
    /// Returns the canonical bytes, which are hashed, stored and sent. This sorts the lists, so callers need not.
    pub fn encode(mut self) -> Vec<u8> {
        self.leave_out_owners();
        self.schema = self.lowest_schema();
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.units.sort_by(|a, b| a.name.cmp(&b.name));
        self.images.sort_by(|a, b| a.reference.cmp(&b.reference));
        self.health.sort_by(|a, b| a.key().cmp(&b.key()));
        for unit in &mut self.units {
            unit.restart_on.sort();
        }
        for image in &mut self.images {
            image.workloads.sort();
        }
        serde_json::to_vec(&self).expect("a manifest has only string keys and integers")
    }

    /// Reads a manifest and checks every rule and limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        // The version is read first, so that a newer manifest is reported as newer, not as malformed.
        let version: Version = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if !(1..=u64::from(SCHEMA)).contains(&version.schema) {
            return Err(ManifestError::Schema(version.schema));
        }
        let mut manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        manifest.check().map_err(ManifestError::Rule)?;
        manifest.fill_in_owners();
        Ok(manifest)
    }

    /// Returns the first version that has all of the sections used here.
    fn lowest_schema(&self) -> u32 {
        let says_owner = |file: &File| file.belongs_to.is_some();
        if self.needs_third() || self.files.iter().any(says_owner) {
            3
        } else if self.settings.servers.is_empty() {
            1
        } else {
            2
        }
    }

    /// Whether the manifest needs the third version, apart from the owners of files.
    fn needs_third(&self) -> bool {
        let is_new = |unit: &Unit| {
            unit.wanted == Wanted::Once
                || !is_unit_name_of_old(&unit.name)
                || !unit.workload.is_workload()
        };
        let is_unit = |file: &File| file.path.as_str().starts_with(UNITS);
        let is_elsewhere = |file: &File| {
            let mut known = DEFAULT_PREFIXES.iter();
            !known.any(|prefix| file.path.as_str().starts_with(prefix))
        };
        let of_others = |image: &Image| !image.workloads.iter().all(Owner::is_workload);
        !self.health.is_empty()
            || self.units.iter().any(is_new)
            || self.files.iter().any(is_unit)
            || self.files.iter().any(is_elsewhere)
            || self.images.iter().any(of_others)
    }

    /// Checks the rules that types cannot express.
    fn check(&self) -> Result<(), String> {
        if self.schema != self.lowest_schema() {
            let (says, needs) = (self.schema, self.lowest_schema());
            return Err(format!(
                "its schema is {says}, but its content needs {needs}"
            ));
        }
        let count = |what, n: usize, max: usize| {
            if n > max {
                Err(format!("{n} {what}, at most {max} are allowed"))
            } else {
                Ok(())
            }
        };
        count("files", self.files.len(), MAX_FILES)?;
        count("units", self.units.len(), MAX_UNITS)?;
        count("images", self.images.len(), MAX_IMAGES)?;
        ascending("files", self.files.iter().map(|f| f.path.as_str()))?;
        ascending("units", self.units.iter().map(|u| u.name.as_str()))?;
        ascending("images", self.images.iter().map(|i| i.reference.as_str()))?;
        self.check_files()?;
        self.check_owners()?;
        for unit in &self.units {
            check_unit_name(&unit.name)?;
            ascending("restart_on", unit.restart_on.iter().map(DevicePath::as_str))?;
            for path in &unit.restart_on {
                if self.files.binary_search_by(|f| f.path.cmp(path)).is_err() {
                    return Err(format!(
                        "unit {} restarts on {path}, which is not a file of the manifest",
                        unit.name
                    ));
                }
            }
        }
        for image in &self.images {
            check_reference(&image.reference)?;
            ascending("workloads", image.workloads.iter().map(Owner::as_str))?;
            let named = image
                .reference
                .split_once('@')
                .map(|(_, digest)| digest.to_owned());
            if named != image.digest.map(|d| d.to_string()) {
                return Err(format!("image {} and its digest disagree", image.reference));
            }
        }
        self.check_health()?;
        if self.settings.heartbeat_seconds == 0 {
            return Err("heartbeat_seconds must be at least 1".to_owned());
        }
        check_servers(&self.settings.servers)
    }

    fn check_health(&self) -> Result<(), String> {
        let count = self.health.len();
        if count > MAX_CHECKS {
            return Err(format!("{count} checks, at most {MAX_CHECKS} are allowed"));
        }
        let is_sorted = self.health.is_sorted_by(|a, b| a.key() < b.key());
        if !is_sorted {
            return Err("checks are not sorted, or one is listed twice".to_owned());
        }
        for check in &self.health {
            check.check()?;
            let unit = &check.unit;
            if self.units.binary_search_by(|u| u.name.cmp(unit)).is_err() {
                return Err(format!(
                    "a check of {unit}, which is not a unit of the manifest"
                ));
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), String> {
        // On a file system that ignores case, two such files would be one. They are refused on all devices.
        let mut folded = BTreeSet::new();
        for file in &self.files {
            if file.size > MAX_FILE_BYTES {
                return Err(format!(
                    "file {} is larger than {MAX_FILE_BYTES} bytes",
                    file.path
                ));
            }
            for name in [&file.owner, &file.group] {
                check_account(name)?;
            }
            if !folded.insert(file.path.as_str().to_ascii_lowercase()) {
                return Err(format!(
                    "file {} differs from another only in case",
                    file.path
                ));
            }
        }
        for path in &folded {
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(parent) = parents.into_iter().find(|parent| folded.contains(*parent)) {
                return Err(format!("{parent} is both a file and a folder"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
