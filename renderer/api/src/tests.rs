use std::fmt::Write as _;

use super::*;

/// Writes kinds, names and fields on one line each, so that a reader can compare them with Project Flotta's.
#[test]
fn the_definitions_have_these_fields() {
    let mut text = String::new();
    for crd in crds() {
        let names = &crd.spec.names;
        let _ = writeln!(
            text,
            "{} {} {:?} {:?} {}",
            names.kind,
            names.plural,
            names.short_names.as_deref().unwrap_or_default(),
            names.categories.as_deref().unwrap_or_default(),
            crd.spec.scope
        );
        let version = serde_json::to_value(&crd.spec.versions[0]).expect("a version");
        fields(&mut text, "", &version["schema"]["openAPIV3Schema"]);
    }
    insta::assert_snapshot!(text);
}

fn fields(text: &mut String, path: &str, schema: &serde_json::Value) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let limits = ["enum", "minimum", "maximum", "minItems"].map(|key| match &field[key] {
            serde_json::Value::Null => String::new(),
            limit => format!(" {key} {limit}"),
        });
        let kind = field["type"].as_str().unwrap_or("any");
        let _ = writeln!(text, "  {path}: {kind}{}", limits.concat());
        fields(text, &path, field);
        fields(text, &format!("{path}[]"), &field["items"]);
        fields(text, &format!("{path}.*"), &field["additionalProperties"]);
    }
}

#[test]
fn devices_and_sets_have_the_same_settings() {
    let spec = |crd: CustomResourceDefinition| {
        let version = serde_json::to_value(&crd.spec.versions[0]).expect("a version");
        version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    };
    let device = spec(v1alpha1::EdgeDevice::crd());
    let set = spec(v1alpha1::EdgeDeviceSet::crd());
    let fields = v1alpha1::DeviceSettings::fields();
    assert!(fields.contains("logCollection"), "{fields:?}");
    for field in fields {
        assert!(device["properties"][field].is_object(), "{field}");
        assert_eq!(device["properties"][field], set["properties"][field]);
    }
    // Flattened, the fields are plain properties of the spec.
    for spec in [device, set] {
        let keys: Vec<_> = spec.as_object().expect("a schema").keys().collect();
        assert_eq!(keys, ["description", "properties", "type"]);
    }
}

#[test]
fn every_definition_is_structural_and_has_a_status() {
    for crd in crds() {
        let version = &crd.spec.versions[0];
        assert!(version.served && version.storage);
        assert!(
            version
                .subresources
                .as_ref()
                .is_some_and(|s| s.status.is_some()),
            "{}",
            crd.spec.names.kind
        );
        let text = serde_json::to_string(&crd).expect("a definition");
        assert!(
            !text.contains("$ref"),
            "{}: a structural schema has no references",
            crd.spec.names.kind
        );
        assert!(
            text.len() < 262_144,
            "client-side apply keeps the whole of it in an annotation"
        );
    }
}

#[test]
fn project_flottas_samples_parse() {
    let device: v1alpha1::EdgeDevice = parse(
        r#"{"apiVersion":"management.project-flotta.io/v1alpha1","kind":"EdgeDevice","metadata":{"name":"d"},"spec":{
        "osInformation":{"automaticallyUpgrade":true,"commitID":"c","hostedObjectsURL":"http://x"},
        "requestTime":"2021-10-18T14:51:26Z",
        "heartbeat":{"periodSeconds":5,"hardwareProfile":{"include":true,"scope":"delta"}},
        "storage":{"s3":{"secretName":"s","configMapName":"c","createOBC":false}},
        "metrics":{"retention":{"maxMiB":1,"maxHours":2},"system":{"interval":60,"allowList":{"name":"a"},"disabled":false},
          "dataTransfer":{"interval":60},"receiverConfiguration":{"url":"u","caSecretName":"s","requestNumSamples":1,"timeoutSeconds":2}},
        "logCollection":{"syslog":{"kind":"syslog","bufferSize":5,"syslogConfig":{"name":"c"}}},
        "mounts":[{"device":"/dev/loop1","folder":"/mnt","type":"ext4","options":"defaults"}]}}"#,
    );
    assert_eq!(
        device
            .spec
            .settings
            .heartbeat
            .and_then(|h| h.period_seconds),
        Some(5)
    );
    let workload: v1alpha1::EdgeWorkload = parse(
        r#"{"apiVersion":"management.project-flotta.io/v1alpha1","kind":"EdgeWorkload","metadata":{"name":"nginx"},"spec":{
        "deviceSelector":{"matchLabels":{"dc":"home"}},"type":"pod","imageRegistries":{"secretRef":{"name":"s"}},
        "data":{"egress":[{"source":"a","target":"b"}],"ingress":[{"source":"a","target":"b"}]},"logCollection":"syslog",
        "metrics":{"path":"/m","port":8080,"interval":30,"allowList":{"name":"a"},"containers":{"c":{"path":"/","port":1,"disabled":true}}},
        "pod":{"spec":{"containers":[{"name":"nginx","image":"quay.io/bitnami/nginx:1.20","ports":[{"containerPort":8080,"hostPort":9090}]}]}}}}"#,
    );
    assert_eq!(
        workload.spec.pod.map(|pod| pod.spec.containers.len()),
        Some(1)
    );
    let _: v1alpha1::EdgeConfig = parse(
        r#"{"apiVersion":"management.project-flotta.io/v1alpha1","kind":"EdgeConfig","metadata":{"name":"e"},"spec":{"edgePlaybook":{
        "user":"root","playbooks":[{"content":"LS0t","timeoutSeconds":1,"requiredPrivilegeLevel":{"capAdd":[1],"capDrop":[]},
        "ansibleOptions":{"check":true},"privilegeEscalationOptions":{"become":true,"becomeMethod":"sudo","becomeUser":"x"},"executionStrategy":"StopOnFailure"}]}}}"#,
    );
    let _: v1alpha1::EdgeDeviceSignedRequest = parse(
        r#"{"apiVersion":"management.project-flotta.io/v1alpha1","kind":"EdgeDeviceSignedRequest","metadata":{"name":"d"},
        "spec":{"targetNamespace":"n","targetSet":"s","approved":true,"features":{"modelName":"m","hardware":{"cpu":{"count":4}}}},
        "status":{"conditions":[{"type":"approved","status":"true","message":"","lastTransitionTime":"2022-01-01T00:00:00Z"}]}}"#,
    );
}

fn parse<K: serde::de::DeserializeOwned>(text: &str) -> K {
    serde_json::from_str(text).expect("an object")
}
