//! The renderer's output has the meaning of the `PodSpec` on a real Quadlet.

use std::path::Path;

use flotta_bundle::manifest::Manifest;
use flotta_reconciler::source::{self, Reader, SourceFile, Tree};
use flotta_renderer::{Options, render};

use crate::device::Device;

/// Writes a tree's bundle to the disk of a device that is off, as the agent would.
fn install(device: &Device, tree: &Tree, name: &str) -> Manifest {
    let rendered = render(&Reader::default().read(tree), &[], &Options::default());
    assert!(!source::refuses(&rendered), "{:?}", rendered.findings);
    let found = &rendered.devices[&name.parse().expect("a device name")];
    let manifest = Manifest::parse(&rendered.blobs[&found.manifest]).expect("a manifest");
    for file in &manifest.files {
        let path = device.path(file.path.as_str());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, &rendered.blobs[&file.digest]).expect("a file");
    }
    manifest
}

#[test]
fn the_quickstart_runs_as_rendered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let device = Device::create("rendered");
    let manifest = install(
        &device,
        &Tree::read_dir(&folder).expect("the example"),
        "press-1",
    );
    device.boot();
    assert_eq!(device.get(8080, "/"), "Good morning, press.\n");
    assert!(device.get(8081, "/").contains("hello 1"));
    assert!(device.get(8090, "/").contains("hello 1"));
    for unit in &manifest.units {
        assert_eq!(
            device.exec(&["systemctl", "is-active", &unit.name]),
            "active",
            "{}",
            unit.name
        );
    }
    let labelled = device.exec(&[
        "podman",
        "ps",
        "--filter",
        "label=flotta.workload=panel",
        "--format",
        "{{.Names}}",
    ]);
    let mut names: Vec<_> = labelled.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["panel-feed", "panel-view"]);
}

#[test]
fn odd_characters_reach_the_container_as_they_were_written() {
    let odd = r#"%h $HOME ${HOME} "double" 'single' \ back; a=b # c"#;
    let value = serde_json::to_string(&format!("{odd}\nsecond line\ttab")).expect("JSON is YAML");
    let yaml = format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata: {{name: odd}}\n---\n\
         apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata: {{name: odd}}\nspec:\n  type: pod\n  device: odd\n  pod:\n    spec:\n      \
         containers:\n      - name: odd\n        image: registry.example/hello@sha256:ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791\n        \
         ports: [{{containerPort: 8080, hostPort: 8080}}]\n        env: [{{name: ODD, value: {value}}}, {{name: FROM, value: \"$(ODD)!\"}}]\n"
    );
    let tree = Tree {
        files: vec![SourceFile {
            path: "odd.yaml".to_owned(),
            content: yaml.into_bytes(),
        }],
        skipped: Vec::new(),
    };
    let device = Device::create("odd");
    install(&device, &tree, "odd");
    device.boot();
    let environment = device.get(8080, "/env");
    let wanted = format!("{odd}\nsecond line\ttab");
    assert!(
        environment.contains(&format!("ODD={wanted}")),
        "{environment}"
    );
    assert!(
        environment.contains(&format!("FROM={wanted}!")),
        "{environment}"
    );
}
