//! A device asks for what belongs to another.

use std::collections::BTreeMap;

use flotta_bundle::wire::{Enrolment, Offer, RenewalRequest};
use flotta_bundle::{Digest, Leaf, code};
use http::Method;

use super::refused;
use super::world::{Client, World};
use crate::fixture::{TestDevice, bundle, name, report};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct Device {
    machine: TestDevice,
    client: Client,
    blobs: Vec<Digest>,
}

/// Four devices, each with its own current and earlier manifest and file.
async fn fleet() -> (World, Vec<Device>) {
    let world = World::new().await;
    let mut all = BTreeMap::new();
    for device in NAMES {
        let own = ["now", "before"].map(|when| bundle(format!("{when} {device}").as_bytes()));
        for (_, blobs) in &own {
            world.fixture.depot.put_blobs(blobs).await.unwrap();
        }
        all.insert(device, own);
    }
    let manifests: Vec<_> = all
        .iter()
        .map(|(device, own)| (*device, own.each_ref().map(|(manifest, _)| *manifest)))
        .collect();
    let manifests: Vec<_> = manifests.iter().map(|(d, m)| (*d, &m[..])).collect();
    world.fixture.publish(1, &manifests);
    let mut devices = Vec::new();
    for (device, own) in all {
        let machine = TestDevice::new(device);
        devices.push(Device {
            client: world.device(&machine).await,
            machine,
            blobs: own.iter().flat_map(|(_, b)| b.keys().copied()).collect(),
        });
    }
    (world, devices)
}

/// All pairs of different devices.
fn pairs(devices: &[Device]) -> impl Iterator<Item = (&Device, &Device)> {
    let others = |a| devices.iter().map(move |b| (a, b));
    let pairs = devices.iter().flat_map(others);
    pairs.filter(|(a, b)| a.machine.name != b.machine.name)
}

/// Checks that each device still gets its own.
async fn all_are_served(devices: &[Device]) {
    for device in devices {
        for digest in &device.blobs {
            let path = format!("/v1/blobs/{digest}");
            assert_eq!(device.client.get(&path, &[]).await.status, 200);
        }
    }
}

fn leaf_of(answer: &super::world::Answer) -> Leaf {
    Leaf::parse(answer.json::<Offer>().leaf.as_bytes()).unwrap()
}

#[tokio::test]
async fn others_manifests_and_files_are_refused() {
    let (_world, devices) = fleet().await;
    let (mut tried, mut refusals) = (0, 0);
    for (a, b) in pairs(&devices) {
        for digest in &b.blobs {
            let path = format!("/v1/blobs/{digest}");
            for headers in [
                &[][..],
                &[("range", "bytes=1-")],
                &[("if-none-match", "*")],
                &[("x-original-url", "/v1/report"), ("x-forwarded-for", "::1")],
            ] {
                let answer = a.client.get(&path, headers).await;
                assert_eq!(answer.failure(), refused(code::NOT_YOURS, 403));
                tried += 1;
                refusals += usize::from(!String::from_utf8_lossy(&answer.body).contains(&b.name()));
            }
        }
    }
    println!("others' blobs: refused {refusals}/{tried}");
    assert_eq!((refusals, tried), (192, 192));
    all_are_served(&devices).await;
}

impl Device {
    /// The device's full name.
    fn name(&self) -> String {
        format!("{}/", self.machine.name)
    }
}

/// Only its certificate identifies a device, nothing else that it sends.
#[tokio::test]
async fn whoever_is_named_the_answer_is_for_who_asks() {
    let (world, devices) = fleet().await;
    let (mut tried, mut own) = (0, 0);
    for (a, b) in pairs(&devices) {
        let (other, identity) = (
            b.machine.name.to_string(),
            b.machine.name.identity(world.fixture.fleet.name()),
        );
        let manifest = b.blobs[0];
        let tag = format!("\"1-{}\"", manifest.hex());
        let subject = format!("URI={identity}");
        for (query, headers) in [
            (format!("device={other}"), vec![]),
            (format!("root=1&root=1&name={other}"), vec![]),
            (String::new(), vec![("x-device", other.as_str())]),
            (String::new(), vec![("x-forwarded-client-cert", &*subject)]),
            (String::new(), vec![("x-ssl-client-s-dn", &*identity)]),
            (String::new(), vec![("authorization", &*identity)]),
            (String::new(), vec![("if-none-match", &*tag)]),
            (String::new(), vec![("host", "b")]),
        ] {
            let path = format!("/v1/desired?{query}");
            let answer = a.client.get(&path, &headers).await;
            tried += 1;
            if answer.status == 200 {
                own += usize::from(leaf_of(&answer).device == a.machine.name);
            } else {
                // a repeated parameter is refused
                assert_eq!(answer.failure(), refused(code::BAD_REQUEST, 400), "{path}");
                own += 1;
            }
        }
    }
    println!("asked in another's name: answered as itself {own}/{tried}");
    assert_eq!((own, tried), (96, 96));
}

#[tokio::test]
async fn a_report_in_anothers_name_is_ones_own() {
    let (world, devices) = fleet().await;
    let mut tried = 0;
    for (a, b) in pairs(&devices) {
        let mut said = serde_json::to_value(report()).unwrap();
        said["agent"] = format!("by {}", a.machine.name).into();
        for field in ["device", "name", "namespace"] {
            said[field] = b.machine.name.to_string().into();
        }
        let path = format!("/v1/report?device={}", b.machine.name);
        let headers = [("x-device", b.machine.name.name())];
        let body = serde_json::to_vec(&said).unwrap();
        let answer = a.client.send(Method::PUT, &path, &headers, body).await;
        assert_eq!(answer.unwrap().status, 200);
        tried += 1;
    }
    for device in &devices {
        let record = world.fixture.store.device(&device.machine.name).await;
        let kept = record.unwrap().unwrap().report.unwrap();
        assert_eq!(kept.agent, format!("by {}", device.machine.name));
    }
    println!("reports in another's name: kept as one's own {tried}/{tried}");
    assert_eq!(tried, 12);
}

/// Reports and names are only on the admin API: no path of the edge API leads to them.
#[tokio::test]
async fn no_path_leads_to_others_reports_and_names() {
    let (world, devices) = fleet().await;
    // each pair sends many requests; the rate limit is for another test
    let mut clients = BTreeMap::new();
    let (mut tried, mut refusals) = (0, 0);
    for (a, b) in pairs(&devices) {
        let (device, key) = (&b.machine.name, b.machine.fingerprint());
        let blob = b.blobs[0].hex();
        let paths = [
            format!("/v1/report/{device}"),
            format!("/v1/reports/{device}"),
            format!("/v1/devices/{device}"),
            "/v1/devices".to_owned(),
            "/v1/enrolments".to_owned(),
            format!("/v1/desired/{device}"),
            format!("/v1/certificates/{device}"),
            format!("/v1/enrolments/{}", key.hex()),
            format!("/v1/enrolments/{}", device.name()),
            format!("/v1/enrolments/{}", key.hex().to_uppercase()),
            format!("/v1/enrolments/{}%2f..%2f{}", key.hex(), device.name()),
            format!("/v1//blobs/sha256:{blob}"),
            format!("/v1/blobs/../blobs/sha256:{blob}"),
            format!("/v1/blobs/sha256:{}", blob.to_uppercase()),
            format!("/v1/blobs/sha256:{blob}%00"),
            format!("/v1/blobs/{blob}"),
            format!("/V1/blobs/sha256:{blob}"),
            format!("/v1/blobs/sha256:{blob}/"),
            "/v1/blobs/..%2f..%2fkeys%2fca.key".to_owned(),
            "/healthz".to_owned(),
            "/metrics".to_owned(),
            "/debug/pprof".to_owned(),
            "/".to_owned(),
        ];
        let client = clients.entry(&a.machine.name).or_insert(&a.client);
        for path in paths {
            for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
                let answer = client.send(method.clone(), &path, &[], "{}").await;
                let answer = answer.unwrap();
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                let is_refused = answer.status.is_client_error();
                // an answer may repeat what the device sent, but must not add anything
                let tells = said.contains("BEGIN CERTIFICATE") || said.contains("\"agent\"");
                assert!(is_refused && !tells, "{method} {path}: {said}");
                assert_ne!(answer.status, 429, "{method} {path}");
                tried += 1;
                refusals += 1;
            }
        }
    }
    println!("paths to others: refused {refusals}/{tried}");
    assert_eq!((refusals, tried), (12 * 23 * 4, 12 * 23 * 4));
    all_are_served(&devices).await;
    assert_eq!(world.fixture.store.devices().await.unwrap().len(), 4);
}

/// A device cannot get another's name or key, or a certificate for them.
#[tokio::test]
async fn nobody_becomes_another() {
    let (world, devices) = fleet().await;
    let mut tried = 0;
    for (a, b) in pairs(&devices) {
        let renewal = RenewalRequest {
            csr: b.machine.csr(),
        };
        let body = serde_json::to_vec(&renewal).unwrap();
        let renewed = a.client.send(Method::POST, "/v1/certificates", &[], body);
        assert_eq!(renewed.await.unwrap().failure(), refused(code::CSR, 400));
        // with its own key under the other's name
        let body = a.machine.renamed(b.machine.name.name()).request(None);
        let body = serde_json::to_vec(&body).unwrap();
        let asked = a.client.send(Method::POST, "/v1/enrolments", &[], body);
        let asked = asked.await.unwrap();
        assert_eq!(asked.failure(), refused(code::KEY_TAKEN, 409));
        tried += 2;
    }
    // the answers for a taken name and a free one are the same, so that nobody learns which devices exist
    let mut answers = Vec::new();
    for asked in ["b", "free"] {
        let answer = world.enrol(&TestDevice::new(asked), None).await;
        let device = name(asked);
        assert_eq!(answer.json::<Enrolment>(), Enrolment::Pending { device });
        answers.push((answer.status, answer.headers.len()));
        tried += 1;
    }
    assert_eq!(answers[0], answers[1]);
    println!("another's name or key: refused {tried}/{tried}");
    assert_eq!(tried, 26);
    all_are_served(&devices).await;
}
