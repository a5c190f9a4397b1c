//! Fixtures for the tests of several modules: a fleet in a folder, a machine with keys, bundles and releases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use flotta_bundle::manifest::{File, FileKind, Mode, SCHEMA, Settings};
use flotta_bundle::release::Revision;
use flotta_bundle::wire::{EnrolmentRequest, Hardware, Report, Token, sealing_statement};
use flotta_bundle::{DeviceName, Digest, Leaf, Manifest};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SigningKey};

use crate::depot::Depot;
use crate::enrol::Enroller;
use crate::index::{Current, Index};
use crate::keys::{FirstStart, Fleet};
use crate::publish::Published;
use crate::store::{NewToken, Store};

/// Deadline for everything, far longer than anything takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

/// Polls `look` until it returns something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// A fleet and its store, opened as the server does at its start.
pub(crate) struct Fixture {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: Store,
    pub(crate) depot: Depot,
    pub(crate) index: Arc<Index>,
    pub(crate) enroller: Enroller,
}

impl Fixture {
    pub(crate) fn open(data: &Path) -> Self {
        Self::open_at(data, Timestamp::now())
    }

    pub(crate) fn open_at(data: &Path, now: Timestamp) -> Self {
        let first = FirstStart {
            fleet: Some("shops".parse().unwrap()),
            names: vec!["localhost".to_owned()],
            now,
        };
        let fleet = Arc::new(Fleet::open_or_create(data, &first).unwrap().0);
        let store = Store::open(data).unwrap();
        Self {
            depot: Depot::local(&data.join("depot")).unwrap(),
            index: Arc::new(Index::new(fleet.trust_roots().to_vec())),
            enroller: Enroller::new(Arc::clone(&fleet), store.clone()),
            fleet,
            store,
        }
    }

    /// Puts a release in force with these devices and their manifests, newest first.
    pub(crate) fn publish(&self, sequence: u64, devices: &[(&str, &[Digest])]) {
        self.index.publish(release(&self.fleet, sequence, devices));
    }

    /// Creates a token that is valid for an hour.
    pub(crate) async fn token(&self, device: Option<&str>) -> Token {
        let terms = NewToken {
            device: device.map(name),
            ..NewToken::default()
        };
        let hour = SignedDuration::from_hours(1);
        let made = self
            .enroller
            .create_token(terms, hour, Timestamp::now())
            .await;
        made.unwrap().0
    }

    /// The reasons and messages of all events.
    pub(crate) async fn events(&self) -> Vec<(String, String)> {
        let filter = crate::store::EventFilter {
            limit: 1000,
            ..Default::default()
        };
        let events = self.store.events(filter).await.unwrap().into_iter();
        events.map(|event| (event.reason, event.message)).collect()
    }
}

pub(crate) fn release(fleet: &Fleet, sequence: u64, devices: &[(&str, &[Digest])]) -> Current {
    let leaves = devices.iter().map(|(device, manifests)| {
        let leaf = Leaf {
            device: name(device),
            manifest: manifests[0],
            earlier: manifests[1..].to_vec(),
        };
        (leaf.device.clone(), leaf)
    });
    let revision = Revision {
        source: "directory".to_owned(),
        commit: format!("commit-{sequence}"),
        subject: String::new(),
        inventory: None,
    };
    let published = Published::sign(
        fleet.name(),
        &fleet.release_key().unwrap(),
        sequence,
        revision,
        leaves.collect(),
        Timestamp::now(),
    );
    Current::new(published.envelope, sequence, published.leaves.into_values())
}

/// A manifest with one file, and the blobs of both.
pub(crate) fn bundle(content: &[u8]) -> (Digest, BTreeMap<Digest, Vec<u8>>) {
    bundle_with(content, Settings::default())
}

/// The same with other settings.
pub(crate) fn bundle_with(
    content: &[u8],
    settings: Settings,
) -> (Digest, BTreeMap<Digest, Vec<u8>>) {
    let manifest = Manifest {
        schema: SCHEMA,
        files: vec![File {
            path: "/etc/flotta/workloads/web/config/a".parse().unwrap(),
            mode: Mode::new(0o644),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            kind: FileKind::Data,
            belongs_to: None,
        }],
        units: Vec::new(),
        images: Vec::new(),
        health: Vec::new(),
        settings,
    }
    .encode();
    let digest = Digest::of(&manifest);
    let blobs = [(digest, manifest), (Digest::of(content), content.to_vec())];
    (digest, blobs.into())
}

/// A simulated device with its keys.
pub(crate) struct TestDevice {
    pub(crate) name: DeviceName,
    pub(crate) key: KeyPair,
}

impl TestDevice {
    pub(crate) fn new(device: &str) -> Self {
        Self {
            name: name(device),
            key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    /// The same device under another name.
    pub(crate) fn renamed(&self, device: &str) -> Self {
        Self {
            name: name(device),
            key: KeyPair::from_pem(&self.key.serialize_pem()).unwrap(),
        }
    }

    pub(crate) fn fingerprint(&self) -> Digest {
        Digest::of(&self.key.subject_public_key_info())
    }

    pub(crate) fn csr(&self) -> String {
        let request = CertificateParams::default().serialize_request(&self.key);
        request.unwrap().pem().unwrap()
    }

    pub(crate) fn request(&self, token: Option<Token>) -> EnrolmentRequest {
        let sealing_key = BASE64.encode(&[7; 32]);
        let statement = sealing_statement(&self.name, &sealing_key);
        EnrolmentRequest {
            device: self.name.clone(),
            token,
            csr: self.csr(),
            sealing_proof: BASE64.encode(&self.key.sign(&statement).unwrap()),
            sealing_key,
            hardware: Hardware {
                model: "Edge 3200".to_owned(),
                ..Hardware::default()
            },
        }
    }
}

/// The address of clients in tests.
pub(crate) const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A report of an idle device.
pub(crate) fn report() -> Report {
    Report {
        release: Some(1),
        ..Report::new("0.1.0", "b", Timestamp::now())
    }
}
