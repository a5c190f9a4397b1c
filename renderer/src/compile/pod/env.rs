//! The environment of a container: values, keys of `ConfigMap`s and fields of the pod.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{ConfigMapKeySelector, EnvFromSource, EnvVar, EnvVarSource};

use super::context::ContainerContext;
use super::field::Field;
use super::fieldref;
use crate::compile::job::Job;
use crate::compile::writer::MAX_WORD;

/// Most variables of one container.
const MAX_VARIABLES: usize = 4096;

pub(super) const FIELDS: &[Field] = &[
    Field::supported("containers[].env", "`Environment=`"),
    Field::supported("containers[].envFrom", "`Environment=`"),
];

/// Returns the variables in Kubernetes' order: `envFrom` before `env`. The last of the same name wins.
pub(super) fn environment(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
) -> Vec<(String, String)> {
    let container = context.container;
    let mut variables = Vec::new();
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        if is_enough(job, &variables) {
            break;
        }
        add_all(
            job,
            from,
            &context.at(&format!("envFrom/{index}")),
            &mut variables,
        );
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if is_enough(job, &variables) {
            break;
        }
        let pointer = context.at(&format!("env/{index}"));
        add(job, context, variable, &pointer, &mut variables);
    }
    variables
}

/// Adds the entries of a `ConfigMap` unchanged.
fn add_all(
    job: &mut Job<'_>,
    from: &EnvFromSource,
    pointer: &str,
    variables: &mut Vec<(String, String)>,
) {
    if from.secret_ref.is_some() {
        let pointer = format!("{pointer}/secretRef");
        let message = "secrets are not supported yet";
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
    let prefix = from.prefix.as_deref().unwrap_or_default();
    if !prefix.is_empty() && !name_is_good(job, prefix, &format!("{pointer}/prefix")) {
        return;
    }
    let Some(reference) = &from.config_map_ref else {
        return;
    };
    let optional = reference.optional == Some(true);
    let pointer = format!("{pointer}/configMapRef/name");
    for (key, value) in job.config_map(&reference.name, optional, &pointer) {
        if is_enough(job, variables) {
            return;
        }
        set(job, variables, format!("{prefix}{key}"), value, &pointer);
    }
}

fn add(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    variable: &EnvVar,
    pointer: &str,
    variables: &mut Vec<(String, String)>,
) {
    let name = &variable.name;
    if !name_is_good(job, name, &format!("{pointer}/name")) {
        return;
    }
    let given = variable.value.as_deref().unwrap_or_default();
    let value = match &variable.value_from {
        Some(_) if !given.is_empty() => {
            let message = "give `value` or `valueFrom`, not both";
            job.refuse(code::SCHEMA, &format!("{pointer}/valueFrom"), message);
            None
        }
        Some(from) => value(job, context, from, &format!("{pointer}/valueFrom")),
        None => Some(expand(given, variables)),
    };
    if let Some(value) = value {
        set(job, variables, name.clone(), value, pointer);
    }
}

fn set(
    job: &mut Job<'_>,
    variables: &mut Vec<(String, String)>,
    name: String,
    value: String,
    pointer: &str,
) {
    if job.word(&format!("{name}={value}"), pointer) {
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        if variables.len() > MAX_VARIABLES {
            let message = format!("a container has at most {MAX_VARIABLES} variables");
            job.refuse(code::LIMIT, pointer, message);
        }
    }
}

/// Whether the container has too many variables, which has been reported.
fn is_enough(job: &Job<'_>, variables: &[(String, String)]) -> bool {
    job.words.is_used_up() || variables.len() > MAX_VARIABLES
}

/// Returns the value of a `valueFrom`. If it is missing, there is none, with a finding unless it is optional.
fn value(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    from: &EnvVarSource,
    pointer: &str,
) -> Option<String> {
    let known = if let Some(reference) = &from.config_map_key_ref {
        return key(job, reference, &format!("{pointer}/configMapKeyRef"));
    } else if let Some(field) = &from.field_ref {
        fieldref::field(job, context, &field.field_path)
            .map_err(|refused| refused.at(&format!("{pointer}/fieldRef/fieldPath")))
    } else if let Some(resource) = &from.resource_field_ref {
        fieldref::resource(context, resource)
            .map_err(|refused| refused.at(&format!("{pointer}/resourceFieldRef")))
    } else {
        let message = if from.secret_key_ref.is_some() {
            "secrets are not supported yet"
        } else {
            "this source of a value is not supported on devices"
        };
        job.refuse(code::UNSUPPORTED_FIELD, pointer, message);
        return None;
    };
    known
        .map_err(|(code, pointer, message)| job.refuse(code, &pointer, message))
        .ok()
}

/// Returns the value of a key of a `ConfigMap`, unchanged.
fn key(job: &mut Job<'_>, reference: &ConfigMapKeySelector, pointer: &str) -> Option<String> {
    let ConfigMapKeySelector {
        name,
        key,
        optional,
    } = reference;
    let optional = *optional == Some(true);
    let all = job.config_map(name, optional, &format!("{pointer}/name"));
    let found = all.into_iter().find(|(other, _)| other == key);
    if found.is_none() && !optional && job.has_config_map(name) {
        let message = format!("ConfigMap `{name}` has no key `{key}`");
        job.miss(&format!("{pointer}/key"), message);
    }
    found.map(|(_, value)| value)
}

/// Whether a name is one of a variable in Kubernetes: printable ASCII without `=`. Podman would trim a leading space.
fn name_is_good(job: &mut Job<'_>, name: &str, pointer: &str) -> bool {
    let good = |c: char| (' '..='~').contains(&c) && c != '=';
    let good = !name.is_empty() && !name.starts_with(' ') && name.chars().all(good);
    if !good {
        let message = format!(
            "{name:?} is not the name of a variable: use printable ASCII characters without `=`"
        );
        job.refuse(code::SCHEMA, pointer, message);
    }
    good
}

/// Expands Kubernetes' `$(NAME)` for known variables and leaves others unchanged; `$$(NAME)` is a literal `$(NAME)`. Stops where
/// the text is too long for an argument of a program.
pub(super) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if out.len() > MAX_WORD {
            return out;
        }
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(escaped) = rest.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            if let Some((_, value)) = variables.iter().find(|(key, _)| key == name) {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}
