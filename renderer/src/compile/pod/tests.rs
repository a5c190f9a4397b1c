use k8s_openapi::api::core::v1::PodSpec;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::field::{Ruling, path_of};
use super::*;

/// Returns Kubernetes' own schema.
fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let generator = settings.into_generator();
    generator.into_root_schema_for::<PodSpec>().to_value()
}

/// Whether Kubernetes' schema has a field: `containers[].ports[].hostIP`.
fn is_field(schema: &Value, path: &str) -> bool {
    let mut here = schema;
    for step in path.split('.') {
        let (name, list) = step.strip_suffix("[]").map_or((step, false), |n| (n, true));
        here = &here["properties"][name];
        if list {
            here = &here["items"];
        }
    }
    here.is_object()
}

#[test]
fn every_path_is_a_field_of_kubernetes_and_in_one_list() {
    let schema = schema();
    assert!(!is_field(&schema, "containers[].ports[].hostIp"));
    let mut seen = std::collections::BTreeSet::new();
    for field in fields() {
        assert!(is_field(&schema, field.path), "{}", field.path);
        assert!(seen.insert(field.path), "{} is listed twice", field.path);
        // A field below a refused field would never be checked.
        let above = |other: &&Field| {
            matches!(other.becomes, Becomes::Refused(_))
                && field.path.starts_with(&format!("{}.", other.path))
        };
        assert_eq!(fields().find(above), None, "{}", field.path);
    }
}

/// Collects the fields of a schema that are in no list.
fn unlisted(schema: &Value, within: &str, found: &mut Vec<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = path_of(key, within);
        match RULES.ruling(&path, within) {
            Ruling::Refused(_) | Ruling::NoEffect(_) => {}
            Ruling::Unlisted => found.push(path),
            Ruling::Supported => {
                unlisted(schema, &path, found);
                unlisted(&schema["items"], &format!("{path}[]"), found);
            }
        }
    }
}

/// Each field of Kubernetes is in a list. A field of a new version fails this test.
#[test]
fn every_field_of_kubernetes_is_decided() {
    let mut found = Vec::new();
    unlisted(&schema(), "", &mut found);
    assert_eq!(found, [""; 0]);
    // The search does find an unlisted field.
    let newer =
        serde_json::json!({"properties": {"containers": {"items": {"properties": {"novel": {}}}}}});
    unlisted(&newer, "", &mut found);
    assert_eq!(found, ["containers[].novel"]);
}
