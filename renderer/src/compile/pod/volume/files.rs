//! Volumes with files from `ConfigMap`s and from fields of the pod.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::manifest::FileKind;
use flotta_bundle::{DevicePath, code};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath, PodSpec,
    ProjectedVolumeSource,
};

use super::source::files_group;
use super::{Kind, inner_path};
use crate::compile::DATA_FOLDER;
use crate::compile::job::Job;
use crate::compile::pod::context::{ContainerContext, SPEC};
use crate::compile::pod::fieldref::{self, Unavailable};

/// A folder of the device that is being filled.
struct Folder {
    path: String,
    mode: u32,
    /// Whether the files would belong to a group in Kubernetes.
    has_group: bool,
    files: BTreeSet<DevicePath>,
}

/// A `ConfigMap` and the keys that the volume contains.
struct Keys<'a> {
    name: &'a str,
    optional: bool,
    items: Option<&'a [KeyToPath]>,
}

pub(super) fn config_map(
    job: &mut Job<'_>,
    spec: &PodSpec,
    volume: &str,
    source: &ConfigMapVolumeSource,
    pointer: &str,
) -> Kind {
    let mut folder = Folder::new(job, spec, volume, source.default_mode, pointer);
    let keys = Keys {
        name: &source.name,
        optional: source.optional == Some(true),
        items: source.items.as_deref(),
    };
    folder.add_keys(job, &keys, pointer);
    folder.finish()
}

pub(super) fn downward(
    job: &mut Job<'_>,
    spec: &PodSpec,
    volume: &str,
    source: &DownwardAPIVolumeSource,
    pointer: &str,
) -> Kind {
    let mut folder = Folder::new(job, spec, volume, source.default_mode, pointer);
    folder.add_fields(job, spec, source.items.as_deref(), pointer);
    folder.finish()
}

pub(super) fn projected(
    job: &mut Job<'_>,
    spec: &PodSpec,
    volume: &str,
    source: &ProjectedVolumeSource,
    pointer: &str,
) -> Kind {
    let mut folder = Folder::new(job, spec, volume, source.default_mode, pointer);
    for (index, source) in source.sources.iter().flatten().enumerate() {
        let pointer = format!("{pointer}/sources/{index}");
        if let Some(from) = &source.config_map {
            let keys = Keys {
                name: &from.name,
                optional: from.optional == Some(true),
                items: from.items.as_deref(),
            };
            folder.add_keys(job, &keys, &format!("{pointer}/configMap"));
        }
        if let Some(from) = &source.downward_api {
            let pointer = format!("{pointer}/downwardAPI");
            folder.add_fields(job, spec, from.items.as_deref(), &pointer);
        }
    }
    folder.finish()
}

impl Folder {
    fn new(
        job: &mut Job<'_>,
        spec: &PodSpec,
        volume: &str,
        mode: Option<i32>,
        pointer: &str,
    ) -> Self {
        let mut folder = Self {
            path: format!("{DATA_FOLDER}/{}/{volume}", job.name),
            mode: 0o644,
            has_group: files_group(spec).is_some(),
            files: BTreeSet::new(),
        };
        folder.mode = folder.permission(job, mode, &format!("{pointer}/defaultMode"));
        folder
    }

    fn finish(self) -> Kind {
        Kind::Files {
            folder: self.path,
            files: self.files.into_iter().collect(),
        }
    }

    fn add_keys(&mut self, job: &mut Job<'_>, keys: &Keys<'_>, pointer: &str) {
        if job.files.is_used_up() {
            return;
        }
        let at = format!("{pointer}/name");
        let Keys {
            name,
            optional,
            items,
        } = *keys;
        let text = job.config_map(name, optional, &at);
        let found = job.config_maps.get(&(job.namespace, name));
        let binary = found.and_then(|found| found.object.binary_data.clone());
        let text = text
            .into_iter()
            .map(|(key, value)| (key, value.into_bytes()));
        let mut entries: BTreeMap<String, Vec<u8>> = text.collect();
        let binary = binary.into_iter().flatten();
        entries.extend(binary.map(|(key, bytes)| (key, bytes.0)));
        // As in Kubernetes, no items at all means all keys.
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, content) in entries {
                self.put(job, &key, content, self.mode, &at);
            }
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let pointer = format!("{pointer}/items/{index}");
            if let Some(content) = entries.get(&item.key) {
                let mode = self.permission(job, item.mode, &format!("{pointer}/mode"));
                let at = format!("{pointer}/path");
                self.put(job, &item.path, content.clone(), mode, &at);
            } else if !optional && job.has_config_map(name) {
                let message = format!("ConfigMap `{name}` has no key `{}`", item.key);
                job.miss(&format!("{pointer}/key"), message);
            }
        }
    }

    fn add_fields(
        &mut self,
        job: &mut Job<'_>,
        spec: &PodSpec,
        items: Option<&[DownwardAPIVolumeFile]>,
        pointer: &str,
    ) {
        for (index, item) in items.into_iter().flatten().enumerate() {
            let pointer = format!("{pointer}/items/{index}");
            let (content, at) = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), None) => {
                    let at = format!("{pointer}/fieldRef/fieldPath");
                    (field_text(job, spec, &field.field_path), at)
                }
                (None, Some(selector)) if selector.container_name.is_some() => {
                    let at = format!("{pointer}/resourceFieldRef");
                    (fieldref::resource(pod_context(spec), selector), at)
                }
                _ => {
                    let message = "an item needs a `fieldRef`, or a `resourceFieldRef` with a `containerName`";
                    job.refuse(code::SCHEMA, &pointer, message);
                    continue;
                }
            };
            let content = match content {
                Ok(content) => content,
                Err(unavailable) => {
                    let (code, at, message) = unavailable.at(&at);
                    job.refuse(code, &at, message);
                    continue;
                }
            };
            let mode = self.permission(job, item.mode, &format!("{pointer}/mode"));
            let at = format!("{pointer}/path");
            self.put(job, &item.path, content.into_bytes(), mode, &at);
        }
    }

    /// Returns permission bits, or those of the folder. A mode with other bits is refused.
    fn permission(&self, job: &mut Job<'_>, mode: Option<i32>, pointer: &str) -> u32 {
        let Some(mode) = mode else {
            return self.mode;
        };
        let bits = u32::try_from(mode).ok().filter(|bits| *bits <= 0o777);
        match bits {
            None => {
                let message = format!("{mode} is not a mode from 0 to 0777 (511)");
                job.refuse(code::SCHEMA, pointer, message);
            }
            Some(bits) if self.has_group && bits & 0o004 == 0 => {
                let message = "with `fsGroup`, the group can read the file in Kubernetes, but on a device the file belongs to root: use a mode that lets others read it (0444)";
                job.refuse(code::UNSUPPORTED_FIELD, pointer, message);
            }
            Some(_) => {}
        }
        bits.unwrap_or(self.mode)
    }

    fn put(&mut self, job: &mut Job<'_>, name: &str, content: Vec<u8>, mode: u32, pointer: &str) {
        let Some(name) = inner_path(name) else {
            let message = format!("{name:?} is not a file name");
            job.refuse(code::BAD_NAME, pointer, message);
            return;
        };
        let path = job.put(&self.path, &name, content, FileKind::Data, mode, pointer);
        if let Some(path) = path
            && !self.files.insert(path)
        {
            let message = format!("the volume has two files `{name}`");
            job.refuse(code::DUPLICATE, pointer, message);
        }
    }
}

/// Returns the content of a file for a field of the pod. A file may also have all labels or annotations.
fn field_text(job: &mut Job<'_>, spec: &PodSpec, path: &str) -> Result<String, Unavailable> {
    // Kubernetes writes NAME="VALUE" and escapes as Go does.
    let lines = |pairs: &Option<BTreeMap<String, String>>| {
        let pairs = pairs.iter().flatten();
        let lines = pairs.map(|(name, value)| {
            let value = serde_json::Value::from(value.as_str());
            format!("{name}={value}")
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    };
    let metadata = &job.workload.object.metadata;
    match path {
        "metadata.labels" => lines(&metadata.labels),
        "metadata.annotations" => lines(&metadata.annotations),
        _ => fieldref::field(job, pod_context(spec), path),
    }
}

/// Returns the input for fields of the pod as a whole, for which any container will do. A pod has at least one.
fn pod_context(spec: &PodSpec) -> ContainerContext<'_> {
    ContainerContext {
        spec,
        container: &spec.containers[0],
        pointer: SPEC,
        init: false,
    }
}
