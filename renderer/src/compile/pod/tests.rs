use k8s_openapi::api::core::v1::PodSpec;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::*;

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
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<PodSpec>();
    let schema = schema.to_value();
    assert!(!is_field(&schema, "containers[].ports[].hostIp"));
    let mut seen = std::collections::BTreeSet::new();
    for field in fields() {
        assert!(is_field(&schema, field.path), "{}", field.path);
        assert!(seen.insert(field.path), "{} is listed twice", field.path);
        // a field below one that is refused would never be looked at
        let above = |other: &&Field| {
            matches!(other.becomes, Becomes::Refused(_))
                && field.path.starts_with(&format!("{}.", other.path))
        };
        assert_eq!(fields().find(above), None, "{}", field.path);
    }
}
