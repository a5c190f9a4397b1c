//! Measures rendering, from YAML to a signed release.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::release::Revision;
use flotta_bundle::{DeviceName, Leaf};
use flotta_reconciler::publish::Published;
use flotta_reconciler::source::{Reader, SourceFile, Tree};
use flotta_renderer::{Options, leaves};
use jiff::Timestamp;

use super::{Line, millis, percentile};

/// Number of groups of devices. Each device has nine workloads that all share, and one of its group.
const GROUPS: usize = 100;
const SHARED: usize = 9;

/// Renders and signs fleets of increasing size.
pub fn render() -> Result<Vec<Line>> {
    let (key, _) = SigningKey::generate()?;
    let mut lines = Vec::new();
    for devices in [1_000, 10_000, 100_000] {
        let (mut rendered, mut signed, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3 {
            let mut fleet = Reader::default();
            let before = tree(devices, round);
            let (first, took, sign) = release(&mut fleet, &before, &key, &BTreeMap::new(), 1)?;
            rendered.push(took);
            signed.push(sign);
            let after = tree(devices, round + 1);
            let (second, took, sign) = release(&mut fleet, &after, &key, &first, 2)?;
            changed.push(took + sign);
            let other = second
                .iter()
                .filter(|(name, leaf)| first[*name].manifest != leaf.manifest);
            ensure!(other.count() == devices / GROUPS, "one group changes");
        }
        let figure = format!(
            "{} render, {} sign; {} both for a change on 1 % of them",
            millis(percentile(&mut rendered, 50)),
            millis(percentile(&mut signed, 50)),
            millis(percentile(&mut changed, 50)),
        );
        let what = format!("{devices} devices x 10 workloads, from YAML in memory");
        lines.push(Line::new(what, figure));
    }
    Ok(lines)
}

type Leaves = BTreeMap<DeviceName, Leaf>;

fn release(
    fleet: &mut Reader,
    tree: &Tree,
    key: &SigningKey,
    previous: &Leaves,
    sequence: u64,
) -> Result<(Leaves, Duration, Duration)> {
    let began = Instant::now();
    let rendered = flotta_renderer::render(&fleet.read(tree), &[], &Options::default());
    ensure!(rendered.findings.is_empty(), "{:?}", rendered.findings);
    let leaves = leaves(&rendered, previous);
    let took = began.elapsed();
    let began = Instant::now();
    let name = "bench".parse()?;
    let revision = Revision {
        source: "directory".to_owned(),
        commit: "0".repeat(40),
        subject: String::new(),
        inventory: None,
    };
    let published = Published::sign(&name, key, sequence, revision, leaves, Timestamp::now());
    Ok((published.leaves, took, began.elapsed()))
}

/// A fleet with this state of the first group's workload.
fn tree(devices: usize, state: usize) -> Tree {
    let mut files = Vec::new();
    let mut file = |path: String, content: String| {
        files.push(SourceFile {
            path,
            content: content.into_bytes(),
        });
    };
    for number in 0..devices.div_ceil(1000) {
        let mut content = String::new();
        for index in number * 1000..((number + 1) * 1000).min(devices) {
            let _ = write!(
                content,
                "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata:\n  name: device-{index}\n  \
                 labels:\n    all: \"yes\"\n    group: \"{}\"\n",
                index % GROUPS
            );
        }
        file(format!("devices-{number:03}.yaml"), content);
    }
    for number in 0..SHARED {
        let name = format!("shared-{number}");
        file(format!("{name}.yaml"), workload(&name, "all: \"yes\"", 0));
    }
    for group in 0..GROUPS {
        let name = format!("group-{group}");
        let label = format!("group: \"{group}\"");
        let state = if group == 0 { state } else { 0 };
        file(format!("{name}.yaml"), workload(&name, &label, state));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Tree {
        files,
        skipped: Vec::new(),
    }
}

fn workload(name: &str, label: &str, state: usize) -> String {
    let digest = "ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";
    format!(
        "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata:\n  name: {name}\nspec:\n  type: pod\n  \
         deviceSelector:\n    matchLabels:\n      {label}\n  pod:\n    spec:\n      containers:\n        - name: main\n          \
         image: registry.example/{name}@sha256:{digest}\n          env:\n            - name: STATE\n              value: \"{state}\"\n"
    )
}
