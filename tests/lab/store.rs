//! Podman's store as power cuts and time leave it, and what Podman itself finds wrong with it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::device::text;

/// Asks for every layer of no image and no container, however new.
pub(crate) const CHECK: [&str; 6] = ["podman", "system", "check", "--quick", "--max", "0s"];

/// The layers of no image and no container, from what [`CHECK`] said. It may have found nothing else.
#[track_caller]
pub(crate) fn orphans(said: &Output) -> Vec<String> {
    let damage = text(&said.stdout);
    let lines = damage.lines().map(str::trim);
    let mut orphans = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && *line != "1 error occurred:") {
        let layer = line.strip_prefix("Damaged layer ");
        if let Some(layer) = layer.and_then(|rest| rest.strip_suffix(':')) {
            orphans.push(layer.to_owned());
        } else {
            let why = "layer not referenced by any images or containers";
            assert!(line.ends_with(why), "{damage}");
        }
    }
    assert!(said.status.success() == orphans.is_empty(), "{said:?}");
    orphans
}

fn edit(store: &Path, name: &str, change: impl Fn(&mut Vec<Value>)) {
    let path = store.join(name);
    let Ok(text) = std::fs::read(&path) else {
        return;
    };
    let mut records: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    change(&mut records);
    let text = serde_json::to_vec(&records).expect("JSON");
    std::fs::write(&path, text).expect("written");
}

/// Power goes between an image's last layer and the image.
pub(crate) fn orphan(store: &Path, image: &str) {
    edit(store, "overlay-images/images.json", |images| {
        let before = images.len();
        images.retain(|record| !is(record, image));
        assert_eq!(images.len(), before - 1, "{image}");
    });
}

/// Power goes before an image's manifest is on the disk.
pub(crate) fn damage(store: &Path, image: &str) {
    edit(store, "overlay-images/images.json", |images| {
        let record = images.iter().find(|record| is(record, image));
        let id = record.and_then(|record| record["id"].as_str());
        let folder: PathBuf = ["overlay-images", id.expect("the image")].iter().collect();
        std::fs::remove_file(store.join(folder).join("manifest")).expect("a manifest");
    });
}

fn is(image: &Value, reference: &str) -> bool {
    let names = image["names"].as_array();
    names.is_some_and(|names| names.iter().any(|name| name == reference))
}

/// Lets the layers be of long ago.
pub(crate) fn age(store: &Path) {
    for name in ["layers.json", "volatile-layers.json"] {
        edit(store, &format!("overlay-layers/{name}"), |layers| {
            for layer in layers {
                layer["created"] = json!("2020-01-01T00:00:00Z");
            }
        });
    }
}
