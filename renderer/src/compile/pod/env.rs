//! A container's environment: values, `ConfigMap` keys, the pod's own fields.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::EnvVar;

use super::asked::Asked;
use super::field::Field;
use crate::compile::job::Job;

pub(super) const FIELDS: &[Field] = &[
    Field::carried("containers[].env", "`Environment=`"),
    Field::carried("containers[].envFrom", "`Environment=`"),
];

/// The variables in Kubernetes' order: `envFrom` first, then `env`; the later of one name wins.
pub(super) fn environment(job: &mut Job<'_>, asked: Asked<'_>) -> Vec<(String, String)> {
    let container = asked.container;
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut set = |key: String, value: String| {
        variables.retain(|(name, _)| *name != key);
        variables.push((key, value));
    };
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        let pointer = asked.at(&format!("envFrom/{index}"));
        if from.secret_ref.is_some() {
            job.refuse(
                code::UNSUPPORTED_FIELD,
                &format!("{pointer}/secretRef"),
                "secrets come in a later version",
            );
        }
        let Some(reference) = &from.config_map_ref else {
            continue;
        };
        let prefix = from.prefix.clone().unwrap_or_default();
        let optional = reference.optional == Some(true);
        let pointer = format!("{pointer}/configMapRef/name");
        for (key, value) in job.config_map(&reference.name, optional, &pointer) {
            let name = format!("{prefix}{key}");
            // As Kubernetes does: keys that are no variable names are left out.
            if is_variable(&name) {
                set(name, value);
            }
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let pointer = asked.at(&format!("env/{index}"));
        if !is_variable(&variable.name) {
            job.refuse(
                code::SCHEMA,
                &format!("{pointer}/name"),
                format!("{:?} is not a variable name", variable.name),
            );
            continue;
        }
        if let Some(value) = value(job, variable, &pointer) {
            set(variable.name.clone(), value);
        }
    }
    for index in 0..variables.len() {
        let (before, rest) = variables.split_at_mut(index);
        rest[0].1 = expand(&rest[0].1, before);
    }
    variables
}

fn value(job: &mut Job<'_>, variable: &EnvVar, pointer: &str) -> Option<String> {
    let Some(from) = &variable.value_from else {
        return Some(variable.value.clone().unwrap_or_default());
    };
    let pointer = format!("{pointer}/valueFrom");
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let pointer = format!("{pointer}/configMapKeyRef");
        let name = &reference.name;
        if optional && !job.has_config_map(name) {
            return None;
        }
        let found = job
            .config_map(name, optional, &format!("{pointer}/name"))
            .into_iter()
            .find(|(key, _)| *key == reference.key);
        if found.is_none() && !optional && job.has_config_map(name) {
            job.miss(
                &format!("{pointer}/key"),
                format!("ConfigMap `{name}` has no key `{}`", reference.key),
            );
        }
        return found.map(|(_, value)| value);
    }
    if let Some(field) = &from.field_ref {
        return match field.field_path.as_str() {
            "metadata.name" => Some(job.name.to_owned()),
            "metadata.namespace" => Some(job.namespace.to_owned()),
            other => {
                let message = format!(
                    "`{other}` is not known before the device runs it; metadata.name and metadata.namespace are"
                );
                job.refuse(
                    code::UNSUPPORTED_FIELD,
                    &format!("{pointer}/fieldRef/fieldPath"),
                    message,
                );
                None
            }
        };
    }
    let what = if from.secret_key_ref.is_some() {
        "secrets come in a later version"
    } else {
        "this source of a value is not supported on devices"
    };
    job.refuse(code::UNSUPPORTED_FIELD, &pointer, what);
    None
}

/// What a shell and systemd both accept.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Kubernetes' `$(NAME)`: replaced when the variable is known, left as it is when not; `$$(NAME)` is `$(NAME)` itself.
pub(super) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
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
