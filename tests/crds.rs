//! The CRDs and the JSON Schema of all kinds.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).expect("YAML")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds")
}

/// Runs the program; what it prints.
fn printed(arguments: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_flotta"))
        .args(arguments)
        .output()
        .expect("it starts");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// `FLOTTA_UPDATE_DOCS=1` writes the files anew.
#[test]
fn deploy_crds_is_what_the_types_say() {
    let all = printed(&["crds"]);
    let mut names = Vec::new();
    for text in all.split("---\n") {
        let [crd] = &documents(text)[..] else {
            panic!("one document: {text}");
        };
        let (group, plural) = (&crd["spec"]["group"], &crd["spec"]["names"]["plural"]);
        let text_of = |value: &Value| value.as_str().expect("text").to_owned();
        let name = format!("{}_{}.yaml", text_of(group), text_of(plural));
        let path = folder().join(&name);
        if std::env::var_os("FLOTTA_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(folder()).expect("a folder");
            std::fs::write(&path, text).expect("a file");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{name} is not what `flotta crds` prints: FLOTTA_UPDATE_DOCS=1 cargo test --test crds"
        );
        names.push(name);
    }
    names.sort();
    let files = std::fs::read_dir(folder()).expect("a folder");
    let mut files: Vec<_> = files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    files.sort();
    assert_eq!(files, names);
}

/// What Kubernetes asks of a structural schema, as far as it can be read off: every value says its type, or that it may be
/// anything.
fn structural(schema: &Value, path: &str) {
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["x-kubernetes-int-or-string"] == true;
    assert!(schema["type"].is_string() || free, "{path} has no type");
    for key in [
        "$ref",
        "definitions",
        "patternProperties",
        "additionalItems",
    ] {
        assert!(schema[key].is_null(), "{path} has {key}");
    }
    let both = schema["properties"].is_object() && !schema["additionalProperties"].is_null();
    assert!(!both, "{path} has properties and additionalProperties");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        structural(field, &format!("{path}.{name}"));
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            structural(&schema[key], &format!("{path}[]"));
        }
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        for key in keys.expect("keys") {
            let required = schema["items"]["required"].as_array().expect("required");
            assert!(required.contains(key), "{path}: {key} is not required");
        }
    }
}

#[test]
fn the_definitions_are_what_clusters_want() {
    for crd in documents(&printed(&["crds"])) {
        let names = &crd["spec"]["names"];
        let kind = names["kind"].as_str().expect("a kind");
        assert_eq!(names["categories"], serde_json::json!(["flotta"]), "{kind}");
        assert_eq!(
            names["shortNames"].as_array().map(Vec::len),
            Some(1),
            "{kind}"
        );
        let version = &crd["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object(), "{kind}");
        assert!(version["additionalPrinterColumns"][0].is_object(), "{kind}");
        let schema = &version["schema"]["openAPIV3Schema"];
        structural(schema, kind);
        let status = &schema["properties"]["status"];
        assert_eq!(
            status["default"],
            serde_json::json!({"observedGeneration": -1})
        );
        assert!(
            status["properties"]["observedGeneration"].is_object(),
            "{kind}"
        );
        let bytes = serde_json::to_string(&crd).expect("JSON").len();
        assert!(bytes < 262_144, "{kind} has {bytes} bytes");
    }
}

/// Whether the schema takes the documents of a text.
fn takes(schema: &jsonschema::Validator, text: &str) -> bool {
    let documents = documents(text);
    documents.iter().all(|document| schema.is_valid(document))
}

#[test]
fn the_editors_schema_takes_the_examples_and_finds_a_misspelt_field() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).expect("JSON");
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let schema = jsonschema::draft7::new(&schema).expect("a schema");
    let mut files = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                let text = std::fs::read_to_string(&path).expect("a file");
                assert!(takes(&schema, &text), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 10, "{files}");
    let workload = |container: &str| {
        format!(
            "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata: {{name: a}}\n\
             spec: {{type: pod, device: d, pod: {{spec: {{containers: [{{name: a, image: b, {container}}}]}}}}}}\n"
        )
    };
    assert!(takes(&schema, &workload("command: [x]")));
    assert!(!takes(&schema, &workload("comand: [x]")));
    let device = "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata: {name: a}\n";
    assert!(takes(&schema, device));
    assert!(!takes(
        &schema,
        &format!("{device}spec: {{heartbeat: {{period: 5}}}}\n")
    ));
    assert!(takes(
        &schema,
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
    ));
}
