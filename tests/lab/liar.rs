//! A server that lies to a real device. Between the device and the real server is one that has the server's certificate
//! and the fleet's keys: it passes everything on, and puts another answer in the place of any that it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release::{self, Release};
use flotta_bundle::root::{self, Role, TrustRoot};
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{Digest, Leaf, code};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::device::{Device, text, wait};
use crate::site::{Site, device, host, page};

type Answer = Response<Bytes>;

const DEVICE: &str = "lied-to";

/// What is done to the truth.
#[derive(Clone, Copy)]
enum Lie {
    /// Another offer.
    Offer(fn(&Forger, &mut Offer)),
    /// Another manifest, signed as it should be: what one can do who has the release key.
    Signed(fn(String) -> String),
    /// Another answer to a poll.
    Poll(fn(&mut Answer)),
    /// Another answer to a request for the manifest.
    Manifest(fn(&mut Answer)),
    /// Another answer to a request for a file.
    File(fn(&mut Answer)),
}

struct Case {
    name: &'static str,
    code: code::Code,
    /// What the refusal says.
    words: &'static str,
    /// It costs the connection, and so is reported afterwards.
    cut_off: bool,
    lie: Lie,
}

const fn case(name: &'static str, code: code::Code, words: &'static str, lie: Lie) -> Case {
    Case {
        name,
        code,
        words,
        cut_off: false,
        lie,
    }
}

const fn cut_off(name: &'static str, words: &'static str, lie: fn(&mut Answer)) -> Case {
    Case {
        cut_off: true,
        ..case(name, code::NOT_FLOTTA, words, Lie::Poll(lie))
    }
}

/// The fleet's keys in the wrong hands.
struct Forger {
    root: SigningKey,
    release: SigningKey,
    trust: TrustRoot,
    /// The first offer that the device had.
    first: Option<Offer>,
}

impl Forger {
    fn new(keys: &Path) -> Self {
        let key = |name| {
            let key = PrivateKeyDer::from_pem_file(keys.join(name)).expect("a key");
            SigningKey::from_pkcs8(key.secret_der()).expect("a key that signs")
        };
        let root = std::fs::read(keys.join("roots/1.json")).expect("a trust root");
        let root = Envelope::parse(&root).expect("an envelope");
        Self {
            root: key("root.pem"),
            release: key("release.pem"),
            trust: TrustRoot::open(&root).expect("the trust root"),
            first: None,
        }
    }

    /// The device's first offer.
    fn first(&self) -> Offer {
        self.first.clone().expect("it has had one")
    }

    /// What the release says.
    fn payload(&self, offer: &Offer) -> Vec<u8> {
        let keys = &self.trust.release.keys;
        let verified = offer.release.verify(release::PAYLOAD_TYPE, keys, 1);
        verified.expect("the truth")
    }

    /// The truth's release for another manifest, with the leaf of `name` and another in its tree.
    fn sign(&self, offer: &mut Offer, name: &str, manifest: Digest, lower: u64) {
        let leaves = [name, "zz-other"].map(|name| {
            let name = name.parse().expect("a name");
            Leaf::following(name, manifest, None).encode()
        });
        let tree = Tree::new(leaves.clone());
        let mut release = Release::parse(&self.payload(offer)).expect("a release");
        release.tree = tree.head();
        release.sequence -= lower;
        offer.release = envelope(&release.encode(), &self.release);
        let [leaf, _] = leaves;
        offer.leaf = String::from_utf8(leaf).expect("text");
        offer.index = 0;
        offer.proof = tree.prove(0).expect("a proof");
        offer.manifest = manifest;
    }

    /// A next trust root, in which `release` signs releases, by this key.
    fn root(&self, version: u32, release: &SigningKey, by: &SigningKey) -> Envelope {
        let next = TrustRoot {
            version,
            release: Role::any_of([release.public()]),
            ..self.trust.clone()
        };
        Envelope::sign(root::PAYLOAD_TYPE, &next.encode(), &[by])
    }
}

fn envelope(payload: &[u8], key: &SigningKey) -> Envelope {
    Envelope::sign(release::PAYLOAD_TYPE, payload, &[key])
}

fn stranger() -> SigningKey {
    SigningKey::generate().expect("a key").0
}

/// More files in a manifest.
fn files(manifest: &str, paths: &[&str]) -> String {
    let mut manifest: Value = serde_json::from_str(manifest).expect("JSON");
    let files = manifest["files"].as_array_mut().expect("a list");
    for path in paths {
        let digest = Digest::of(b"x").to_string();
        files.push(json!({
            "path": path, "mode": "0644", "owner": "root", "group": "root",
            "digest": digest, "size": 1, "kind": "data",
        }));
    }
    files.sort_by_key(|file| file["path"].as_str().map(str::to_owned));
    manifest.to_string()
}

/// A manifest with one piece of it replaced.
fn replaced(manifest: &str, from: &str, to: &str) -> String {
    assert!(manifest.contains(from), "{from} in {manifest}");
    manifest.replacen(from, to, 1)
}

fn change(answer: &mut Answer, change: fn(&mut Vec<u8>)) {
    let mut body = answer.body().to_vec();
    change(&mut body);
    *answer.body_mut() = body.into();
}

fn flip(answer: &mut Answer) {
    change(answer, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

fn cut(answer: &mut Answer) {
    change(answer, |bytes| bytes.truncate(bytes.len() / 2));
}

fn pad(answer: &mut Answer) {
    change(answer, |bytes| bytes.push(b' '));
}

fn redirect(answer: &mut Answer) {
    *answer.status_mut() = http::StatusCode::FOUND;
    let elsewhere = HeaderValue::from_static("https://elsewhere.example/v1/desired");
    answer.headers_mut().insert(header::LOCATION, elsewhere);
}

fn gzip(answer: &mut Answer) {
    // the beginning of ten gigabytes of nothing
    *answer.body_mut() =
        Bytes::from_static(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xec\xc1\x01\x01\x00");
    let gzip = HeaderValue::from_static("gzip");
    answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
}

fn bomb(answer: &mut Answer) {
    for number in 0..100 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        let value = HeaderValue::from_str(&"x".repeat(1_000)).expect("a value");
        answer.headers_mut().insert(name, value);
    }
}

fn portal(answer: &mut Answer) {
    *answer.body_mut() = Bytes::from_static(b"<html>Welcome, please pay");
    let html = HeaderValue::from_static("text/html");
    answer.headers_mut().insert(header::CONTENT_TYPE, html);
}

fn endless(answer: &mut Answer) {
    *answer.body_mut() = vec![b' '; 64 << 20].into();
}

const CASES: &[Case] = &[
    case(
        "a tampered manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        Lie::Manifest(flip),
    ),
    case(
        "a truncated manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        Lie::Manifest(cut),
    ),
    case(
        "a padded manifest",
        code::DIGEST_MISMATCH,
        "content asked for as",
        Lie::Manifest(pad),
    ),
    case(
        "an endless manifest",
        code::NOT_FLOTTA,
        "sent more than",
        Lie::Manifest(endless),
    ),
    case(
        "a tampered blob",
        code::DIGEST_MISMATCH,
        "content asked for as",
        Lie::File(flip),
    ),
    case(
        "a truncated blob",
        code::DIGEST_MISMATCH,
        "content asked for as",
        Lie::File(cut),
    ),
    case(
        "a padded blob",
        code::NOT_FLOTTA,
        "sent more than",
        Lie::File(pad),
    ),
    case(
        "a blob elsewhere",
        code::NOT_FLOTTA,
        "redirects to",
        Lie::File(redirect),
    ),
    case(
        "a blob that is a gzip bomb",
        code::NOT_FLOTTA,
        "sends gzip encoding",
        Lie::File(gzip),
    ),
    case(
        "a blob with a header bomb",
        code::NOT_FLOTTA,
        "header compression context",
        Lie::File(bomb),
    ),
    case(
        "a wrong proof",
        code::PROOF,
        "the proof does not lead",
        Lie::Offer(|_, offer| {
            offer.proof[0] = Digest::of(b"other");
        }),
    ),
    case(
        "a missing proof",
        code::PROOF,
        "the proof does not lead",
        Lie::Offer(|_, offer| offer.proof.clear()),
    ),
    case(
        "a proof for another leaf",
        code::PROOF,
        "the proof does not lead",
        Lie::Offer(|_, offer| offer.index ^= 1),
    ),
    case(
        "another device's leaf",
        code::WRONG_DEVICE,
        "the leaf is of",
        Lie::Offer(|forger, offer| {
            let manifest = offer.manifest;
            forger.sign(offer, "till", manifest, 0);
        }),
    ),
    case(
        "a lower sequence",
        code::OLDER,
        "is older than",
        Lie::Offer(|forger, offer| *offer = forger.first()),
    ),
    case(
        "one sequence with another root",
        code::EQUIVOCATION,
        "was accepted under",
        Lie::Offer(|forger, offer| {
            let manifest = offer.manifest;
            forger.sign(offer, DEVICE, manifest, 1);
        }),
    ),
    case(
        "an earlier digest that the leaf does not name",
        code::NOT_IN_LEAF,
        "the leaf does not name",
        Lie::Offer(|forger, offer| {
            offer.manifest = forger.first().manifest;
        }),
    ),
    case(
        "a release by an unknown key",
        code::SIGNATURE,
        "0 of the 1 signatures",
        Lie::Offer(|forger, offer| {
            offer.release = envelope(&forger.payload(offer), &stranger());
        }),
    ),
    case(
        "a release by a key that was revoked with it",
        code::SIGNATURE,
        "0 of the 1 signatures",
        Lie::Offer(|forger, offer| {
            offer.roots.push(forger.root(2, &stranger(), &forger.root));
        }),
    ),
    case(
        "a trust root by too few keys",
        code::ROOT_CHAIN,
        "0 of the 1 signatures",
        Lie::Offer(|forger, offer| {
            offer
                .roots
                .push(forger.root(2, &forger.release, &forger.release));
        }),
    ),
    case(
        "a trust root that skips a version",
        code::ROOT_CHAIN,
        "version 3 does not follow version 1",
        Lie::Offer(|forger, offer| {
            offer
                .roots
                .push(forger.root(3, &forger.release, &forger.root));
        }),
    ),
    case(
        "a payload of another type",
        code::ENVELOPE,
        "the envelope holds",
        Lie::Offer(|forger, offer| {
            let payload = forger.payload(offer);
            offer.release = Envelope::sign(root::PAYLOAD_TYPE, &payload, &[&forger.release]);
        }),
    ),
    cut_off("an offer elsewhere", "redirects to", redirect),
    cut_off("an offer that is a gzip bomb", "sends gzip encoding", gzip),
    cut_off(
        "an offer with a header bomb",
        "header compression context",
        bomb,
    ),
    cut_off("a portal's page for an offer", "text/html", portal),
    case(
        "an endless offer",
        code::NOT_FLOTTA,
        "sent more than",
        Lie::Poll(endless),
    ),
    case(
        "a path outside",
        code::MANIFEST,
        "not under a folder",
        Lie::Signed(|m| files(&m, &["/etc/cron.d/root"])),
    ),
    case(
        "a path that climbs",
        code::MANIFEST,
        "a `.` or `..` component",
        Lie::Signed(|m| files(&m, &["/etc/containers/systemd/../../shadow"])),
    ),
    case(
        "case twins",
        code::MANIFEST,
        "differs from another only in case",
        Lie::Signed(|m| {
            files(
                &m,
                &["/etc/flotta/workloads/web/a", "/etc/flotta/workloads/web/A"],
            )
        }),
    ),
    case(
        "Unicode twins",
        code::MANIFEST,
        "a character that is not printable ASCII",
        Lie::Signed(|m| {
            files(
                &m,
                &[
                    "/etc/flotta/workloads/web/\u{e9}",
                    "/etc/flotta/workloads/web/e\u{301}",
                ],
            )
        }),
    ),
    case(
        "a file where a folder is",
        code::MANIFEST,
        "is both a file and a folder",
        Lie::Signed(|m| {
            files(
                &m,
                &[
                    "/etc/flotta/workloads/web/a",
                    "/etc/flotta/workloads/web/a/b",
                ],
            )
        }),
    ),
    case(
        "a key twice",
        code::MANIFEST,
        "duplicate field",
        Lie::Signed(|m| replaced(&m, "\"schema\":1", "\"schema\":1,\"schema\":1")),
    ),
    case(
        "NaN",
        code::MANIFEST,
        "expected value",
        Lie::Signed(|m| replaced(&m, "\"heartbeat_seconds\":2", "\"heartbeat_seconds\":NaN")),
    ),
    case(
        "a million lists, one in the other",
        code::MANIFEST,
        "expected `,` or `]`",
        Lie::Signed(|m| {
            replaced(
                &m,
                "\"files\":[",
                &format!("\"files\":{}", "[".repeat(1_000_000)),
            )
        }),
    ),
];

/// What the liar knows.
struct Book {
    server: SocketAddr,
    forger: Forger,
    lie: Option<Lie>,
    /// How many were told.
    told: usize,
    /// Paths of manifests that the device was told of by the truth.
    manifests: BTreeSet<String>,
    /// Manifests of its own, by path.
    forged: BTreeMap<String, Bytes>,
}

/// The liar, on the lab's bridge.
#[derive(Clone)]
struct Liar {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    /// The server's.
    keys: PathBuf,
    /// The device's.
    identity: PathBuf,
}

impl Liar {
    /// Between the site's server and the device whose identity is in this folder.
    fn start(site: &Site, identity: PathBuf) -> Self {
        let keys = site.path("data/keys");
        let book = Arc::new(Mutex::new(Book {
            server: site.address().parse().expect("an address"),
            forger: Forger::new(&keys),
            lie: None,
            told: 0,
            manifests: BTreeSet::new(),
            forged: BTreeMap::new(),
        }));
        let listener = std::net::TcpListener::bind((host(), 0)).expect("a port on the bridge");
        listener.set_nonblocking(true).expect("a socket");
        let liar = Self {
            address: listener.local_addr().expect("an address"),
            book,
            keys,
            identity,
        };
        let standing = liar.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    // A device that hangs up is as it should be.
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(standing.clone().meet(stream));
                    }
                }
            });
        });
        liar
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic")
    }
}

fn authority(path: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(path).expect("a certificate");
    roots.add(authority).expect("an authority");
    roots
}

fn pair(certificate: &Path, key: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
    let chain = chain.collect::<Result<_, _>>().expect("a chain");
    (chain, PrivateKeyDer::from_pem_file(key).expect("a key"))
}

impl Liar {
    /// As the server greets.
    fn greeting(&self) -> TlsAcceptor {
        let devices = Arc::new(authority(&self.keys.join("device-ca.pem")));
        let verifier = WebPkiClientVerifier::builder(devices)
            .allow_unauthenticated()
            .build();
        let server = self.keys.join("server.pem");
        let (chain, key) = pair(&server, &server);
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// To the server, as the device or as nobody.
    async fn dial(&self, is_known: bool) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let config = ClientConfig::builder()
            .with_root_certificates(authority(&self.keys.join("server-ca.pem")));
        let mut config = if is_known {
            let name = |name| self.identity.join(name);
            let (chain, key) = pair(&name("certificate.pem"), &name("key.pem"));
            config.with_client_auth_cert(chain, key)?
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server = self.book().server;
        let stream = TcpStream::connect(server).await?;
        let name = "flotta.example".try_into()?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn meet(self, stream: TcpStream) -> anyhow::Result<()> {
        let stream = self.greeting().accept(stream).await?;
        let is_known = stream.get_ref().1.peer_certificates().is_some();
        let server = self.dial(is_known).await?;
        let service = service_fn(move |request: Request<Incoming>| {
            let (liar, server) = (self.clone(), server.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let answer = liar
                    .answer(Request::from_parts(parts, Full::new(body)), server)
                    .await?;
                Ok::<_, anyhow::Error>(answer.map(Full::new))
            }
        });
        let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        Ok(serve
            .serve_connection(TokioIo::new(stream), service)
            .await?)
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        mut server: SendRequest<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let path = request.uri().path().to_owned();
        if let Some(forged) = self.book().forged.get(&path) {
            return Ok(Response::new(forged.clone()));
        }
        let (parts, body) = server.send_request(request).await?.into_parts();
        let mut answer = Response::from_parts(parts, body.collect().await?.to_bytes());
        // a lie may be longer
        answer.headers_mut().remove(header::CONTENT_LENGTH);
        if path != "/v1/desired" {
            self.blob(&path, &mut answer);
        } else if answer.status() == http::StatusCode::OK {
            self.offer(&mut answer, server).await?;
        }
        Ok(answer)
    }

    fn blob(&self, path: &str, answer: &mut Answer) {
        let mut book = self.book();
        let is_manifest = book.manifests.contains(path);
        match book.lie {
            Some(Lie::Manifest(lie)) if is_manifest => lie(answer),
            Some(Lie::File(lie)) if path.starts_with("/v1/blobs/") && !is_manifest => lie(answer),
            _ => return,
        }
        book.told += 1;
    }

    async fn offer(
        &self,
        answer: &mut Answer,
        mut server: SendRequest<Full<Bytes>>,
    ) -> anyhow::Result<()> {
        let mut offer: Offer = serde_json::from_slice(answer.body())?;
        let path = format!("/v1/blobs/{}", offer.manifest);
        let lie = {
            let mut book = self.book();
            book.forger.first.get_or_insert_with(|| offer.clone());
            book.manifests.insert(path.clone());
            book.lie
        };
        match lie {
            Some(Lie::Poll(lie)) => lie(answer),
            Some(Lie::Offer(lie)) => {
                lie(&self.book().forger, &mut offer);
                *answer.body_mut() = serde_json::to_vec(&offer)?.into();
            }
            Some(Lie::Signed(lie)) => {
                let request = Request::get(format!("https://flotta.example{path}"));
                let truth = server.send_request(request.body(Full::default())?).await?;
                let truth = truth.into_body().collect().await?.to_bytes();
                let forged = lie(String::from_utf8(truth.to_vec())?);
                let digest = Digest::of(forged.as_bytes());
                let mut book = self.book();
                book.forged
                    .insert(format!("/v1/blobs/{digest}"), forged.into());
                book.forger.sign(&mut offer, DEVICE, digest, 0);
                *answer.body_mut() = serde_json::to_vec(&offer)?.into();
            }
            _ => return Ok(()),
        }
        self.book().told += 1;
        Ok(())
    }
}

/// What happened, by number.
fn events(site: &Site) -> Vec<(u64, String)> {
    let events = site.flotta(&["get", "events", "-A", "-o", "json"]);
    let events: Value = serde_json::from_str(&events).expect("JSON");
    let events = events["items"].as_array().expect("a list").iter();
    let number = |event: &Value| {
        let name = event["metadata"]["name"].as_str().expect("a name");
        name.parse().expect("a number")
    };
    events
        .map(|event| (number(event), event["status"].to_string()))
        .collect()
}

/// What runs on the device, and all of its configuration: the fleet's and its own, and when each file was written.
fn state(device: &Device) -> BTreeSet<String> {
    // one that went while it was looked for is no failure
    let files = device.run(&["find", "/etc", "-printf", "%p %y %s %T@ %m\\n"]);
    let files = text(&files.stdout);
    assert!(files.contains("web.container"), "{files}");
    let running = device.containers().into_iter();
    let running = running.map(|(name, id)| format!("{name} {id}"));
    files.lines().map(str::to_owned).chain(running).collect()
}

#[test]
fn no_lie_reaches_a_device_and_all_are_seen() {
    let said = |text: &str| page("web", 8080, text);
    let site = Site::start(&[
        ("lied-to.yaml", &device(DEVICE)),
        ("till.yaml", &device("till")),
        ("web.yaml", &said("first")),
    ]);
    let device = Site::install(DEVICE);
    let liar = Liar::start(&site, device.path("/var/lib/flotta-agent/identity"));
    let url = format!("https://flotta.example:{}", liar.address.port());
    let token = site.flotta(&["token", "create", "--server", &url, DEVICE]);
    device.write("/etc/flotta/join", &token);
    device.boot();
    device.shows(8080, "first");
    site.in_sync(DEVICE);
    let mut text = "first".to_owned();
    let mut lies = 0;
    for case in CASES {
        let before = state(&device);
        let newest = events(&site).iter().map(|(number, _)| *number).max();
        {
            let mut book = liar.book();
            (book.lie, book.told) = (Some(case.lie), 0);
        }
        site.commit(
            case.name,
            &[("web.yaml", &said(&format!("{} is not shown", case.name)))],
        );
        let refused = || {
            let events = events(&site);
            let is_it = |(number, said): &(u64, String)| {
                Some(*number) > newest
                    && ["Refused", case.code.id, case.words]
                        .iter()
                        .all(|word| said.contains(word))
            };
            let found = events.iter().any(is_it);
            found
                .then_some(())
                .ok_or_else(|| format!("{events:#?}\n{}", device.log()))
        };
        if case.cut_off {
            wait(case.name, || {
                let told = liar.book().told;
                if told >= 2 {
                    Ok(())
                } else {
                    Err(format!("told {told} times"))
                }
            });
        } else {
            wait(case.name, refused);
        }
        device.shows(8080, &text);
        let after = state(&device);
        let touched: Vec<_> = after.symmetric_difference(&before).collect();
        assert!(touched.is_empty(), "{}: {touched:#?}", case.name);
        lies += std::mem::take(&mut liar.book().told);
        liar.book().lie = None;
        // the truth, which is newer than what was signed in its name
        text = format!("after {}", case.name);
        site.commit("the truth", &[("web.yaml", &said(&text))]);
        device.shows(8080, &text);
        site.in_sync(DEVICE);
        wait(case.name, refused);
        println!("{}: refused as {}", case.name, case.code.id);
    }
    site.in_sync(DEVICE);
    println!("kinds of lies: {} refused, {lies} told", CASES.len());
}
