//! Ten thousand connections, incomplete requests, and clients that never read.

use std::io::Read;
use std::time::Duration;

use flotta_bundle::Digest;
use flotta_bundle::wire::MAX_REPORT_BYTES;
use futures_util::StreamExt;
use http::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use super::raw::{
    Dialler, END_HEADERS, END_STREAM, H1, H2, PREFACE, Raw, begins, piece, used, uses,
};
use super::world::{Client, World};
use crate::edge::limits::{Limits, WINDOWS};
use crate::fixture::{DEADLINE, TestDevice, bundle, eventually};
use crate::rate::{BODIES_EACH, CONNECTIONS_EACH, DOWNLOADS_EACH};

/// Number of connections to try.
const MANY: usize = 10_000;
/// Parallel handshakes of the client, so that only the server's limits are tested.
const AT_A_TIME: usize = 128;

/// Serialises tests that open many files.
static FILES: Mutex<()> = Mutex::const_new(());

/// [`MANY`], or as many as this process can open on top of `others`.
async fn many(others: usize) -> (usize, MutexGuard<'static, ()>) {
    let alone = FILES.lock().await;
    // as the server does
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let files = setrlimit(Resource::Nofile, most).map_or(limit.current, |()| limit.maximum);
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap());
    // and half as many more for tests that run at the same time
    let room = files.saturating_sub(others + others / 2);
    let many = MANY.min(room);
    assert!(
        many > others,
        "ulimit -n is {files}: too few to try anything"
    );
    if many < MANY {
        println!("{many} connections, not {MANY}: ulimit -n allows no more");
    }
    (many, alone)
}

/// An honest device, which must be served.
struct Honest {
    machine: TestDevice,
    client: Client,
}

impl Honest {
    async fn new(world: &World) -> Self {
        let machine = TestDevice::new("b");
        world.fixture.publish(1, &[("b", &[Digest::of(b"1")])]);
        let client = world.device(&machine).await;
        Self { machine, client }
    }

    /// Checks its connection, and a new one.
    async fn is_served(&self, world: &World) {
        let answer = self.client.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200);
        let again = world.enrol(&self.machine, None).await;
        let flotta_bundle::wire::Enrolment::Approved { certificate, .. } = again.json() else {
            panic!("{again:?}");
        };
        let identity = super::world::identity(&self.machine, &certificate);
        let client = world.connect(Some(identity)).await.unwrap();
        let answer = client.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200);
    }
}

/// Opens many connections, and returns those that the server keeps.
async fn open(dialler: &Dialler, many: usize) -> Vec<Raw> {
    let dialled = futures_util::stream::iter(0..many).map(async |_| {
        let mut raw = dialler.dial().await;
        raw.is_served().await.then_some(raw)
    });
    let kept = dialled.buffer_unordered(AT_A_TIME);
    kept.filter_map(async |raw| raw).collect().await
}

#[tokio::test]
async fn of_ten_thousand_connections_of_one_device_a_few_are_held() {
    let world = World::new().await;
    let honest = Honest::new(&world).await;
    let machine = TestDevice::new("a");
    let identity = world.join(&machine).await;
    let dialler = Dialler::new(&world, Some(identity), H2);
    let held = open(&dialler, MANY).await;
    println!(
        "connections of one device: tried {MANY}, held {}",
        held.len()
    );
    assert_eq!(held.len(), CONNECTIONS_EACH);
    assert_eq!(used(&world, &machine), [CONNECTIONS_EACH, 0, 0]);
    honest.is_served(&world).await;
    // a closed connection frees its slot
    drop(held);
    uses(&world, &machine, [0, 0, 0]).await;
    assert_eq!(open(&dialler, 1).await.len(), 1);
}

#[tokio::test]
async fn ten_thousand_handshakes_that_stop_half_way_keep_nobody_out() {
    let limits = Limits {
        patience: Duration::ZERO,
        // none times out by itself
        handshake: Duration::from_secs(3600),
        ..Limits::default()
    };
    let (many, _alone) = many(limits.handshakes * 2).await;
    let world = World::with(limits).await;
    let honest = Honest::new(&world).await;
    let mut held = Vec::new();
    for count in 0..many {
        let stream = TcpStream::connect(world.address);
        let stream = tokio::time::timeout(DEADLINE, stream).await;
        let stream = stream.expect("nobody is let in").unwrap();
        // every second one is silent, the others send the beginning of a ClientHello
        if count % 2 == 0 {
            stream.writable().await.unwrap();
            let _ = stream.try_write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        }
        held.push(stream.into_std().unwrap());
    }
    honest.is_served(&world).await;
    let open = |stream: &mut std::net::TcpStream| {
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    eventually("all but the newest are closed", async || {
        held.retain_mut(open);
        (held.len() <= limits.handshakes).then_some(())
    })
    .await;
    println!("half handshakes: tried {many}, held {}", held.len());
    assert!(world.edge.0.handshakes.taken() <= limits.handshakes);
    honest.is_served(&world).await;
    drop(held);
    eventually("no handshake is left", async || {
        (world.edge.0.handshakes.taken() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_strangers_keep_nobody_from_joining() {
    let limits = Limits {
        anonymous: 256,
        patience: Duration::ZERO,
        ..Limits::default()
    };
    let (many, _alone) = many(limits.anonymous * 4).await;
    let world = World::with(limits).await;
    let honest = Honest::new(&world).await;
    let dialler = Dialler::new(&world, None, H2);
    let held = open(&dialler, many).await;
    let taken = world.edge.0.anonymous.taken();
    println!(
        "connections without a certificate: tried {many}, answered {}, held at the end {taken}",
        held.len()
    );
    assert!(taken <= limits.anonymous, "{taken}");
    // the joining device is the newest client, so the oldest stranger is evicted
    world.join(&TestDevice::new("new")).await;
    honest.is_served(&world).await;
}

/// Incomplete requests with their protocol, and whether the server ends the connection by itself: an HTTP/2 connection of a
/// device stays open as long as it answers pings, like one with a held poll.
fn halves() -> Vec<(&'static [u8], Vec<u8>, bool)> {
    let preface = |more: &[u8]| [PREFACE, more].concat();
    let put = "PUT /v1/report HTTP/1.1\r\nHost: a\r\n";
    let body = |flags| begins(1, flags, "PUT", "/v1/report");
    vec![
        (H1, Vec::new(), true),
        (H1, b"G".to_vec(), true),
        (H1, b"GET /v1/des".to_vec(), true),
        (
            H1,
            b"GET /v1/desired HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
            true,
        ),
        (
            H1,
            format!("{put}Content-Length: 5\r\n\r\n{{").into_bytes(),
            true,
        ),
        (
            H1,
            format!("{put}Transfer-Encoding: chunked\r\n\r\n1\r\n").into_bytes(),
            true,
        ),
        (
            H1,
            format!("{put}X: {}\r\n\r\n", "x".repeat(100_000)).into_bytes(),
            true,
        ),
        (H1, PREFACE.to_vec(), true),
        (H2, b"GET / HTTP/1.1\r\n\r\n".to_vec(), true),
        (H2, Vec::new(), false),
        (H2, PREFACE[..10].to_vec(), false),
        (H2, PREFACE[..26].to_vec(), false),
        (H2, preface(&[]), false),
        (H2, preface(&body(END_HEADERS)[..20]), false),
        (H2, preface(&body(0)), false),
        (H2, preface(&body(END_HEADERS)), false),
        (
            H2,
            preface(&[body(END_HEADERS), piece(1, b"{")].concat()),
            false,
        ),
        // a length of 16 MiB, a stream of the server's, a body without a request
        (H2, preface(b"\xff\xff\xff\0\0\0\0\0\x01"), true),
        (H2, preface(&begins(2, END_HEADERS, "GET", "/")), true),
        (H2, preface(&piece(1, b"x")), true),
    ]
}

#[tokio::test]
async fn half_a_request_takes_one_place_and_no_more() {
    let world = World::with(Limits {
        // the honest device has to join and handshake within it too
        handshake: Duration::from_secs(1),
        body: Duration::from_millis(500),
        anonymous_life: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    world.fixture.publish(1, &[("b", &[Digest::of(b"1")])]);
    let honest = world.device(&TestDevice::new("b")).await;
    let (mut tried, mut ended) = (0, 0);
    for (protocol, sent, ends) in halves() {
        let machine = TestDevice::new(&format!("a{tried}"));
        let identity = world.join(&machine).await;
        let device = Dialler::new(&world, Some(identity), protocol);
        let stranger = Dialler::new(&world, None, protocol);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(device.say(&sent).await);
        }
        let mut anonymous = stranger.say(&sent).await;
        if ends {
            for raw in &mut held {
                raw.until_closed().await;
                ended += 1;
            }
            uses(&world, &machine, [0, 0, 0]).await;
        } else {
            uses(&world, &machine, [3, 0, 0]).await;
            drop(held);
            uses(&world, &machine, [0, 0, 0]).await;
        }
        // without a certificate all of them end
        anonymous.until_closed().await;
        ended += 1;
        tried += 4;
        let answer = honest.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200);
    }
    println!(
        "half requests: {tried}, {ended} ended by the server, the others held in their device's places"
    );
    assert_eq!((tried, ended), (80, 56));
}

#[tokio::test]
async fn bodies_that_do_not_end_are_few_in_memory() {
    let world = World::new().await;
    let honest = Honest::new(&world).await;
    let machine = TestDevice::new("a");
    let identity = world.join(&machine).await;
    let dialler = Dialler::new(&world, Some(identity), H2);
    let mut held = Vec::new();
    let mut tried = 0;
    for _ in 0..CONNECTIONS_EACH {
        let mut sent = PREFACE.to_vec();
        for stream in (1..).step_by(2).take(32) {
            sent.extend(begins(stream, END_HEADERS, "PUT", "/v1/report"));
            // together no more than the flow control windows
            sent.extend(piece(stream, &[b' '; 2000]));
            tried += 1;
        }
        held.push(dialler.say(&sent).await);
    }
    uses(&world, &machine, [CONNECTIONS_EACH, 0, BODIES_EACH]).await;
    println!("bodies that do not end: tried {tried}, read into memory at a time {BODIES_EACH}");
    assert_eq!(tried, 512);
    honest.is_served(&world).await;
    drop(held);
    uses(&world, &machine, [0, 0, 0]).await;
}

/// The flow control windows bound the memory that the server needs for a client.
#[tokio::test]
async fn what_a_connection_may_send_unasked_is_little() {
    let world = World::new().await;
    let dialler = Dialler::new(&world, Some(world.join(&TestDevice::new("a")).await), H2);
    let (of_request, of_connection) = dialler.say(PREFACE).await.windows().await;
    let all = CONNECTIONS_EACH * (of_connection as usize) + BODIES_EACH * MAX_REPORT_BYTES;
    println!("bytes of one device's requests in memory: at most {all}");
    assert_eq!((of_request, of_connection), WINDOWS);
    assert!(all <= 8 << 20, "{all}");
}

/// Three megabytes that two devices may read: more than a client buffers unread.
async fn download(limits: Limits) -> (World, String, usize) {
    let world = World::with(limits).await;
    let content = vec![b'x'; 3_000_000];
    let (manifest, blobs) = bundle(&content);
    world.fixture.depot.put_blobs(&blobs).await.unwrap();
    world
        .fixture
        .publish(1, &[("a", &[manifest]), ("b", &[manifest])]);
    let path = format!("/v1/blobs/{}", Digest::of(&content));
    (world, path, content.len())
}

#[tokio::test]
async fn who_never_reads_is_let_go() {
    // one device takes all download slots
    let (world, path, length) = download(Limits {
        downloads: DOWNLOADS_EACH,
        body: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    let machine = TestDevice::new("a");
    let idle = world.device(&machine).await;
    let mut unread = Vec::new();
    for _ in 0..DOWNLOADS_EACH {
        let begun = idle.begin(Method::GET, &path, &[], Vec::new()).await;
        unread.push(begun.unwrap());
    }
    let reader = world.device(&TestDevice::new("b")).await;
    assert_eq!(reader.get(&path, &[]).await.body.len(), length);
    uses(&world, &machine, [1, 0, 0]).await;
    // what it reads in the end is incomplete, and ends with an error
    let mut broken = 0;
    for response in unread {
        use http_body_util::BodyExt;
        broken += usize::from(response.into_body().collect().await.is_err());
    }
    println!("downloads that nobody reads: {broken}/{DOWNLOADS_EACH} broken off, the next served");
    assert_eq!(broken, DOWNLOADS_EACH);
    assert_eq!(reader.get(&path, &[]).await.status, 200);
}

#[tokio::test]
async fn who_reads_nothing_at_all_holds_what_is_its_own() {
    let (world, path, length) = download(Limits::default()).await;
    let machine = TestDevice::new("a");
    let identity = world.join(&machine).await;
    let dialler = Dialler::new(&world, Some(identity), H2);
    let mut held = Vec::new();
    let mut tried = 0;
    for _ in 0..CONNECTIONS_EACH {
        let mut raw = dialler.say(PREFACE).await;
        // more than the parallel limit; it reads no answer, setting or refusal
        for stream in (1..).step_by(2).take(100) {
            let flags = END_HEADERS | END_STREAM;
            raw.write(&begins(stream, flags, "GET", &path)).await;
            tried += 1;
        }
        held.push(raw);
    }
    eventually("its own places are taken", async || {
        (used(&world, &machine)[1] == DOWNLOADS_EACH).then_some(())
    })
    .await;
    let [connections, downloads, bodies] = used(&world, &machine);
    println!("requests whose answers nobody reads: {tried}, held {downloads} downloads");
    assert!(connections <= CONNECTIONS_EACH && downloads == DOWNLOADS_EACH && bodies == 0);
    let reader = world.device(&TestDevice::new("b")).await;
    for _ in 0..10 {
        assert_eq!(reader.get(&path, &[]).await.body.len(), length);
    }
    drop(held);
    uses(&world, &machine, [0, 0, 0]).await;
}
