//! A man in the middle between a real device and the real server, with the server's certificate and the fleet's keys. It
//! forwards everything, and can replace any answer.

mod attacks;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use flotta_bundle::Digest;
use flotta_bundle::wire::Offer;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::device::{Device, text, wait};
use crate::site::{Site, device, host, page};

use attacks::{Attack, CASES, Forger};

type Answer = Response<Bytes>;

const DEVICE: &str = "attacked";

/// The state of the man in the middle.
struct Record {
    server: SocketAddr,
    device: &'static str,
    forger: Forger,
    attack: Option<Attack>,
    /// Number of false answers.
    false_answers: usize,
    /// Paths of manifests in genuine offers.
    manifests: BTreeSet<String>,
    /// Forged manifests, by path.
    forged: BTreeMap<String, Bytes>,
}

/// The man in the middle, on the lab's bridge.
#[derive(Clone)]
struct Mitm {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
    /// The server's keys.
    keys: PathBuf,
    /// The device's identity.
    identity: PathBuf,
}

impl Mitm {
    /// Starts between the site's server and the device of this name, whose identity is in this folder.
    fn start(site: &Site, device: &'static str, identity: PathBuf) -> Self {
        let keys = site.path("data/keys");
        let record = Arc::new(Mutex::new(Record {
            server: site.address().parse().expect("an address"),
            device,
            forger: Forger::new(&keys),
            attack: None,
            false_answers: 0,
            manifests: BTreeSet::new(),
            forged: BTreeMap::new(),
        }));
        let listener = std::net::TcpListener::bind((host(), 0)).expect("a port on the bridge");
        listener.set_nonblocking(true).expect("a socket");
        let mitm = Self {
            address: listener.local_addr().expect("an address"),
            record,
            keys,
            identity,
        };
        let standing = mitm.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    // A device may hang up.
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(standing.clone().meet(stream));
                    }
                }
            });
        });
        mitm
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic")
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

impl Mitm {
    /// TLS towards the device, as the server does it.
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

    /// Connects to the server, as the device or without a certificate.
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
        let server = self.record().server;
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
            let (mitm, server) = (self.clone(), server.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let answer = mitm
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
        if let Some(forged) = self.record().forged.get(&path) {
            return Ok(Response::new(forged.clone()));
        }
        let (parts, body) = server.send_request(request).await?.into_parts();
        let mut answer = Response::from_parts(parts, body.collect().await?.to_bytes());
        // a false answer may be longer
        answer.headers_mut().remove(header::CONTENT_LENGTH);
        if path != "/v1/desired" {
            self.blob(&path, &mut answer);
        } else if answer.status() == http::StatusCode::OK {
            self.offer(&mut answer, server).await?;
        }
        Ok(answer)
    }

    fn blob(&self, path: &str, answer: &mut Answer) {
        let mut record = self.record();
        let is_manifest = record.manifests.contains(path);
        match record.attack {
            Some(Attack::Manifest(attack)) if is_manifest => attack(answer),
            Some(Attack::File(attack)) if path.starts_with("/v1/blobs/") && !is_manifest => {
                attack(answer);
            }
            _ => return,
        }
        record.false_answers += 1;
    }

    async fn offer(
        &self,
        answer: &mut Answer,
        mut server: SendRequest<Full<Bytes>>,
    ) -> anyhow::Result<()> {
        let mut offer: Offer = serde_json::from_slice(answer.body())?;
        let path = format!("/v1/blobs/{}", offer.manifest);
        let attack = {
            let mut record = self.record();
            record.forger.first.get_or_insert_with(|| offer.clone());
            record.manifests.insert(path.clone());
            record.attack
        };
        match attack {
            Some(Attack::Poll(attack)) => attack(answer),
            Some(Attack::Offer(attack)) => {
                attack(&self.record().forger, &mut offer);
                *answer.body_mut() = serde_json::to_vec(&offer)?.into();
            }
            Some(Attack::Signed(attack)) => {
                let request = Request::get(format!("https://flotta.example{path}"));
                let truth = server.send_request(request.body(Full::default())?).await?;
                let truth = truth.into_body().collect().await?.to_bytes();
                let forged = attack(String::from_utf8(truth.to_vec())?);
                let digest = Digest::of(forged.as_bytes());
                let mut record = self.record();
                record
                    .forged
                    .insert(format!("/v1/blobs/{digest}"), forged.into());
                // what is in a file that the truth does not have
                record
                    .forged
                    .insert(format!("/v1/blobs/{}", Digest::of(b"x")), "x".into());
                let device = record.device;
                record.forger.sign(&mut offer, device, digest, 0);
                *answer.body_mut() = serde_json::to_vec(&offer)?.into();
            }
            _ => return Ok(()),
        }
        self.record().false_answers += 1;
        Ok(())
    }
}

/// The events, by number.
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

/// The running containers, and all configuration files of the fleet and the host with their times.
fn state(device: &Device) -> BTreeSet<String> {
    // a file that disappears meanwhile is not a failure
    let files = device.run(&["find", "/etc", "-printf", "%p %y %s %T@ %m\\n"]);
    let files = text(&files.stdout);
    assert!(files.contains("web.container"), "{files}");
    let running = device.containers().into_iter();
    let running = running.map(|(name, id)| format!("{name} {id}"));
    files.lines().map(str::to_owned).chain(running).collect()
}

/// A device that has joined through the mitm and shows a page.
fn fleet(name: &'static str) -> (Site, Device, Mitm) {
    let site = Site::start(&[
        ("attacked.yaml", &device(name)),
        ("till.yaml", &device("till")),
        ("web.yaml", &page("web", 8080, "first")),
    ]);
    let device = Site::install(name);
    let identity = device.path("/var/lib/flotta-agent/identity");
    let mitm = Mitm::start(&site, name, identity);
    let url = format!("https://flotta.example:{}", mitm.address.port());
    let token = site.flotta(&["token", "create", "--server", &url, name]);
    device.write("/etc/flotta/join", &token);
    device.boot();
    device.shows(8080, "first");
    site.in_sync(name);
    (site, device, mitm)
}

#[test]
fn no_attack_reaches_a_device_and_all_are_seen() {
    let said = |text: &str| page("web", 8080, text);
    let (site, device, mitm) = fleet(DEVICE);
    let mut text = "first".to_owned();
    let mut lies = 0;
    for case in CASES {
        let before = state(&device);
        let newest = events(&site).iter().map(|(number, _)| *number).max();
        {
            let mut record = mitm.record();
            (record.attack, record.false_answers) = (Some(case.attack), 0);
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
                let false_answers = mitm.record().false_answers;
                if false_answers >= 2 {
                    Ok(())
                } else {
                    Err(format!("sent {false_answers} times"))
                }
            });
        } else {
            wait(case.name, refused);
        }
        device.shows(8080, &text);
        let after = state(&device);
        let touched: Vec<_> = after.symmetric_difference(&before).collect();
        assert!(touched.is_empty(), "{}: {touched:#?}", case.name);
        lies += std::mem::take(&mut mitm.record().false_answers);
        mitm.record().attack = None;
        // the genuine release, which is newer than the forged one
        text = format!("after {}", case.name);
        site.commit("the truth", &[("web.yaml", &said(&text))]);
        device.shows(8080, &text);
        site.in_sync(DEVICE);
        wait(case.name, refused);
        println!("{}: refused as {}", case.name, case.code.id);
    }
    site.in_sync(DEVICE);
    println!(
        "kinds of lies: {} refused, {lies} false_answers",
        CASES.len()
    );
}
