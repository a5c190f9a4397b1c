//! Which fields of a `PodSpec` are supported, which have no effect on a device, and which are refused. A field that is in no
//! list is refused, too.

use std::collections::{HashMap, HashSet};

use flotta_bundle::code;
use serde_json::Value;

use super::context::SPEC;
use crate::compile::job::Job;
use crate::pointer::step;

/// A field of a `PodSpec` and what the compiler does with it. Each feature has a list of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The path of the field, such as `containers[].ports[].hostIP`; `containers` covers init containers, too. When a list has
    /// fields below this one, only those are supported; otherwise everything below it is.
    pub path: &'static str,
    /// What the compiler does with it.
    pub becomes: Becomes,
}

/// What the compiler does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// The field is supported. The text is for the documentation and says what it becomes, such as `Environment=`.
    Supported(&'static str),
    /// The field is not supported on devices, whatever its value; the text says why. This is an error, because what would run
    /// is not what the PodSpec asks for.
    Refused(&'static str),
    /// The field has no effect on a device; the text says why. This is a warning, because the same runs with and without it.
    NoEffect(&'static str),
}

impl Field {
    /// Returns a field that is supported, and what it becomes.
    pub(super) const fn supported(path: &'static str, becomes: &'static str) -> Self {
        let becomes = Becomes::Supported(becomes);
        Self { path, becomes }
    }

    /// Returns a field that is refused, and why.
    pub(super) const fn refused(path: &'static str, why: &'static str) -> Self {
        let becomes = Becomes::Refused(why);
        Self { path, becomes }
    }

    /// Returns a field that has no effect on a device, and why.
    pub(super) const fn no_effect(path: &'static str, why: &'static str) -> Self {
        let becomes = Becomes::NoEffect(why);
        Self { path, becomes }
    }
}

/// The lists of all features as one.
#[derive(Debug)]
pub(super) struct Rules {
    refused: HashMap<&'static str, &'static str>,
    without_effect: HashMap<&'static str, &'static str>,
    /// Supported fields, and the fields that contain one.
    known: HashSet<&'static str>,
    /// Mappings in which only the known fields are supported.
    strict: HashSet<&'static str>,
}

impl Rules {
    pub(super) fn of(fields: impl Iterator<Item = &'static Field>) -> Self {
        let mut rules = Self {
            refused: HashMap::new(),
            without_effect: HashMap::new(),
            known: HashSet::new(),
            strict: HashSet::new(),
        };
        for field in fields {
            match field.becomes {
                Becomes::Refused(why) => {
                    rules.refused.insert(field.path, why);
                }
                Becomes::NoEffect(why) => {
                    rules.without_effect.insert(field.path, why);
                }
                Becomes::Supported(_) => rules.add(field.path),
            }
        }
        rules
    }

    fn add(&mut self, mut path: &'static str) {
        while !path.is_empty() {
            self.known.insert(path);
            let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
            self.strict.insert(parent);
            path = parent.trim_end_matches("[]");
        }
    }

    /// Reports the fields of the workload's spec that are not supported.
    pub(super) fn check(&self, job: &mut Job<'_>) {
        let workload = job.workload;
        if let Some(spec) = workload.document.at(SPEC) {
            self.walk(job, spec, "", SPEC);
        }
    }

    /// `path` is the path of the field in the lists, `pointer` its JSON pointer in the document.
    fn walk(&self, job: &mut Job<'_>, value: &Value, path: &str, pointer: &str) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    self.field(job, key, value, path, &format!("{pointer}/{}", step(key)));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{index}");
                    self.walk(job, item, &format!("{path}[]"), &pointer);
                }
            }
            _ => {}
        }
    }

    fn field(&self, job: &mut Job<'_>, key: &str, value: &Value, within: &str, pointer: &str) {
        let path = path_of(key, within);
        match self.ruling(&path, within) {
            Ruling::Supported => self.walk(job, value, &path, pointer),
            Ruling::NoEffect(why) => {
                job.note(pointer, format!("`{key}` has no effect on devices: {why}"));
            }
            Ruling::Refused(why) => {
                let message = format!("`{key}` is not supported on devices: {why}");
                job.refuse(code::UNSUPPORTED_FIELD, pointer, message);
            }
            Ruling::Unlisted => {
                let message = format!("`{key}` is not supported on devices");
                job.refuse(code::UNSUPPORTED_FIELD, pointer, message);
            }
        }
    }

    /// Looks a field up in the lists.
    pub(super) fn ruling(&self, path: &str, within: &str) -> Ruling {
        if let Some(why) = self.refused.get(path) {
            Ruling::Refused(why)
        } else if let Some(why) = self.without_effect.get(path) {
            Ruling::NoEffect(why)
        } else if self.strict.contains(within) && !self.known.contains(path) {
            Ruling::Unlisted
        } else {
            Ruling::Supported
        }
    }
}

/// What the lists say about a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    Supported,
    NoEffect(&'static str),
    Refused(&'static str),
    /// No list has the field: it is from a version of Kubernetes that is newer than the lists.
    Unlisted,
}

/// Returns the path of a field in the lists.
pub(super) fn path_of(key: &str, within: &str) -> String {
    match (within, key) {
        ("", "initContainers") => "containers".to_owned(),
        ("", _) => key.to_owned(),
        _ => format!("{within}.{key}"),
    }
}
