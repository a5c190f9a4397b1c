use flotta_bundle::Manifest;
use flotta_bundle::manifest::Settings;
use serde_json::{Value, json};

use super::*;
use crate::check::Batch;

/// Specs, of devices or sets, that set one of the settings to something new each. A setting that is added does not compile until
/// it is here.
fn specs(default: &Settings) -> [Value; 2] {
    let Settings {
        heartbeat_seconds,
        servers,
    } = default;
    assert!(servers.is_empty());
    [
        json!({"heartbeat": {"periodSeconds": heartbeat_seconds + 1}}),
        json!({"servers": ["https://other.example:8443"]}),
    ]
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    let version = "management.project-flotta.io/v1alpha1";
    let labels = json!({"all": "yes", "own": name});
    let metadata = json!({"name": name, "labels": labels});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
}

#[test]
fn devices_share_a_manifest_when_all_that_is_in_it_is_the_same_and_only_then() {
    let specs = specs(&Settings::default());
    let mut objects = vec![
        object("EdgeDevice", "plain", &json!({})),
        object("EdgeDevice", "same", &json!({})),
    ];
    for (at, spec) in specs.iter().enumerate() {
        let member = format!("member-{at}");
        let selector = json!({"matchLabels": {"own": member}});
        let mut of_set = spec.clone();
        of_set["selector"] = selector;
        objects.push(object("EdgeDeviceSet", &format!("set-{at}"), &of_set));
        objects.push(object("EdgeDevice", &member, &json!({})));
        objects.push(object("EdgeDevice", &format!("own-{at}"), spec));
    }
    let hello = json!({"hello.container": "[Container]\nImage=registry.example/hello\n"});
    let selector = json!({"matchLabels": {"all": "yes"}});
    let spec = json!({"type": "quadlet", "deviceSelector": selector, "quadlet": hello});
    objects.push(object("EdgeWorkload", "hello", &spec));
    let rendered = render_text(&objects.join("\n---\n"));
    let manifest = |name: &str| {
        let name = DeviceName::new("default", name).expect("a name");
        rendered.devices[&name].manifest
    };
    assert_eq!(manifest("plain"), manifest("same"));
    let mut different = BTreeSet::from([manifest("plain")]);
    for (at, spec) in specs.iter().enumerate() {
        let own = manifest(&format!("own-{at}"));
        assert_eq!(own, manifest(&format!("member-{at}")), "{spec}");
        assert!(different.insert(own), "{spec} changes nothing");
        let read = Manifest::parse(&rendered.blobs[&own]).expect("a manifest");
        assert_ne!(read.settings, Settings::default());
    }
    assert_eq!(rendered.counts.manifests, different.len());
}

#[test]
fn what_is_wrong_with_a_workload_on_one_device_alone_holds_that_device() {
    let long = "l".repeat(63);
    let field = json!({"fieldRef": {"fieldPath": "spec.nodeName"}});
    // longer than a program can be given, once the name is put in its place
    let argument = "$(NODE)".repeat(2_200);
    let container = json!({
        "name": "app",
        "image": "registry.example/app",
        "env": [{"name": "NODE", "valueFrom": field}],
        "args": [argument],
    });
    let selector = json!({"matchLabels": {"all": "yes"}});
    let pod = json!({"spec": {"containers": [container]}});
    let spec = json!({"type": "pod", "deviceSelector": selector, "pod": pod});
    let objects = [
        object("EdgeDevice", &long, &json!({})),
        object("EdgeDevice", "short", &json!({})),
        object("EdgeWorkload", "app", &spec),
    ];
    let text = objects.join("\n---\n");
    let input = Input::from_iter([Batch::of_file("a.yaml", text.as_bytes())]);
    let rendered = render(&input, &[], &Options::default());
    let named = |name: &str| DeviceName::new("default", name).expect("a name");
    let errors: Vec<_> = rendered.findings.iter().filter(|f| f.is_error()).collect();
    let [error] = errors.as_slice() else {
        unreachable!("one error: {errors:?}")
    };
    assert_eq!(error.scope, Scope::Devices(vec![named(&long)]));
    assert_eq!(rendered.held, BTreeSet::from([named(&long)]));
    assert!(rendered.devices.contains_key(&named("short")));
}

fn render_text(text: &str) -> Rendered {
    let input = Input::from_iter([Batch::of_file("a.yaml", text.as_bytes())]);
    let rendered = render(&input, &[], &Options::default());
    assert!(
        rendered
            .findings
            .iter()
            .all(|f| f.severity == Severity::Warning),
        "{:?}",
        rendered.findings
    );
    rendered
}

#[test]
fn what_a_pointer_to_git_lfs_stands_for_is_not_reported_as_missing() {
    let pod = json!({"spec": {"containers": [{
        "name": "a", "image": "registry.example/a", "envFrom": [{"configMapRef": {"name": "c"}}],
    }]}});
    let app = json!({"type": "pod", "device": "box-1", "pod": pod});
    let box_1 = object("EdgeDevice", "box-1", &json!({}));
    let text = format!("{box_1}\n---\n{}", object("EdgeWorkload", "app", &app));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let files = [("c.yaml", pointer), ("fleet.yaml", &text)];
    let batches = files.map(|(path, content)| Batch::of_file(path, content.as_bytes()));
    let rendered = render(&Input::from_iter(batches), &[], &Options::default());
    let errors = rendered
        .findings
        .iter()
        .filter(|finding| finding.is_error());
    let errors: Vec<_> = errors.map(|finding| finding.place.to_string()).collect();
    assert_eq!(errors, ["c.yaml"]);
    assert_eq!(rendered.held.len(), 1);
}
