//! Objects of a cluster are rendered like those of files, and their errors are reported at the object.

use flotta_bundle::{DeviceName, code};
use flotta_renderer::{
    Batch, Document, Input, ObjectRef, Options, Place, Rendered, Scope, Severity, render,
};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";

fn objects() -> Vec<Value> {
    let version = "management.project-flotta.io/v1alpha1";
    let image = format!("registry.example/web@{DIGEST}");
    let container = json!({"name": "web", "image": image, "workingDir": null});
    let web = json!({"type": "pod", "deviceSelector": {"matchLabels": {"role": "till"}}, "pod": {"spec": {"containers": [container]}}});
    let mut bad = web.clone();
    bad["pod"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostport": 80}]);
    let object = |kind: &str, name: &str, spec: &Value| {
        // as an API server returns it: with a status, and null for what is not set
        let metadata = json!({"name": name, "namespace": "shops", "labels": {"role": "till"}, "uid": name, "generation": 3, "annotations": null});
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": {"x": 1}})
    };
    vec![
        object("EdgeDevice", "till-1", &json!({})),
        object("EdgeWorkload", "web", &web),
        object("EdgeWorkload", "bad", &bad),
    ]
}

fn of_cluster(object: Value) -> Batch {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.expect("it is there").to_owned()
    };
    let reference = ObjectRef {
        kind: text("/kind"),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
        version: object["metadata"]["generation"].to_string(),
    };
    Batch::of([Document::of_object(object, reference)])
}

fn till(rendered: &Rendered) -> &flotta_renderer::RenderedDevice {
    &rendered.devices[&DeviceName::new("shops", "till-1").expect("a name")]
}

#[test]
fn an_object_of_a_cluster_is_rendered_like_one_of_a_file() {
    let in_cluster: Input = objects().into_iter().map(of_cluster).collect();
    let in_cluster = render(&in_cluster, &[], &Options::default());
    let in_files = objects().into_iter().enumerate().map(|(at, object)| {
        // JSON is YAML
        Batch::of_file(&format!("{at}.yaml"), object.to_string().as_bytes())
    });
    let in_files = render(&in_files.collect(), &[], &Options::default());
    assert_eq!(in_cluster.devices, in_files.devices);
    assert_eq!(in_cluster.blobs, in_files.blobs);
    assert_eq!(till(&in_cluster).workloads.as_ref(), ["web"]);
}

#[test]
fn an_error_is_reported_at_its_object_and_the_others_are_rendered() {
    let input: Input = objects().into_iter().map(of_cluster).collect();
    let rendered = render(&input, &[], &Options::default());
    let [finding] = rendered.findings.as_slice() else {
        panic!("{:?}", rendered.findings);
    };
    assert_eq!(
        (finding.severity, finding.code, &finding.scope),
        (Severity::Error, code::UNKNOWN_FIELD, &Scope::Object)
    );
    let Place::Field { object, pointer } = &finding.place else {
        panic!("{:?}", finding.place);
    };
    assert_eq!((object.uid.as_str(), object.version.as_str()), ("bad", "3"));
    assert_eq!(pointer, "/spec/pod/spec/containers/0/ports/0/hostport");
    assert_eq!(
        finding.place.to_string(),
        "EdgeWorkload shops/bad spec.pod.spec.containers[0].ports[0].hostport"
    );
    assert_eq!(till(&rendered).workloads.as_ref(), ["web"]);
}
