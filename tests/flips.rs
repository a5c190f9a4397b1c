//! A depot on a bad disk: bits flip, and the real server serves it to a device with the real protocol.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use common::joined::Device;
use common::{DEADLINE, Fixture, device};
use flotta_agent::pull::Session;
use flotta_bundle::Digest;
use flotta_bundle::verify::{Accepted, verify_blob, verify_manifest};
use flotta_reconciler::publish::Notice;
use flotta_reconciler::serve::{Config, Server};
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

/// Downloads a blob, if the server has it.
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

/// Flips one bit of the file, and returns its old content.
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
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    fixture.commit("web.yaml", WORKLOAD);
    let mut config = fixture.config();
    let server = fixture.start().await;
    server.released(1).await;
    config.listen = server.about.listen;
    let folder = tempfile::tempdir().unwrap();
    let device = Device::join(&fixture, "shop-1", folder.path()).await;
    let session = device.client.connect().await.unwrap();
    let truth = device.accepted(&session).await.expect("an offer");
    let manifest = blob(&session, truth.manifest).await.expect("a manifest");
    let manifest = verify_manifest(&manifest, truth.manifest).unwrap();
    assert!(!manifest.files.is_empty());

    let depot = fixture.path().join("data/depot");
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
        // one bad blob does not affect anything else
        let bytes = blob(&session, digest).await.expect("the repaired blob");
        verify_blob(&bytes, digest).unwrap();
    }
    println!("blobs: {refused} of {BLOB_FLIPS} flips refused by the server, {given} by the device");
    assert_eq!(given, 0, "the server looks itself");
    server.stop().await;

    // the control: an intact depot is served unchanged
    let whole = restarted(&config, &device).await;
    assert_eq!(whole.expect("it starts").as_ref(), Some(&truth));

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
        match restarted(&config, &device).await {
            None => ended += 1,
            Some(None) => kept += 1,
            Some(Some(accepted)) => {
                // what is accepted is exactly what was signed: the flip is in an unsigned part
                assert_eq!(accepted, truth, "{}", path.display());
                let at = good.iter().zip(&flipped).position(|(a, b)| a != b);
                println!("harmless: byte {at:?} of {}", path.display());
                // the first trust root, which a device has since it joined and is not sent again; a signature's `keyid`, which is
                // only a hint, as all keys in force are tried
                let names = ["roots/1.json", "releases/1/release.json"];
                assert!(names.iter().any(|name| path.ends_with(name)));
                harmless += 1;
            }
        }
        if std::fs::read(path).unwrap() == flipped {
            std::fs::write(path, good).unwrap();
        }
    }
    println!(
        "releases: of {RELEASE_FLIPS} flips {ended} kept the server from starting, {kept} were offered and refused or not offered, {harmless} repaired or in what nobody signs"
    );
    assert!(ended + kept > 0);
}

/// What the device accepts from a server that is started with the current depot; none when it does not start.
async fn restarted(config: &Config, device: &Device) -> Option<Option<Accepted>> {
    let server = Server::open(config.clone()).await.ok()?;
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
    let session = device.client.connect().await.unwrap();
    let accepted = device.accepted(&session).await;
    let _ = stop.send(());
    let _ = tokio::time::timeout(DEADLINE, task).await.unwrap();
    Some(accepted)
}
