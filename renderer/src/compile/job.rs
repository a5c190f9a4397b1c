//! The compilation of one workload: its input, and the result so far.

use std::collections::BTreeMap;

use flotta_api::v1alpha1::EdgeWorkload;
use flotta_bundle::manifest::{FileKind, Image, Pull};
use flotta_bundle::{Code, DevicePath, Owner, code, policy};
use k8s_openapi::api::core::v1::ConfigMap;

use super::compiled::{Compiled, Content};
use super::writer::not_a_word;
use crate::check::{Checked, Objects, Unusable};
use crate::finding::{Finding, Scope};
use crate::place::Place;

/// `ConfigMap`s by namespace and name.
#[derive(Debug)]
pub struct ConfigMaps<'a> {
    all: BTreeMap<(&'a str, &'a str), &'a Checked<ConfigMap>>,
    unusable: &'a Unusable<'a>,
}

impl<'a> ConfigMaps<'a> {
    /// Returns the `ConfigMap`s of a source, including those that cannot be used.
    pub fn new(objects: &'a Objects<'_>) -> Self {
        let key = |map: &'a Checked<ConfigMap>| {
            let metadata = &map.object.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            (namespace, metadata.name.as_deref().unwrap_or_default())
        };
        let maps = objects.config_maps.iter();
        Self {
            all: maps.map(|map| (key(map), *map)).collect(),
            unusable: &objects.unusable,
        }
    }

    /// Returns the `ConfigMap` of this namespace and name.
    pub fn get(&self, key: &(&str, &str)) -> Option<&'a Checked<ConfigMap>> {
        self.all.get(key).copied()
    }
}

/// The most bytes that the files of one workload have. Each volume of a `ConfigMap` has a copy of it.
const MAX_FILE_BYTES: usize = 64 << 20;
/// The most bytes that the arguments and variables of one workload have. Linux gives a program 2 MiB for both.
const MAX_WORD_BYTES: usize = 4 << 20;

/// The bytes that are left of a limit.
#[derive(Debug)]
pub(super) struct Room {
    what: &'static str,
    limit: usize,
    left: usize,
    is_used_up: bool,
}

impl Room {
    const fn of(what: &'static str, limit: usize) -> Self {
        Self {
            what,
            limit,
            left: limit,
            is_used_up: false,
        }
    }

    /// Takes bytes. If there are not enough, returns an error, the first time with the message to report.
    fn take(&mut self, bytes: usize) -> Result<(), Option<String>> {
        if self.is_used_up {
            return Err(None);
        }
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        self.is_used_up = true;
        let (what, limit) = (self.what, self.limit >> 20);
        Err(Some(format!(
            "the workload's {what} have more than {limit} MiB"
        )))
    }

    /// Whether more bytes were asked for than there were, so that nothing more has to be compiled.
    pub(super) const fn is_used_up(&self) -> bool {
        self.is_used_up
    }
}

/// The compilation of one workload.
pub(super) struct Job<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) workload: &'a Checked<EdgeWorkload>,
    pub(super) config_maps: &'a ConfigMaps<'a>,
    /// The name of the device, if the workload is compiled for one device.
    pub(super) device: Option<&'a str>,
    /// What is left for files.
    pub(super) files: Room,
    /// What is left for arguments and variables.
    pub(super) words: Room,
    pub(super) out: Compiled,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        workload: &'a Checked<EdgeWorkload>,
        config_maps: &'a ConfigMaps<'a>,
        device: Option<&'a str>,
    ) -> Self {
        let metadata = &workload.object.metadata;
        Self {
            name: metadata.name.as_deref().unwrap_or_default(),
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            workload,
            config_maps,
            device,
            files: Room::of("files", MAX_FILE_BYTES),
            words: Room::of("arguments and variables", MAX_WORD_BYTES),
            out: Compiled::default(),
        }
    }
}

impl Job<'_> {
    /// Reports an error that concerns the workload on every device.
    pub(super) fn refuse(&mut self, code: Code, pointer: &str, message: impl Into<String>) {
        let place = self.workload.document.place(pointer);
        self.out.findings.push(Finding::error(code, place, message));
    }

    /// Reports a missing reference: an error for the devices that have the workload.
    pub(super) fn miss(&mut self, pointer: &str, message: impl Into<String>) {
        let place = self.workload.document.place(pointer);
        let finding = Finding::error(code::MISSING_REFERENCE, place, message);
        let scope = Scope::Devices(Vec::new());
        self.out.findings.push(finding.reaching(scope));
    }

    pub(super) fn warn(&mut self, code: Code, place: Place, message: impl Into<String>) {
        self.out
            .findings
            .push(Finding::warning(code, place, message));
    }

    /// Warns that something has no effect on devices. The same runs with and without it.
    pub(super) fn note(&mut self, pointer: &str, message: impl Into<String>) {
        let place = self.workload.document.key_place(pointer);
        self.warn(code::NO_MEANING, place, message);
    }

    /// Returns the name of the device. A workload that uses it is compiled for each device.
    pub(super) fn node_name(&mut self) -> String {
        self.out.per_device = true;
        // Without a device this is a placeholder, which no device ever gets.
        self.device.unwrap_or("device").to_owned()
    }

    /// Adds a file and returns its path, or reports an error if the name cannot be a path.
    pub(super) fn put(
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
                // what is allowed beyond that is for each device to say
                if let Some(why) = policy::never(path.as_str()) {
                    self.refuse(code::NEVER_ALLOWED, pointer, format!("{path}: {why}"));
                    return None;
                }
                if let Err(message) = self.files.take(bytes.len()) {
                    self.over_limit(message, pointer);
                    return None;
                }
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

    /// Reports that a limit is exceeded, unless it has been reported.
    fn over_limit(&mut self, message: Option<String>, pointer: &str) {
        if let Some(message) = message {
            self.refuse(code::LIMIT, pointer, message);
        }
    }

    /// Adds an image that the workload needs, and warns if it has no digest.
    pub(super) fn need_image(&mut self, reference: &str, pull: Pull, place: Place) {
        let digest = reference.split_once('@').map(|(_, digest)| digest.parse());
        let digest = match digest {
            None => {
                self.warn(
                    code::NO_DIGEST,
                    place,
                    format!("image `{reference}` has no digest: it may differ between devices"),
                );
                None
            }
            Some(Ok(digest)) => Some(digest),
            Some(Err(error)) => {
                let message = format!("image `{reference}`: {error}");
                let finding = Finding::error(code::SCHEMA, place, message);
                self.out.findings.push(finding);
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
                workloads: vec![Owner::workload(self.name)],
            });
        }
    }

    /// Whether the workload's namespace has this `ConfigMap`.
    pub(super) fn has_config_map(&self, name: &str) -> bool {
        self.config_maps.get(&(self.namespace, name)).is_some()
    }

    /// Returns the text entries of a `ConfigMap`. If it is missing, there are none, with a finding unless it is optional.
    pub(super) fn config_map(
        &mut self,
        name: &str,
        optional: bool,
        pointer: &str,
    ) -> Vec<(String, String)> {
        let Some(found) = self.config_maps.get(&(self.namespace, name)) else {
            let unusable = self.config_maps.unusable;
            if unusable.has("ConfigMap", self.namespace, name) {
                self.out.lacks.insert(name.to_owned());
            } else if !optional {
                self.miss(
                    pointer,
                    format!(
                        "ConfigMap `{name}` does not exist in namespace `{}`",
                        self.namespace
                    ),
                );
            }
            return Vec::new();
        };
        found
            .object
            .data
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect()
    }

    /// Whether text can be an argument of a program; otherwise it is reported.
    pub(super) fn word(&mut self, text: &str, pointer: &str) -> bool {
        if let Err(message) = self.words.take(text.len()) {
            self.over_limit(message, pointer);
            return false;
        }
        let not = not_a_word(text);
        if let Some(why) = not {
            let start: String = text.chars().take(40).collect();
            let message = format!("{start:?} cannot be given to a program: {why}");
            self.refuse(code::SCHEMA, pointer, message);
        }
        not.is_none()
    }

    /// Whether each word of a command can be an argument of a program; all others are reported at once.
    pub(super) fn command(&mut self, words: &[String], pointer: &str) -> bool {
        let words = words.iter().enumerate();
        let bad = words.filter(|(at, word)| !self.word(word, &format!("{pointer}/{at}")));
        bad.count() == 0
    }

    /// Whether text is a host name, an address or the like, without white space, quotes or control characters.
    pub(super) fn plain_word(&mut self, text: &str, pointer: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+,=".contains(c);
        let good = !text.is_empty() && text.chars().all(plain);
        if !good {
            self.refuse(
                code::SCHEMA,
                pointer,
                format!("{text:?} has a character that cannot be used here"),
            );
        }
        good
    }
}
