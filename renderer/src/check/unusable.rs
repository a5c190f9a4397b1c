//! Objects that exist and cannot be used. Each has its own finding, so references to it are not reported as missing.

use std::collections::HashSet;

use crate::finding::Finding;

/// Objects that are broken or encrypted, and files that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Unusable<'a> {
    /// Kind, namespace and name.
    objects: HashSet<(&'a str, &'a str, &'a str)>,
    /// The namespace and name of encrypted `ConfigMap`s, with their findings.
    encrypted: Vec<(&'a str, &'a str, &'a Finding)>,
    /// All words of files that cannot be read. An object whose name is not among them is not in such a file.
    words: HashSet<&'a str>,
}

impl<'a> Unusable<'a> {
    pub(super) fn add(
        &mut self,
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
        encrypted: Option<&'a Finding>,
    ) {
        self.objects.insert((kind, namespace, name));
        self.encrypted
            .extend(encrypted.map(|finding| (namespace, name, finding)));
    }

    pub(super) fn add_file(&mut self, text: &'a str) {
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        self.words.extend(text.split(|c| !in_name(c)));
    }

    /// Whether this object may exist.
    pub fn has(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let unread = || self.words.contains(kind) && self.words.contains(name);
        self.objects.contains(&(kind, namespace, name)) || unread()
    }

    /// Whether a namespace may have a device that cannot be used.
    pub fn has_devices(&self, namespace: &str) -> bool {
        let of_namespace =
            |(kind, of, _): &(&str, &str, &str)| *kind == "EdgeDevice" && *of == namespace;
        self.words.contains("EdgeDevice") || self.objects.iter().any(of_namespace)
    }

    /// Returns the encrypted `ConfigMap`s: namespace, name and finding.
    pub fn encrypted(&self) -> &[(&'a str, &'a str, &'a Finding)] {
        &self.encrypted
    }
}
