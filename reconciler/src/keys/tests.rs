use std::os::unix::fs::PermissionsExt;

use flotta_bundle::name;
use jiff::SignedDuration;
use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::fixture::TestDevice;

fn first(fleet: Option<&str>, names: &[&str]) -> FirstStart {
    FirstStart {
        fleet: fleet.map(|name| name.parse().unwrap()),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        now: Timestamp::now(),
    }
}

/// Every file under the folder, with its content.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.push((path, content));
        }
    }
    found.sort();
    found
}

#[test]
fn a_fleet_is_made_once_and_for_its_owner_alone() {
    let data = tempfile::tempdir().unwrap();
    let keys = data.path().join("keys");
    // an interrupted first start
    std::fs::create_dir(data.path().join("keys.new")).unwrap();
    std::fs::write(data.path().join("keys.new/root.pem"), "half").unwrap();
    let start = first(None, &["edge.example.com"]);
    let (fleet, made) = Fleet::open_or_create(data.path(), &start).unwrap();
    assert_eq!((made, fleet.name().as_str()), (Start::Created, "fleet"));
    let before = files(&keys);
    for (path, _) in &before {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(keys.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!data.path().join("keys.new").exists());

    let start = first(Some("fleet"), &[]);
    let (again, opened) = Fleet::open_or_create(data.path(), &start).unwrap();
    assert_eq!(opened, Start::Opened);
    assert_eq!(files(&keys), before);
    assert_eq!(again.server_names(), ["edge.example.com"]);
    assert_eq!(
        again.trust_root_fingerprint(),
        fleet.trust_root_fingerprint()
    );
    let shown = format!("{fleet:?}");
    assert!(!shown.contains("PRIVATE") && shown.len() < 4096, "{shown}");
}

#[test]
fn another_fleets_directory_is_refused_and_so_is_a_bad_name() {
    let data = tempfile::tempdir().unwrap();
    Fleet::open_or_create(data.path(), &first(Some("shops"), &["localhost"])).unwrap();
    let other = Fleet::open_or_create(data.path(), &first(Some("ships"), &[]));
    assert!(matches!(other, Err(KeysError::OtherFleet { .. })));
    let bad = Fleet::open_or_create(data.path(), &first(None, &["a b"]));
    assert!(matches!(bad, Err(KeysError::BadName(_))));
}

#[test]
fn a_new_name_changes_the_servers_certificate_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = data.path().join("keys/server.pem");
    Fleet::open_or_create(data.path(), &first(None, &["localhost"])).unwrap();
    let before = files(&data.path().join("keys"));
    let start = first(None, &["edge.example.com", "::1", "192.0.2.7"]);
    let (fleet, _) = Fleet::open_or_create(data.path(), &start).unwrap();
    assert!(fleet.renew_certificates(&start.names, start.now).unwrap());
    assert_eq!(
        fleet.server_names(),
        ["192.0.2.7", "::1", "edge.example.com"]
    );
    for (old, new) in before.iter().zip(files(&data.path().join("keys"))) {
        assert_eq!(old.1 == new.1, new.0 != server, "{}", new.0.display());
    }
    let now = Timestamp::now();
    assert!(!fleet.renew_certificates(&[], now).unwrap());
    let in_a_year = now + SignedDuration::from_hours(24 * 300);
    assert!(fleet.renew_certificates(&[], in_a_year).unwrap());
    assert!(fleet.server_not_after() > in_a_year);
}

/// Offsets of a clock, in both directions.
pub(crate) fn offsets() -> Vec<SignedDuration> {
    let (minute, day) = (SignedDuration::from_mins(1), SignedDuration::from_hours(24));
    let sizes = [
        minute * 5,
        minute * 180,
        day,
        day * 100,
        day * 730,
        day * 3652,
    ];
    sizes.into_iter().flat_map(|size| [size, -size]).collect()
}

#[test]
fn certificates_that_a_wrong_clock_has_made_are_made_anew_by_the_same_keys() {
    for offset in offsets() {
        let data = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let start = FirstStart {
            now: now + offset,
            ..first(None, &["localhost"])
        };
        let (fleet, _) = Fleet::open_or_create(data.path(), &start).unwrap();
        let ends = [fleet.server_not_after(), fleet.ca_not_after()];
        let key = |pem: &str| {
            let der: CertificateDer<'_> =
                rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            (
                parsed.subject().to_string(),
                parsed.public_key().raw.to_vec(),
            )
        };
        let before = key(&fleet.server_ca_certificate_pem());
        let is_new = fleet.renew_certificates(&[], now).unwrap();
        let day = SignedDuration::from_hours(24);
        // an hour is tolerated; a certificate that was made some days ago is valid
        let is_off = offset > SignedDuration::from_hours(1) || offset < -day * 243;
        assert_eq!(is_new, is_off, "{offset:#}");
        let fits = |ends: Timestamp, days: i32| {
            let left = ends.duration_since(now);
            left > day * (days / 3) && left < day * (days + 1)
        };
        assert!(fits(fleet.server_not_after(), 365), "{offset:#}: {ends:?}");
        assert!(fits(fleet.ca_not_after(), 3653), "{offset:#}: {ends:?}");
        assert_eq!(key(&fleet.server_ca_certificate_pem()), before);
        assert!(!fleet.renew_certificates(&[], now).unwrap(), "once");
        let (again, _) = Fleet::open_or_create(data.path(), &first(None, &[])).unwrap();
        let seconds = |time: Timestamp| time.as_second();
        assert_eq!(
            seconds(again.server_not_after()),
            seconds(fleet.server_not_after())
        );
    }
    println!("certificates made by {} wrong clocks", offsets().len());
}

#[test]
fn a_trust_root_that_was_tampered_with_is_refused() {
    let data = tempfile::tempdir().unwrap();
    Fleet::open_or_create(data.path(), &first(None, &["localhost"])).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    Fleet::open_or_create(elsewhere.path(), &first(None, &["localhost"])).unwrap();
    // another fleet's root as the second version
    std::fs::copy(
        elsewhere.path().join("keys/roots/1.json"),
        data.path().join("keys/roots/2.json"),
    )
    .unwrap();
    let opened = Fleet::open_or_create(data.path(), &first(None, &[]));
    assert!(matches!(opened, Err(KeysError::Root(_))));
}

#[test]
fn a_release_key_that_no_device_believes_is_refused() {
    let [data, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for data in [&data, &elsewhere] {
        Fleet::open_or_create(data.path(), &first(None, &["localhost"])).unwrap();
    }
    let [own, other] = [&data, &elsewhere].map(|data| data.path().join("keys/release.pem"));
    std::fs::copy(other, own).unwrap();
    let refused = Fleet::open_or_create(data.path(), &first(None, &[])).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.ends_with("release.pem: not a release key of trust root 1"),
        "{refused}"
    );
}

#[test]
fn a_devices_certificate_says_who_it_is_and_nothing_it_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let (fleet, _) =
        Fleet::open_or_create(data.path(), &first(Some("shops"), &["localhost"])).unwrap();
    let machine = TestDevice::new("north/shop-1");
    // it requests more than it gets
    let mut params = CertificateParams::new(vec!["edge.example.com".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "root");
    let asked = params
        .serialize_request(&machine.key)
        .unwrap()
        .pem()
        .unwrap();
    let csr = Csr::parse(&asked).unwrap();
    assert_eq!(csr.key().fingerprint(), machine.fingerprint());
    let now = Timestamp::now();
    let issued = fleet
        .sign_device_certificate(csr.key(), &machine.name, now)
        .unwrap();
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(issued.pem.as_bytes());
    let der: CertificateDer<'_> = der.unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=north/shop-1");
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names = format!("{:?}", names.value.general_names);
    assert_eq!(names, r#"[URI("flotta://shops/north/shop-1")]"#);
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert_eq!(issued.not_after.duration_since(now).as_hours() / 24, 89);
}

#[test]
fn requests_prove_possession_of_a_p256_key() {
    let machine = TestDevice::new("a");
    let good = machine.csr();
    assert!(Csr::parse(&good).is_ok());
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let other = CertificateParams::default()
        .serialize_request(&other)
        .unwrap();
    assert_eq!(Csr::parse(&other.pem().unwrap()), Err(CsrError::Key));
    let mut der = rustls_pki_types::CertificateSigningRequestDer::from(
        CertificateParams::default()
            .serialize_request(&machine.key)
            .unwrap()
            .der()
            .to_vec(),
    )
    .to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let bent = files::pem("CERTIFICATE REQUEST", &der);
    assert_eq!(Csr::parse(&bent), Err(CsrError::Signature));
    for nothing in [
        "",
        "x",
        &good.replace("REQUEST", "NOTHING"),
        &"x".repeat(9000),
    ] {
        assert_eq!(Csr::parse(nothing), Err(CsrError::Malformed));
    }
}

#[test]
fn fingerprints_are_short_for_people() {
    let text = fingerprint_text(&Digest::of(b"x"));
    assert_eq!(text.len(), "SHA256:".len() + 16);
    assert!(Digest::of(b"x").hex().starts_with(&text["SHA256:".len()..]));
    assert!(name::check_label("fleet").is_ok());
}
