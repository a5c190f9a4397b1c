//! Objects that exist and cannot be used. Each has its own finding, so references to it are not reported as missing.

use std::collections::HashSet;

use super::{Batch, WrongObject};
use crate::finding::Finding;

/// Objects that are broken, encrypted or defined twice, and files that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Unusable<'a> {
    /// Kind, namespace and name. The namespace is empty where it is not known.
    objects: HashSet<(&'a str, &'a str, &'a str)>,
    /// The namespace and name of `ConfigMap`s, with what is wrong.
    config_maps: Vec<(&'a str, &'a str, Finding)>,
    /// Whether there may be any other objects, because something cannot be read.
    is_open: bool,
    /// All words of files that cannot be read. An object whose name is not among them is not in such a file.
    words: HashSet<&'a str>,
}

impl<'a> Unusable<'a> {
    pub(super) fn add(&mut self, kind: &'a str, namespace: &'a str, name: &'a str) {
        self.objects.insert((kind, namespace, name));
    }

    pub(super) fn add_config_map(
        &mut self,
        namespace: &'a str,
        name: &'a str,
        findings: impl IntoIterator<Item = Finding>,
    ) {
        self.add("ConfigMap", namespace, name);
        let findings = findings.into_iter();
        self.config_maps
            .extend(findings.map(|finding| (namespace, name, finding)));
    }

    /// Adds what a batch has in addition to objects whose kind and name are known.
    pub(super) fn add_batch(&mut self, batch: &'a Batch, findings: &mut Vec<Finding>) {
        self.is_open |= batch.is_open;
        if let Some(text) = &batch.unread {
            self.add_file(text);
        }
        for wrong in &batch.wrong {
            let WrongObject {
                kinds,
                namespace,
                name,
                finding,
            } = wrong;
            if *kinds == ["ConfigMap"] {
                self.add_config_map(namespace, name, [finding.clone()]);
                continue;
            }
            findings.push(finding.clone());
            for kind in kinds {
                self.add(kind, namespace, name);
            }
        }
    }

    fn add_file(&mut self, text: &'a str) {
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        self.words.extend(text.split(|c| !in_name(c)));
    }

    /// Whether this object may exist.
    pub fn has(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let here = |namespace| self.objects.contains(&(kind, namespace, name));
        let unread = || self.words.contains(kind) && self.words.contains(name);
        self.is_open || here(namespace) || here("") || unread()
    }

    /// Whether a namespace may have a device that cannot be used.
    pub fn has_devices(&self, namespace: &str) -> bool {
        let of_namespace = |(kind, of, _): &(&str, &str, &str)| {
            *kind == "EdgeDevice" && (*of == namespace || of.is_empty())
        };
        self.is_open || self.words.contains("EdgeDevice") || self.objects.iter().any(of_namespace)
    }

    /// Returns the `ConfigMap`s: namespace, which is empty where it is not known, name, and what is wrong.
    pub fn config_maps(&self) -> &[(&'a str, &'a str, Finding)] {
        &self.config_maps
    }
}
