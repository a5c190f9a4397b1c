//! Which fields of a `PodSpec` are carried out, which mean nothing on a device, and which are refused: what is in no list too.

use std::collections::{HashMap, HashSet};

use flotta_bundle::code;
use serde_json::Value;

use super::asked::SPEC;
use crate::compile::job::Job;
use crate::pointer::step;

/// A field of a `PodSpec` and what becomes of it. Each feature has a list of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// `containers[].ports[].hostIP`; containers stand for init containers too. With none listed below it, everything in it is
    /// carried out; otherwise what is listed.
    pub path: &'static str,
    /// What becomes of it.
    pub becomes: Becomes,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It is carried out; as what, for the documentation: `Environment=`.
    Carried(&'static str),
    /// It cannot mean on a device what it says, whatever its value: why. An error, because something else would run than was
    /// asked for.
    Refused(&'static str),
    /// It has no meaning on a device, and nothing else runs without it: why. A warning.
    NoEffect(&'static str),
}

impl Field {
    /// A field that is carried out, as what.
    pub(super) const fn carried(path: &'static str, becomes: &'static str) -> Self {
        let becomes = Becomes::Carried(becomes);
        Self { path, becomes }
    }

    /// A field that is refused, and why.
    pub(super) const fn refused(path: &'static str, why: &'static str) -> Self {
        let becomes = Becomes::Refused(why);
        Self { path, becomes }
    }
}

impl Field {
    /// A field that has no meaning on a device, and why.
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
    /// Fields that are carried out, and those with such a field below them.
    known: HashSet<&'static str>,
    /// Mappings of which only the known fields are carried out.
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
                Becomes::Carried(_) => rules.add(field.path),
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

    /// Says what of the workload's spec is not carried out.
    pub(super) fn judge(&self, job: &mut Job<'_>) {
        let workload = job.workload;
        if let Some(spec) = workload.document.at(SPEC) {
            self.walk(job, spec, "", SPEC);
        }
    }

    /// `path` is the field as the lists have it, `pointer` where it stands.
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
            Ruling::CarriedOut => self.walk(job, value, &path, pointer),
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

    /// What the lists say of a field.
    pub(super) fn ruling(&self, path: &str, within: &str) -> Ruling {
        if let Some(why) = self.refused.get(path) {
            Ruling::Refused(why)
        } else if let Some(why) = self.without_effect.get(path) {
            Ruling::NoEffect(why)
        } else if self.strict.contains(within) && !self.known.contains(path) {
            Ruling::Unlisted
        } else {
            Ruling::CarriedOut
        }
    }
}

/// What the lists say of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    CarriedOut,
    NoEffect(&'static str),
    Refused(&'static str),
    /// Nothing: a version of Kubernetes brought it that is newer than the lists.
    Unlisted,
}

/// A field as the lists have it.
pub(super) fn path_of(key: &str, within: &str) -> String {
    match (within, key) {
        ("", "initContainers") => "containers".to_owned(),
        ("", _) => key.to_owned(),
        _ => format!("{within}.{key}"),
    }
}
