//! A server with the real edge protocol: HTTP/2 over TLS 1.3 with client certificates. It is honest until a test makes it lie:
//! then any answer can be replaced, and any connection can end anywhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::code::{self, Code, Problem};
use flotta_bundle::wire::{
    Acknowledged, Enrolment, EnrolmentRequest, Failure, MAX_REPORT_BYTES, Offer, Renewal,
    RenewalRequest, Report,
};
use flotta_bundle::{DeviceName, Digest, FleetName};
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

pub type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;
/// Returns a false answer to a request; none for the honest one.
pub type Lie = Arc<dyn Fn(&Request<Bytes>) -> Option<Answer> + Send + Sync>;

/// What listens at the server's address.
#[derive(Clone)]
pub enum Front {
    /// The real server.
    Server,
    /// The real server, with connections that end after so many bytes of its answers.
    Cut(u64),
    /// A server with another TLS configuration.
    Other(Arc<rustls::ServerConfig>),
    /// Something that sends these bytes and waits.
    Says(&'static [u8]),
}

/// The state of the server, and the requests it received.
#[derive(Clone)]
pub struct ServerState {
    pub offer: Option<Arc<Offer>>,
    pub tag: String,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub lie: Option<Lie>,
    pub front: Front,
    /// Number of lies: false answers, and connections that failed.
    pub lies: usize,
    pub reports: Vec<Report>,
    pub connections: usize,
    /// The current era; connections of an earlier one are closed.
    pub era: usize,
    pub renewals: usize,
    pub requests: usize,
    /// Number of requests for the rest of a blob.
    pub resumed: usize,
    /// The server's clock, and when its certificate was made by it; none for a right clock and certificates that never expire.
    pub clock: Option<(Timestamp, Timestamp)>,
}

pub struct Server {
    pub state: watch::Sender<ServerState>,
    pub authority: Arc<Authority>,
    pub url: String,
}

pub fn whole(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub fn stream(
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> UnsyncBoxBody<Bytes, io::Error> {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

pub fn answer(
    status: u16,
    headers: &[(&str, &str)],
    body: UnsyncBoxBody<Bytes, io::Error>,
) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).expect("a response")
}

pub fn json(status: u16, headers: &[(&str, &str)], value: &impl serde::Serialize) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    let body = serde_json::to_vec(value).expect("JSON");
    answer(status, &headers, whole(body))
}

fn failure(status: u16, code: Code) -> Answer {
    let error = Problem::new(code, code.title);
    let details = BTreeMap::new();
    json(status, &[], &Failure { error, details })
}

impl Server {
    pub async fn start(fleet: &FleetName) -> Self {
        let authority = Arc::new(Authority::new());
        let state = watch::Sender::new(ServerState {
            offer: None,
            tag: String::new(),
            blobs: BTreeMap::new(),
            lie: None,
            front: Front::Server,
            lies: 0,
            reports: Vec::new(),
            connections: 0,
            era: 0,
            renewals: 0,
            requests: 0,
            resumed: 0,
            clock: None,
        });
        let listener = TcpListener::bind("localhost:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let desk = Desk {
            state: state.clone(),
            authority: authority.clone(),
            fleet: fleet.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(desk.clone().meet(stream));
            }
        });
        Self {
            state,
            authority,
            url: format!("https://localhost:{port}"),
        }
    }
}

#[derive(Clone)]
struct Desk {
    state: watch::Sender<ServerState>,
    authority: Arc<Authority>,
    fleet: FleetName,
}

impl Desk {
    async fn meet(self, mut stream: TcpStream) {
        // A delayed acknowledgement would be idle time, which the paused clock skips.
        stream.set_nodelay(true).expect("a socket");
        let mut state = self.state.subscribe();
        self.state.send_modify(|state| state.connections += 1);
        let (front, era) = {
            let state = state.borrow();
            (state.front.clone(), state.era)
        };
        let clock = self.state.borrow().clock;
        let config = match clock {
            Some((now, made)) => self.authority.server_at(&["localhost"], made, now),
            None => self.authority.server(&["localhost"]),
        };
        let work = async {
            match front {
                Front::Server => self.serve(stream, config).await,
                Front::Other(config) => {
                    self.lied();
                    self.serve(stream, config).await;
                }
                Front::Cut(bytes) => {
                    let (ours, theirs) = tokio::io::duplex(64 << 10);
                    let (mut from, mut to) = stream.into_split();
                    let (mut out, mut back) = tokio::io::split(theirs);
                    let cut = async {
                        let _ = tokio::io::copy(&mut (&mut out).take(bytes), &mut to).await;
                    };
                    let ask = async {
                        let _ = tokio::io::copy(&mut from, &mut back).await;
                    };
                    tokio::select! {
                        () = cut => self.lied(),
                        () = ask => {}
                        () = self.serve(ours, config) => {}
                    }
                }
                Front::Says(bytes) => {
                    self.lied();
                    let _ = stream.write_all(bytes).await;
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = state.wait_for(|state| state.era != era) => {}
        }
    }

    fn lied(&self) {
        self.state.send_modify(|state| state.lies += 1);
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: Arc<rustls::ServerConfig>,
    ) {
        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
            return;
        };
        let known = stream.get_ref().1.peer_certificates().is_some();
        let service = service_fn(move |request: Request<Incoming>| {
            let desk = self.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let request = Request::from_parts(parts, body);
                Ok::<_, hyper::Error>(desk.answer(&request, known).await)
            }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: &Request<Bytes>, known: bool) -> Answer {
        let mut state = self.state.subscribe();
        self.state.send_modify(|state| state.requests += 1);
        let held_until = tokio::time::Instant::now() + Duration::from_secs(300);
        loop {
            let (lie, tag) = {
                let state = state.borrow_and_update();
                (state.lie.clone(), state.tag.clone())
            };
            if let Some(false_answer) = lie.and_then(|lie| lie(request)) {
                self.lied();
                return false_answer;
            }
            let path = request.uri().path();
            if path.starts_with("/v1/enrolments") {
                return self.enrol(request);
            }
            if !known {
                return failure(401, code::NO_CERTIFICATE);
            }
            if path != "/v1/desired" {
                return self.other(request);
            }
            let asked = request.headers().get("if-none-match");
            if asked.is_none_or(|asked| asked != tag.as_str()) {
                return self.desired();
            }
            let changed = tokio::time::timeout_at(held_until, state.changed()).await;
            if changed.is_err() {
                return answer(304, &[], whole(""));
            }
        }
    }

    fn desired(&self) -> Answer {
        let state = self.state.borrow();
        match &state.offer {
            Some(offer) => json(200, &[("etag", &state.tag)], offer.as_ref()),
            None => failure(404, code::NO_RELEASE),
        }
    }

    fn other(&self, request: &Request<Bytes>) -> Answer {
        match request.uri().path() {
            "/v1/report" if request.body().len() > MAX_REPORT_BYTES => {
                failure(413, code::TOO_LARGE)
            }
            "/v1/report" => {
                let report: Report = serde_json::from_slice(request.body()).expect("a report");
                let events = report.events.last().map_or(0, |event| event.id);
                self.state.send_modify(|state| state.reports.push(report));
                json(
                    200,
                    &[],
                    &Acknowledged {
                        events,
                        ..Acknowledged::default()
                    },
                )
            }
            "/v1/certificates" => {
                let asked: RenewalRequest =
                    serde_json::from_slice(request.body()).expect("a request");
                self.state.send_modify(|state| state.renewals += 1);
                let certificate = self.certificate(&asked.csr, &crate::fleet::device(2));
                json(200, &[], &Renewal { certificate })
            }
            path => match path.strip_prefix("/v1/blobs/") {
                Some(digest) => self.blob(request, digest),
                None => failure(404, code::NOT_FOUND),
            },
        }
    }

    fn certificate(&self, csr: &str, device: &DeviceName) -> String {
        let identity = device.identity(&self.fleet);
        match self.state.borrow().clock {
            Some((now, _)) => self.authority.device_at(csr, &identity, now),
            None => self.authority.device(csr, &identity),
        }
    }

    fn enrol(&self, request: &Request<Bytes>) -> Answer {
        let asked: EnrolmentRequest = serde_json::from_slice(request.body()).expect("a request");
        let approved = Enrolment::Approved {
            certificate: self.certificate(&asked.csr, &asked.device),
            device: asked.device,
        };
        json(200, &[], &approved)
    }

    fn blob(&self, request: &Request<Bytes>, digest: &str) -> Answer {
        let digest: Digest = digest.parse().expect("a digest");
        let Some(content) = self.state.borrow().blobs.get(&digest).cloned() else {
            return failure(404, code::NOT_FOUND);
        };
        let range = request.headers().get("range");
        let from = range.and_then(|range| {
            range
                .to_str()
                .ok()?
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        match from {
            None => answer(200, &[], whole(content)),
            Some(from) if from < content.len() => {
                self.state.send_modify(|state| state.resumed += 1);
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                answer(
                    206,
                    &[("content-range", &range)],
                    whole(content[from..].to_vec()),
                )
            }
            Some(_) => failure(416, code::BAD_REQUEST),
        }
    }
}
