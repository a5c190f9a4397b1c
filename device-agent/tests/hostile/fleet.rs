//! A fleet of five devices with its keys, which sign the honest releases.

use std::collections::BTreeMap;

use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release, Revision};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{DeviceName, Digest, Leaf};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The index of the device under test in the tree.
pub const OURS: usize = 2;

pub fn key() -> SigningKey {
    SigningKey::generate().expect("a key").0
}

pub fn device(index: usize) -> DeviceName {
    format!("shop-{index}").parse().expect("a name")
}

/// A manifest and the blobs it names.
#[derive(Clone, Default)]
pub struct Bundle {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Bundle {
    pub fn put(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.blobs.insert(digest, content.to_vec());
        digest
    }
}

/// A file of a manifest.
pub fn file(bundle: &mut Bundle, path: &str, content: &[u8], kind: &str) -> Value {
    json!({
        "path": path, "mode": "0644", "owner": "root", "group": "root",
        "digest": bundle.put(content), "size": content.len(), "kind": kind,
    })
}

/// A good manifest: one workload, its Quadlet file and a file that it mounts.
pub fn manifest(bundle: &mut Bundle, version: u64) -> Value {
    let site = format!("<h1>version {version}</h1>\n").repeat(2_000);
    let quadlet = format!("[Container]\nImage=registry.example/web:{version}\n");
    let files = [
        file(
            bundle,
            "/etc/containers/systemd/web.container",
            quadlet.as_bytes(),
            "quadlet",
        ),
        file(
            bundle,
            "/etc/flotta/workloads/web/site/index.html",
            site.as_bytes(),
            "data",
        ),
    ];
    json!({
        "schema": 1,
        "files": files,
        "units": [{
            "name": "web.service", "workload": "web", "wanted": "active",
            "restart_on": ["/etc/containers/systemd/web.container", "/etc/flotta/workloads/web/site/index.html"],
        }],
        "images": [{
            "reference": format!("registry.example/web:{version}"), "pull": "missing", "workloads": ["web"],
        }],
        "settings": {"heartbeat_seconds": 60},
    })
}

pub struct Fleet {
    /// The encoded keys, to make the same fleet again.
    documents: [Vec<u8>; 3],
    pub root_keys: [SigningKey; 2],
    pub release_key: SigningKey,
    pub trust: TrustRoot,
    /// The time of its signatures.
    pub now: Timestamp,
}

impl Fleet {
    pub fn new() -> Self {
        let document = || SigningKey::generate().expect("a key").1;
        Self::of([document(), document(), document()])
    }

    /// The same fleet on another server.
    pub fn again(&self) -> Self {
        Self::of(self.documents.clone())
    }

    fn of(documents: [Vec<u8>; 3]) -> Self {
        let [a, b, release_key] = documents
            .each_ref()
            .map(|document| SigningKey::from_pkcs8(document).expect("a key"));
        let root_keys = [a, b];
        let trust = TrustRoot {
            schema: root::SCHEMA,
            fleet: "shops".parse().expect("a fleet"),
            version: 1,
            root: Role {
                threshold: 2,
                ..Role::any_of(root_keys.iter().map(SigningKey::public))
            },
            release: Role::any_of([release_key.public()]),
        };
        Self {
            documents,
            root_keys,
            release_key,
            trust,
            now: Timestamp::now(),
        }
    }

    /// The trust root of this version, with `release` as the only release key.
    pub fn root(&self, version: u32, release: &SigningKey) -> TrustRoot {
        TrustRoot {
            version,
            release: Role::any_of([release.public()]),
            ..self.trust.clone()
        }
    }

    pub fn sign_root(&self, root: &TrustRoot) -> Envelope {
        let [a, b] = &self.root_keys;
        Envelope::sign(root::PAYLOAD_TYPE, &root.encode(), &[a, b])
    }

    pub fn release(&self, sequence: u64, tree: &Tree) -> Release {
        Release {
            schema: release::SCHEMA,
            fleet: self.trust.fleet.clone(),
            sequence,
            revision: Revision {
                source: "directory".to_owned(),
                commit: "4f2c91a".to_owned(),
                subject: String::new(),
                inventory: None,
            },
            issued: self.now,
            expires: self.now + SignedDuration::from_hours(24),
            tree: tree.head(),
        }
    }

    pub fn sign(&self, release: &Release) -> Envelope {
        Envelope::sign(
            release::PAYLOAD_TYPE,
            &release.encode(),
            &[&self.release_key],
        )
    }

    /// The leaves of five devices that all have this manifest.
    pub fn leaves(wanted: Digest) -> Vec<Vec<u8>> {
        let leaf = |index| Leaf::following(device(index), wanted, None).encode();
        (0..5).map(leaf).collect()
    }

    /// What an honest server offers the device at `index`.
    pub fn offer_of(
        &self,
        sequence: u64,
        leaves: Vec<Vec<u8>>,
        index: usize,
        wanted: Digest,
    ) -> Offer {
        let leaf = leaves[index].clone();
        let tree = Tree::new(leaves);
        Offer {
            roots: Vec::new(),
            release: self.sign(&self.release(sequence, &tree)),
            leaf: String::from_utf8(leaf).expect("text"),
            index: index as u64,
            proof: tree.prove(index as u64).expect("within the tree"),
            manifest: wanted,
        }
    }

    pub fn offer(&self, sequence: u64, wanted: Digest) -> Offer {
        self.offer_of(sequence, Self::leaves(wanted), OURS, wanted)
    }
}
