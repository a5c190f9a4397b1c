//! Pods that would silently do something else than their author asked for.

use flotta_bundle::manifest::Manifest;
use flotta_renderer::{Batch, Input, Options, Rendered, Severity, render};

const DEVICE: &str = "
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata: {name: box-1}
";
const IMAGE: &str =
    "registry.example/app@sha256:ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";

/// Returns a workload of the device, of this kind and with this spec.
fn of_device(name: &str, kind: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata: {{name: {name}}}
spec:
  type: {kind}
  device: box-1
  {kind}:
{spec}"
    )
}

/// Returns a workload of one container that mounts one volume.
fn workload(name: &str, volume: &str, source: &str) -> String {
    let spec = format!(
        "    spec:
      containers:
        - {{name: main, image: {IMAGE}, volumeMounts: [{{name: {volume}, mountPath: /data, subPath: x}}]}}
      volumes:
        - {{name: {volume}, {source}}}
"
    );
    of_device(name, "pod", &spec)
}

fn rendered(documents: &[String]) -> Rendered {
    let text = format!("{DEVICE}{}", documents.concat());
    let input = Input::from_iter([Batch::of_file("fleet.yaml", text.as_bytes())]);
    render(&input, &[], &Options::default())
}

fn errors(documents: &[String]) -> Vec<String> {
    let findings = rendered(documents).findings;
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    errors.map(|error| error.message.clone()).collect()
}

/// Returns the text of the device's file with this name.
fn file(documents: &[String], name: &str) -> String {
    let rendered = rendered(documents);
    let device = rendered.devices.values().next().expect("it renders");
    let manifest = Manifest::parse(&rendered.blobs[&device.manifest]).expect("a manifest");
    let mut files = manifest.files.iter();
    let file = files.find(|file| file.path.file_name() == name);
    let digest = file.expect("the file").digest;
    String::from_utf8(rendered.blobs[&digest].clone()).expect("text")
}

#[test]
fn two_volumes_with_the_same_name_are_an_error() {
    let disk = "emptyDir: {}";
    let by_hand = of_device(
        "hand",
        "quadlet",
        &format!(
            "    hand.container: |
      [Container]
      Image={IMAGE}
      Volume=a-b-c:/data:ro
"
        ),
    );
    let of_unit = of_device(
        "unit",
        "quadlet",
        "    data.volume: |\n      [Volume]\n      VolumeName=a-b-c\n",
    );
    let claim = "persistentVolumeClaim: {claimName: a-b-c}";
    let own = || workload("a", "b-c", disk);
    for (other, says) in [
        (workload("a-b", "c", disk), "emptyDir `c` of workload `a-b`"),
        (
            workload("third", "v", claim),
            "claim `a-b-c` of workload `third`",
        ),
        (by_hand, "volume `a-b-c` of workload `hand`"),
        (of_unit, "volume `a-b-c` of workload `unit`"),
    ] {
        let errors = errors(&[own(), other]);
        let [error] = errors.as_slice() else {
            panic!("{says}: {errors:?}");
        };
        assert!(error.contains(says), "{error}");
        assert!(error.contains("emptyDir `b-c` of workload `a`"), "{error}");
    }
    // workloads that name the same volume of Podman share it on purpose
    let shared = [workload("one", "v", claim), workload("two", "w", claim)];
    assert_eq!(errors(&shared), [""; 0]);
}

#[test]
fn a_volume_that_moves_to_memory_gets_another_name() {
    // Podman does not change a volume that exists already
    let create = |source: &str| {
        let text = file(&[workload("app", "cache", source)], "app.container");
        let mut lines = text.lines().map(str::to_owned);
        let create = lines.find(|line| line.contains(r#""volume" "create""#));
        let create = create.expect("it makes the volume");
        create.rsplit(' ').next().expect("a name").to_owned()
    };
    assert_ne!(create("emptyDir: {}"), create("emptyDir: {medium: Memory}"));
}

#[test]
fn a_sidecar_that_ends_leaves_what_follows_it_running() {
    let spec = format!(
        "    spec:
      initContainers:
        - {{name: first, image: {IMAGE}}}
        - {{name: proxy, image: {IMAGE}, restartPolicy: Always}}
        - {{name: logs, image: {IMAGE}, restartPolicy: Always}}
        - {{name: second, image: {IMAGE}}}
        - {{name: late, image: {IMAGE}, restartPolicy: Always}}
      containers:
        - {{name: main, image: {IMAGE}}}
"
    );
    let pod = of_device("app", "pod", &spec);
    let said = |container: &str, key: &str| {
        let text = file(
            std::slice::from_ref(&pod),
            &format!("app-{container}.container"),
        );
        let values = text.lines().filter_map(|line| line.strip_prefix(key));
        let names = values.filter_map(|name| name.strip_prefix("=app-"));
        let names = names.map(|name| name.trim_end_matches(".service").to_owned());
        names.collect::<Vec<_>>()
    };
    for (container, requires, wants) in [
        ("first", vec![], vec![]),
        ("proxy", vec!["first"], vec![]),
        ("logs", vec!["first"], vec!["proxy"]),
        ("second", vec!["first"], vec!["proxy", "logs"]),
        ("late", vec!["second"], vec!["proxy", "logs"]),
        ("main", vec!["second"], vec!["proxy", "logs", "late"]),
    ] {
        assert_eq!(said(container, "Requires"), requires, "{container}");
        assert_eq!(said(container, "Wants"), wants, "{container}");
        let mut after = said(container, "After");
        after.sort();
        let mut all = [requires, wants].concat();
        all.sort_unstable();
        assert_eq!(after, all, "{container}");
    }
}

/// Returns the errors of a pod whose container has these fields.
fn errors_of(container: &str, volumes: &str, others: &str) -> Vec<String> {
    let spec = format!(
        "    spec:
      containers:
        - {{name: main, image: {IMAGE}, {container}}}
      volumes: [{volumes}]
"
    );
    errors(&[of_device("web", "pod", &spec), others.to_owned()])
}

fn config_map(name: &str, data: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n{data}")
}

/// Each of these grows with the product of two inputs: without a limit, it would take gigabytes.
#[test]
fn what_a_small_document_expands_to_is_limited() {
    let long = "x".repeat(120_000);
    let words = "$(A)$(A), ".repeat(2_000);
    let found = errors_of(
        &format!("env: [{{name: A, value: {long}}}], args: [{words}]"),
        "",
        "",
    );
    let is_limit = |error: &String| error.contains("arguments and variables have more than 4 MiB");
    assert_eq!(found.iter().filter(|error| is_limit(error)).count(), 1);
    assert!(found.len() < 100, "{}", found.len());

    let entries: Vec<_> = (0..5_000).map(|n| format!("  K{n}: v\n")).collect();
    let from = "{configMapRef: {name: many}}, ".repeat(2_000);
    let found = errors_of(
        &format!("envFrom: [{from}]"),
        "",
        &config_map("many", &entries.concat()),
    );
    assert_eq!(found, ["a container has at most 4096 variables"]);

    let volumes: Vec<_> = (0..500)
        .map(|n| format!("{{name: v{n}, configMap: {{name: large}}}}, "))
        .collect();
    let large = config_map("large", &format!("  a: {}\n", "x".repeat(1 << 20)));
    let found = errors_of("tty: false", &volumes.concat(), &large);
    assert_eq!(found, ["the workload's files have more than 64 MiB"]);
}
