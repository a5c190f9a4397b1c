//! What is there and cannot be used. What is wrong with it is said once, of itself: that whoever refers to it does not find it
//! is no mistake of its own.

use std::collections::HashSet;

use crate::finding::Finding;

/// Objects that are broken or encrypted, and files that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Unusable<'a> {
    /// Kind, namespace and name.
    objects: HashSet<(&'a str, &'a str, &'a str)>,
    /// Namespace and name of `ConfigMap`s that are encrypted, with what is said of them.
    encrypted: Vec<(&'a str, &'a str, &'a Finding)>,
    /// The words of files that cannot be read: what is in them is not known, but what is not named there is not.
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

    /// Whether this object is there, as far as one can tell.
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

    /// `ConfigMap`s that are encrypted: namespace, name, and what is said of them.
    pub fn encrypted(&self) -> &[(&'a str, &'a str, &'a Finding)] {
        &self.encrypted
    }
}
