//! Functions that run once for each device or file.
#![allow(missing_docs, reason = "criterion's macros make functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flotta_bench::site::Fleet;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Revision};
use flotta_bundle::root::{self, Role};
use flotta_bundle::tree::Tree as MerkleTree;
use flotta_bundle::verify::{Memory, verify_blob, verify_manifest, verify_offer};
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf, Release, TrustRoot};
use flotta_reconciler::source::{Reader, SourceFile, Tree};
use flotta_renderer::{Options, render};
use jiff::Timestamp;

const DEVICES: usize = 100_000;

/// A fleet in YAML with ten workloads for each device.
fn tree(devices: usize) -> Tree {
    let files = Fleet::new(devices, 9).files().into_iter();
    let files = files.map(|(path, content)| SourceFile {
        path,
        content: content.into_bytes(),
    });
    Tree {
        files: files.collect(),
        skipped: Vec::new(),
    }
}

/// A device's verification of an offer in a fleet of a hundred thousand: signature, sequence, proof, leaf.
fn offer(criterion: &mut Criterion) {
    let (key, _) = SigningKey::generate().expect("a key");
    let role = Role::any_of([key.public()]);
    let trust = TrustRoot {
        schema: root::SCHEMA,
        fleet: "bench".parse().expect("a name"),
        version: 1,
        root: role.clone(),
        release: role,
    };
    let manifest = Digest::of(b"manifest");
    let leaf = |number| Leaf::following(Fleet::name(number), manifest, None).encode();
    let tree = MerkleTree::new((0..DEVICES).map(leaf));
    let release = Release {
        schema: release::SCHEMA,
        fleet: trust.fleet.clone(),
        sequence: 1,
        revision: Revision {
            source: "directory".to_owned(),
            commit: "0".repeat(40),
            subject: String::new(),
            inventory: None,
        },
        issued: Timestamp::UNIX_EPOCH,
        expires: Timestamp::MAX,
        tree: tree.head(),
    };
    let offer = Offer {
        roots: Vec::new(),
        release: Envelope::sign(release::PAYLOAD_TYPE, &release.encode(), &[&key]),
        leaf: String::from_utf8(leaf(17)).expect("JSON is UTF-8"),
        index: 17,
        proof: tree.prove(17).expect("in the tree"),
        manifest,
    };
    let memory = Memory {
        trust,
        highest: None,
    };
    let device = Fleet::name(17);
    criterion.bench_function("verify an offer, of 100,000 devices", |bench| {
        bench.iter(|| verify_offer(&offer, &device, &memory).expect("a good offer"));
    });
    criterion.bench_function("prove a leaf, of 100,000 devices", |bench| {
        bench.iter(|| tree.prove(17));
    });
}

/// A device's verification of a bundle of ten workloads.
fn bundle(criterion: &mut Criterion) {
    let rendered = render(&Reader::default().read(&tree(2)), &[], &Options::default());
    let digest = rendered.devices[&Fleet::name(0)].manifest;
    let bytes = &rendered.blobs[&digest];
    criterion.bench_function("verify a bundle of ten workloads", |bench| {
        bench.iter(|| {
            let manifest = verify_manifest(bytes, digest).expect("a good manifest");
            for file in &manifest.files {
                verify_blob(&rendered.blobs[&file.digest], file.digest).expect("its content");
            }
        });
    });
}

/// The server's work for a commit.
fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render, ten workloads for each device");
    group.sample_size(10);
    for devices in [10, 1000] {
        let tree = tree(devices);
        group.throughput(Throughput::Elements(devices as u64));
        group.bench_function(format!("{devices} devices"), |bench| {
            bench.iter(|| render(&Reader::default().read(&tree), &[], &Options::default()));
        });
    }
}

criterion_group!(functions, offer, bundle, commit);
criterion_main!(functions);
