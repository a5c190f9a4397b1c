//! A depot on a bad disk: bits of it flip, and the real server serves it to a device of the real protocol.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use common::{DEADLINE, House, device, stderr};
use flotta_agent::clock::Clock;
use flotta_agent::enrol::Join;
use flotta_agent::identity::{Certificate, Identity};
use flotta_agent::pull::{Client, Proxies, Session};
use flotta_bundle::verify::{Accepted, Memory, verify_blob, verify_manifest, verify_offer};
use flotta_bundle::wire::Hardware;
use flotta_bundle::{DeviceName, Digest};
use flotta_reconciler::publish::Notice;
use flotta_reconciler::serve::Server;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const SEED: u64 = 20_261_123;
const BLOB_FLIPS: usize = 300;
const RELEASE_FLIPS: usize = 24;

const WORKLOAD: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata:
  name: web
spec:
  device: shop-1
  type: pod
  pod:
    spec:
      containers:
        - name: web
          image: registry.example/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
";

/// A device that has joined.
struct Device {
    name: DeviceName,
    client: Client,
    memory: Memory,
}

impl Device {
    async fn join(house: &House, folder: &Path) -> Self {
        let output = house.flotta(&["token", "create", "shop-1"]).await;
        assert!(output.status.success(), "{}", stderr(&output));
        let join = Join::parse(&output.stdout, "join".as_ref(), None).unwrap();
        let (identity, _) = Identity::open_or_make(folder).unwrap();
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let hardware = Hardware::default();
        let client = join.client(&clock, &Proxies::default()).unwrap();
        let asked = join.ask(&identity, &hardware, &client, None, || {});
        let (name, pem) = asked.await.unwrap().unwrap();
        let chain = Certificate::parse(&pem).unwrap().chain;
        Self {
            name,
            client: client.identified(chain, identity.private_key()).unwrap(),
            memory: Memory {
                trust: join.trust,
                highest: None,
            },
        }
    }

    /// What the device accepts now, of all that the server says; none when it gets nothing that holds.
    async fn accepted(&self, session: &Session) -> Option<Accepted> {
        let desired = session.desired(1, None).await.ok()??;
        verify_offer(&desired.offer, &self.name, &self.memory).ok()
    }
}

/// A blob, if the server gives one.
async fn blob(session: &Session, digest: Digest) -> Option<Vec<u8>> {
    let mut download = session.blob(&digest, 0, 16 << 20).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await.ok()? {
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    found.sort();
    found
}

/// Flips one bit of the file; gives what was there.
fn flip(path: &Path, random: &mut StdRng) -> Vec<u8> {
    let good = std::fs::read(path).unwrap();
    let mut bent = good.clone();
    let at = random.random_range(0..bent.len());
    bent[at] ^= 1 << random.random_range(0..8);
    std::fs::write(path, bent).unwrap();
    good
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_depot_never_reaches_a_device() {
    let mut random = StdRng::seed_from_u64(SEED);
    let house = House::new();
    house.commit("a.yaml", &device("shop-1"));
    house.commit("web.yaml", WORKLOAD);
    let mut config = house.config();
    let server = house.start().await;
    server.released(1).await;
    config.listen = server.about.listen;
    let folder = tempfile::tempdir().unwrap();
    let device = Device::join(&house, folder.path()).await;
    let session = device.client.connect().await.unwrap();
    let truth = device.accepted(&session).await.expect("an offer");
    let manifest = blob(&session, truth.manifest).await.expect("a manifest");
    let manifest = verify_manifest(&manifest, truth.manifest).unwrap();
    assert!(!manifest.files.is_empty());

    let depot = house.path().join("data/depot");
    let blobs = files(&depot.join("blobs"));
    let (mut refused, mut given) = (0, 0);
    for _ in 0..BLOB_FLIPS {
        let path = &blobs[random.random_range(0..blobs.len())];
        let name = path.file_name().unwrap().to_str().unwrap();
        let digest: Digest = format!("sha256:{name}").parse().unwrap();
        let good = flip(path, &mut random);
        match blob(&session, digest).await {
            None => refused += 1,
            Some(bytes) => {
                given += 1;
                assert!(
                    verify_blob(&bytes, digest).is_err(),
                    "a flip that keeps the digest"
                );
            }
        }
        std::fs::write(path, good).unwrap();
        // one bad blob spoils nothing
        let bytes = blob(&session, digest).await.expect("the mended blob");
        verify_blob(&bytes, digest).unwrap();
    }
    println!("blobs: {refused} of {BLOB_FLIPS} flips refused by the server, {given} by the device");
    assert_eq!(given, 0, "the server looks itself");
    server.stop().await;

    let (mut ended, mut kept, mut harmless) = (0, 0, 0);
    for _ in 0..RELEASE_FLIPS {
        let in_force = depot.join("head.json");
        let places = [
            files(&depot.join("releases/1")),
            files(&depot.join("roots")),
            vec![in_force],
        ]
        .concat();
        let path = &places[random.random_range(0..places.len())];
        let good = flip(path, &mut random);
        let flipped = std::fs::read(path).unwrap();
        match Server::open(config.clone()).await {
            Err(_) => ended += 1,
            Ok(server) => {
                let session = device.client.clone();
                let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
                let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
                let task = tokio::spawn(server.run(
                    async {
                        let _ = stopped.await;
                    },
                    move |_: &Notice| {
                        let _ = said.send(());
                    },
                ));
                let _ = tokio::time::timeout(DEADLINE, heard.recv()).await;
                let session = session.connect().await.unwrap();
                match device.accepted(&session).await {
                    None => kept += 1,
                    Some(accepted) => {
                        assert_eq!(accepted.manifest, truth.manifest);
                        assert_eq!(accepted.leaf, truth.leaf);
                        harmless += 1;
                    }
                }
                let _ = stop.send(());
                let _ = tokio::time::timeout(DEADLINE, task).await.unwrap();
            }
        }
        if std::fs::read(path).unwrap() == flipped {
            std::fs::write(path, good).unwrap();
        }
    }
    println!(
        "releases: of {RELEASE_FLIPS} flips {ended} kept the server from starting, {kept} were offered and refused or not offered, {harmless} mended or in what nobody signs"
    );
}
