//! The schemas of all kinds, made strict: an unknown field is an error instead of being dropped silently.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use flotta_api::{GROUP, VERSION, WITHOUT_SPEC};
use flotta_bundle::code;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::decode::Document;
use crate::finding::Finding;
use crate::pointer::{key, step};

/// The least similarity of a name that is suggested for an unknown one.
const ALIKE: f64 = 0.75;
/// The most findings about one object.
const MAX_FINDINGS: usize = 20;

static VALIDATORS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
    let validator = |schema: &Value| {
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(schema)
            .expect("generated schemas are valid")
    };
    let all = schemas();
    all.into_iter()
        .map(|(kind, schema)| (kind, validator(&schema)))
        .collect()
});

/// The schemas as JSON, to look up fields. They take megabytes, so they are created for the first invalid object.
static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(schemas);

fn schemas() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for crd in flotta_api::crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema);
        let mut schema = schema.expect("a schema is JSON")["openAPIV3Schema"].take();
        if crd.spec.names.kind == "EdgeWorkload" {
            // The CRD leaves it open to stay small; here it gets Kubernetes' schema.
            schema["properties"]["spec"]["properties"]["pod"]["properties"]["spec"] =
                of::<PodSpec>();
        }
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({"type": "string"});
        }
        schema["properties"]["metadata"] = of::<ObjectMeta>();
        schema["required"] = if WITHOUT_SPEC.contains(&crd.spec.names.kind.as_str()) {
            json!(["metadata"])
        } else {
            json!(["metadata", "spec"])
        };
        // The status is not checked, so that objects exported from a cluster are accepted.
        schema["properties"]["status"] = json!({});
        all.insert(crd.spec.names.kind, schema);
    }
    all.insert("ConfigMap".to_owned(), of::<ConfigMap>());
    for schema in all.values_mut() {
        schema["properties"]["metadata"]["required"] = json!(["name"]);
        strict(schema);
    }
    all
}

/// Returns one JSON Schema (draft 7) for files with objects of all kinds, for editors. Documents of other kinds are not checked.
pub fn editor_schema() -> Value {
    let all = schemas();
    let of_kind = all.iter().map(|(kind, schema)| {
        let version = version_of(kind);
        let is = json!({
            "required": ["apiVersion", "kind"],
            "properties": {"apiVersion": {"const": version}, "kind": {"const": kind}},
        });
        json!({"if": is, "then": schema})
    });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Objects of a Flotta fleet",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"anyOf": [{"enum": all.keys().collect::<Vec<_>>()}, {"type": "string"}]},
        },
        "allOf": of_kind.collect::<Vec<_>>(),
    })
}

/// Returns the `apiVersion` of a kind.
pub(super) fn version_of(kind: &str) -> String {
    if kind == "ConfigMap" {
        "v1".to_owned()
    } else {
        format!("{GROUP}/{VERSION}")
    }
}

/// Returns Kubernetes' own schema of a type, without references. Its types are not recursive.
fn of<T: schemars::JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Makes a schema strict: forbids unknown fields, and translates Kubernetes' extensions to JSON Schema.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for value in map.values_mut() {
                strict(value);
            }
            strict_object(map);
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

fn strict_object(map: &mut Map<String, Value>) {
    let is = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
    if is(map, "x-kubernetes-int-or-string") {
        map.insert("type".to_owned(), json!(["integer", "string", "number"]));
    }
    // `properties` may also be the name of a field: then it is no mapping of schemas under a `type: object`.
    let object = map.get("type") == Some(&json!("object"));
    let open =
        map.contains_key("additionalProperties") || is(map, "x-kubernetes-preserve-unknown-fields");
    if object && map.get("properties").is_some_and(Value::is_object) && !open {
        map.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// Returns the names of all kinds.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    VALIDATORS.keys().map(String::as_str)
}

/// Returns the kind with this name.
pub(super) fn known(kind: &str) -> Option<&'static str> {
    VALIDATORS
        .get_key_value(kind)
        .map(|(kind, _)| kind.as_str())
}

/// Checks an object against the schema of its kind.
pub(super) fn check(kind: &str, document: &Document) -> Vec<Finding> {
    let Some(validator) = VALIDATORS.get(kind) else {
        return Vec::new();
    };
    let errors = validator.iter_errors(&document.value);
    let mut all = errors.flat_map(|error| findings(&error, document, &SCHEMAS[kind]));
    let mut findings: Vec<_> = all.by_ref().take(MAX_FINDINGS).collect();
    let more = all.count();
    if more > 0 {
        let message =
            format!("{MAX_FINDINGS} mistakes in this object are shown, and it has {more} more");
        findings.push(Finding::error(code::SCHEMA, document.place(""), message));
    }
    findings
}

/// Reports what the schema allows and the type does not: numbers, quantities, times and bytes have a grammar of their own.
pub(super) fn refused_by_type(
    kind: &str,
    document: &Document,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> Finding {
    use serde_path_to_error::Segment;
    let mut at = String::new();
    for segment in error.path() {
        at.push('/');
        match segment {
            Segment::Seq { index } => at += &index.to_string(),
            Segment::Map { key } => at += &step(key),
            Segment::Enum { .. } | Segment::Unknown => {
                at.pop();
                break;
            }
        }
    }
    let what = name_of(&at, document);
    let format = schema_at(&SCHEMAS[kind], &at).get("format");
    let message = match format.and_then(Value::as_str) {
        Some("byte") => format!("{what} must be base64"),
        Some("date-time") => format!("{what} must be a time, such as 2026-01-31T12:00:00Z"),
        Some(number @ ("int32" | "int64")) => {
            let bits = number.trim_start_matches("int");
            format!("{what} must be a whole number of {bits} bits")
        }
        _ => format!("{what}: {}", error.inner()),
    };
    Finding::error(code::SCHEMA, document.place(&at), message)
}

fn findings(error: &ValidationError<'_>, document: &Document, schema: &Value) -> Vec<Finding> {
    let at = error.instance_path().as_str();
    let what = name_of(at, document);
    let mut help = None;
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = fields_at(schema, at);
            return unexpected
                .iter()
                .map(|field| unknown_field(field, at, document, &known))
                .collect();
        }
        ValidationErrorKind::Required { property } => {
            format!(
                "{what} lacks the field `{}`",
                property.as_str().unwrap_or_default()
            )
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            format!("{what} must be one of: {}", options.join(", "))
        }
        ValidationErrorKind::Type { .. } => {
            // jsonschema's own message contains the value, which may be long.
            let words = error.masked_with("").to_string();
            let wanted = words.rsplit("is not of type").next().unwrap_or_default();
            let wanted = wanted.trim_start_matches('s').trim().replace('"', "");
            let value = error.instance();
            if wanted.contains("string") && value.is_null() {
                help = Some("write `\"\"` if it is to be empty".to_owned());
            } else if wanted.contains("string") && (value.is_boolean() || value.is_number()) {
                let made = type_of(value);
                help = Some(format!(
                    "put it in quotes: otherwise YAML reads it as {made}"
                ));
            }
            if wanted == "integer" && value.is_number() {
                format!("{what} must be a whole number, not {value}")
            } else {
                format!("{what} must be of type {wanted}, not {}", type_of(value))
            }
        }
        _ => format!("{what}: {}", error.masked_with("the value")),
    };
    // the value of a key without a value has no place
    let place = match error.instance().as_ref() {
        Value::Null => document.key_place(at),
        _ => document.place(at),
    };
    let mut finding = Finding::error(code::SCHEMA, place, message);
    finding.help = help;
    vec![finding]
}

/// Returns the last step of a JSON pointer for messages: a key, or a list item such as `ports[0]`.
fn name_of(at: &str, document: &Document) -> String {
    let Some((parent, step)) = at.rsplit_once('/') else {
        return "the object".to_owned();
    };
    match parent.rsplit_once('/') {
        Some((_, list)) if document.at(parent).is_some_and(Value::is_array) => {
            format!("`{}[{step}]`", key(list))
        }
        _ => format!("`{}`", key(step)),
    }
}

fn unknown_field(field: &str, at: &str, document: &Document, known: &[&str]) -> Finding {
    let place = document.key_place(&format!("{at}/{}", step(field)));
    let finding = Finding::error(
        code::UNKNOWN_FIELD,
        place,
        format!("unknown field `{field}`"),
    );
    let score = |known: &str| {
        strsim::jaro_winkler(&known.to_ascii_lowercase(), &field.to_ascii_lowercase())
    };
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    match best {
        Some(best) if score(best) > ALIKE => finding.with_help(format!("did you mean `{best}`?")),
        _ => finding,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Returns the fields that the schema has at a pointer of an instance.
fn fields_at<'a>(schema: &'a Value, at: &str) -> Vec<&'a str> {
    schema_at(schema, at)["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}

/// Returns the part of the schema that is for a pointer of an instance.
fn schema_at<'a>(schema: &'a Value, at: &str) -> &'a Value {
    let mut here = schema;
    for part in at.split('/').skip(1) {
        let name = key(part);
        let next = here["properties"]
            .get(name.as_ref())
            .or_else(|| here.get("items"))
            .or_else(|| here.get("additionalProperties"));
        here = next.unwrap_or(&Value::Null);
    }
    here
}
