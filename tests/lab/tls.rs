//! Access to the edge API with a device's own key, used by another program.

use std::process::Command;

use crate::device::{Device, text};
use crate::site::{Site, device, page};

/// Sends one request with curl, and returns the HTTP status, or curl's error when there was no answer.
fn curl(site: &Site, identity: Option<&Device>, path: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    curl.args(["--connect-to", &format!("::{}", site.address())]);
    if let Some(device) = identity {
        let folder = device.path("/var/lib/flotta-agent/identity");
        curl.arg("--cacert").arg(folder.join("ca.pem"));
        curl.arg("--cert")
            .arg(folder.join("certificate.pem"))
            .arg("--key")
            .arg(folder.join("key.pem"));
    } else {
        curl.arg("--insecure");
    }
    let output = curl
        .arg(format!("{}{path}", site.url()))
        .output()
        .expect("curl starts");
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_device_gets_what_is_its_own_and_nothing_else() {
    let own = |name: &str, port: u16| {
        page(name, port, &format!("page of {name}"))
            .replace("deviceSelector: {}", &format!("device: {name}"))
    };
    let site = Site::start(&[
        ("a.yaml", &device("tls-a")),
        ("b.yaml", &device("tls-b")),
        ("wa.yaml", &own("tls-a", 8080)),
        ("wb.yaml", &own("tls-b", 8080)),
    ]);
    let (a, b) = (site.join("tls-a"), site.join("tls-b"));
    site.in_sync("tls-a");
    site.in_sync("tls-b");
    let manifest = |name: &str| {
        site.status(name)["wanted"]["manifest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let blob = |name: &str| format!("/v1/blobs/{}", manifest(name));
    assert_eq!(curl(&site, Some(&a), &blob("tls-a")), "200");
    // g. Device A requests B's blob.
    assert_eq!(curl(&site, Some(&a), &blob("tls-b")), "403");
    assert_eq!(curl(&site, Some(&b), &blob("tls-b")), "200");
    // No certificate.
    assert_eq!(curl(&site, None, &blob("tls-a")), "401");
    assert_eq!(curl(&site, None, "/v1/desired?root=1"), "401");
    // Revoked: refused from this moment on, although its certificate is valid for months.
    site.flotta(&["revoke", "tls-b"]);
    assert_eq!(curl(&site, Some(&b), &blob("tls-b")), "403");
    assert_eq!(curl(&site, Some(&a), &blob("tls-a")), "200");
    // Its workloads keep running.
    b.shows(8080, "page of tls-b");
}
