//! Reports of any size, depth and encoding, and false reports.

use flotta_bundle::wire::{Acknowledged, MAX_REPORT_BYTES, Offer, Report};
use flotta_bundle::{Digest, Leaf, Problem, code};
use http::Method;
use serde_json::{Value, json};

use super::raw::{Dialler, H1};
use super::world::{Client, World};
use super::{happened, hold, obeyed, waits};
use crate::edge::limits::Limits;
use crate::fixture::{TestDevice, eventually, name, report};
use crate::store::EventFilter;

fn good() -> Value {
    serde_json::to_value(report()).unwrap()
}

/// A good report with one value replaced.
fn with(field: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut said = good();
    *said.pointer_mut(field).unwrap() = value.into();
    said.to_string().into_bytes()
}

/// A good report with more text after its first brace, as no JSON library writes it.
fn before(text: &str) -> Vec<u8> {
    good()
        .to_string()
        .replacen('{', &format!("{{{text},"), 1)
        .into_bytes()
}

fn deep(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(10_000), close.repeat(10_000))
}

fn utf16(text: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

fn event(id: &str) -> Vec<u8> {
    let event = format!(
        r#""events":[{{"id":{id},"time":"2026-01-01T00:00:00Z","reason":"A","message":"m"}}]"#
    );
    let said = good().to_string().replace(r#""events":[]"#, &event);
    assert!(said.contains(&event));
    said.into_bytes()
}

/// Name, body and status of the answer.
type Case = (&'static str, Vec<u8>, u16);

fn many(field: &str, one: Value, count: usize) -> Vec<u8> {
    with(field, vec![one; count])
}

fn sizes() -> Vec<Case> {
    let problem = json!({"code": "FLT0501", "message": "m", "help": "h"});
    let workload = json!({"name": "web", "state": "Running"});
    let happened = json!({"id": 1, "time": "2026-01-01T00:00:00Z", "reason": "A", "message": "m"});
    vec![
        ("nothing", Vec::new(), 400),
        ("a megabyte of spaces", vec![b' '; MAX_REPORT_BYTES], 400),
        ("a byte more", vec![b' '; MAX_REPORT_BYTES + 1], 413),
        ("eight megabytes", vec![b'['; 8 << 20], 413),
        (
            "a word that never ends",
            with("/agent", "x".repeat(1 << 20)),
            413,
        ),
        (
            "a long text, which is cut",
            with("/agent", "x".repeat(1_000_000)),
            200,
        ),
        ("too many events", many("/events", happened, 1001), 413),
        ("too many problems", many("/problems", problem, 1001), 413),
        (
            "too many workloads",
            many("/workloads", workload, 20_001),
            413,
        ),
        ("10,000 lists", deep("[", "]").into_bytes(), 400),
        ("10,000 objects", deep("{\"a\":", "}").into_bytes(), 400),
        (
            "10,000 lists in a field",
            before(&format!("\"agent\":{}", deep("[", "]"))),
            400,
        ),
        (
            "10,000 lists in a field that is ignored",
            before(&format!("\"x\":{}", deep("[", "]"))),
            200,
        ),
        ("a million lists that never end", vec![b'['; 1_000_000], 400),
    ]
}

fn encodings() -> Vec<Case> {
    let text = good().to_string();
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    gzip.extend(vec![0xff; 2000]);
    vec![
        ("no JSON", b"\0\x01\x02\xff\xfe".to_vec(), 400),
        ("a form", b"agent=1&boot=2".to_vec(), 400),
        ("UTF-16", utf16(&text), 400),
        (
            "UTF-8 with a mark",
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            400,
        ),
        (
            "invalid UTF-8",
            text.split_once("0.1.0")
                .map_or_else(Vec::new, |(head, tail)| {
                    [head.as_bytes(), b"\xff", tail.as_bytes()].concat()
                }),
            400,
        ),
        (
            "half a surrogate",
            text.replace("0.1.0", "\\ud800").into_bytes(),
            400,
        ),
        (
            "a raw line break in a text",
            text.replace("0.1.0", "0\n1").into_bytes(),
            400,
        ),
        ("gzip", gzip, 400),
        ("two reports", text.repeat(2).into_bytes(), 400),
        (
            "half a report",
            text.as_bytes()[..text.len() / 2].to_vec(),
            400,
        ),
    ]
}

fn fields() -> Vec<Case> {
    let text = good().to_string();
    vec![
        ("a field twice", before("\"agent\":\"1\""), 400),
        ("a list for a report", format!("[{text}]").into_bytes(), 400),
        ("a word for a report", b"\"report\"".to_vec(), 400),
        ("null", b"null".to_vec(), 400),
        ("a number for a text", with("/agent", 1), 400),
        ("an unknown phase", with("/phase", "\u{1b}[2K"), 200),
        ("a phase that is no word", with("/phase", 7), 400),
        (
            "a digest that is none",
            before("\"wanted\":\"sha256:../../x\""),
            400,
        ),
        (
            "a workload that is a path",
            many("/workloads", json!({"name": "../x", "state": "Running"}), 1),
            400,
        ),
        (
            "a workload that is a line",
            many("/workloads", json!({"name": "a\nb", "state": "Running"}), 1),
            400,
        ),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        ("NaN", event("NaN"), 400),
        ("infinity", event("Infinity"), 400),
        ("1e400", event("1e400"), 400),
        ("a negative id", event("-1"), 400),
        ("half an id", event("0.5"), 400),
        ("2^63", event("9223372036854775808"), 400),
        ("2^64", event("18446744073709551616"), 400),
        (
            "a number of 100,000 digits",
            event(&"9".repeat(100_000)),
            400,
        ),
        ("a negative release", with("/release", -1), 400),
        ("release 2^64 - 1", with("/release", u64::MAX), 400),
        (
            "restarts 2^32",
            many(
                "/workloads",
                json!({"name": "a", "state": "Running", "restarts": 1u64 << 32}),
                1,
            ),
            400,
        ),
        (
            "the year 10,000",
            with("/time", "10000-01-01T00:00:00Z"),
            400,
        ),
        ("no time", with("/time", "now"), 400),
        (
            "the last moment",
            with("/time", "9999-12-30T22:00:00.999999999Z"),
            200,
        ),
        (
            "the first moment",
            with("/time", "-009999-01-02T01:59:59Z"),
            200,
        ),
    ]
}

/// Checks that a report of the honest device is stored.
async fn is_served(world: &World, honest: &Client, word: &str) {
    let answer = honest.put("/v1/report", with("/agent", word)).await;
    assert_eq!(answer.status, 200);
    let record = world
        .fixture
        .store
        .device(&name("b"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.report.unwrap().agent, word);
}

#[tokio::test]
async fn a_report_is_read_or_refused_whatever_it_is() {
    let world = World::new().await;
    let honest = world.device(&TestDevice::new("b")).await;
    let (mut tried, mut as_expected, mut refusals) = (0, 0, 0);
    let bodies = [sizes(), encodings(), fields(), numbers()].concat();
    for encoding in ["identity", "gzip", "br, gzip", "\u{fc}"] {
        // a new device each time; the rate limit is for another test
        let hostile = world.device(&TestDevice::new(&format!("a{tried}"))).await;
        let headers = [
            ("content-encoding", encoding),
            ("content-type", "text/plain; charset=utf-16"),
        ];
        for (what, body, status) in bodies.clone() {
            let body = hyper::body::Bytes::from(body);
            let answer = hostile
                .send(Method::PUT, "/v1/report", &headers, body)
                .await;
            let answer = answer.unwrap();
            assert_eq!(answer.status, status, "{what}: {:?}", answer.body);
            tried += 1;
            refusals += usize::from(status != 200);
            is_served(&world, &honest, &format!("after {tried}")).await;
            as_expected += 1;
        }
    }
    println!("report bodies: {tried}, refused {refusals}, the others served after {as_expected}");
    assert_eq!((tried, refusals), (4 * 49, 4 * 44));
}

/// False lengths and endless bodies. Each ends with an error answer or the connection.
#[tokio::test]
async fn bodies_whose_length_is_a_lie_end() {
    let world = World::with(Limits {
        handshake: std::time::Duration::from_secs(1),
        body: std::time::Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    world.fixture.publish(1, &[("b", &[Digest::of(b"1")])]);
    let honest = world.device(&TestDevice::new("b")).await;
    let machine = TestDevice::new("a");
    let identity = world.join(&machine).await;
    let dialler = Dialler::new(&world, Some(identity), H1);
    let mut tried = 0;
    for (headers, body, status) in [
        ("Content-Length: 100", "{", "408"),
        ("Content-Length: 1", "{}GET / HTTP/1.1", "400"),
        ("Content-Length: 0", "{\"agent\"", "400"),
        ("Content-Length: -1", "{}", "400"),
        ("Content-Length: 18446744073709551616", "{}", "400"),
        ("Content-Length: 18446744073709551615", "{}", ""),
        ("Content-Length: 9223372036854775807", "{}", "408"),
        ("Content-Length: 2\r\nContent-Length: 3", "{}", "400"),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "2\r\n{}\r\n0\r\n\r\n",
            "",
        ),
        ("Transfer-Encoding: gzip", "{}", "400"),
        ("Transfer-Encoding: chunked", "", "408"),
        ("Transfer-Encoding: chunked", "1\r\n{\r\n", "408"),
        (
            "Transfer-Encoding: chunked",
            "1\r\n{\r\n1\r\n\"\r\n1",
            "408",
        ),
        ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFF\r\n{", ""),
        ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFF\r\n{", ""),
        ("Transfer-Encoding: chunked", "-1\r\n{", ""),
        ("Transfer-Encoding: chunked", "x\r\n{", ""),
        ("Expect: 100-continue\r\nContent-Length: 9", "", "408"),
    ] {
        let sent = format!("PUT /v1/report HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
        let mut raw = dialler.say(sent.as_bytes()).await;
        let answer = raw.until_closed().await;
        assert!(answer.contains(status), "{sent}: {answer}");
        assert!(!answer.contains(" 200 "), "{sent}: {answer}");
        let asked = honest.get("/v1/desired?root=1", &[]).await;
        assert_eq!(asked.status, 200);
        tried += 1;
    }
    println!("bodies whose length is a lie: ended {tried}/{tried}");
    assert_eq!(tried, 18);
    super::raw::uses(&world, &machine, [0, 0, 0]).await;
}

const NASTY: &str = "ok\n2026-11-24T00:00:00Z ERROR all devices revoked\r\x1b[2K\x1b]0;owned\x07\x08\0\x7f\u{9b}31m\t\
                     \u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}\u{61c}\u{2060}\u{e0041}end";

fn nasty_problem() -> Problem {
    Problem {
        code: NASTY.to_owned(),
        subject: NASTY.to_owned(),
        message: NASTY.to_owned(),
        detail: NASTY.to_owned(),
        help: NASTY.to_owned(),
    }
}

#[tokio::test]
async fn no_text_of_a_report_keeps_what_a_terminal_obeys() {
    let world = World::new().await;
    let client = world.device(&TestDevice::new("a")).await;
    let mut said: Report = report();
    for text in [
        &mut said.agent,
        &mut said.boot,
        &mut said.hardware.model,
        &mut said.hardware.serial,
        &mut said.hardware.architecture,
        &mut said.hardware.os,
    ] {
        NASTY.clone_into(text);
    }
    said.problems = vec![nasty_problem(), Problem::new(code::IMAGE_PULL, NASTY)];
    let workload = json!({"name": "web", "state": "Failed", "problem": nasty_problem()});
    said.workloads = vec![serde_json::from_value(workload).unwrap()];
    said.events = vec![happened(1, NASTY)];
    NASTY.clone_into(&mut said.events[0].reason);
    let sent = serde_json::to_value(&said).unwrap();
    let answer = client.put("/v1/report", serde_json::to_vec(&said).unwrap());
    assert_eq!(answer.await.status, 200);

    let report = world.report("a").await;
    let mut kept = texts(&serde_json::to_value(report).unwrap());
    for event in world.fixture.events().await {
        kept.extend([event.0, event.1]);
    }
    let nasty = texts(&sent)
        .iter()
        .filter(|t| !obeyed(t).is_empty())
        .count();
    let left: Vec<_> = kept.iter().filter(|t| !obeyed(t).is_empty()).collect();
    println!("texts with controls: sent {nasty}, kept {}", left.len());
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(nasty, 6 + 5 + 1 + 5 + 2);
    assert!(
        kept.iter()
            .any(|text| text.starts_with("ok 2026-11-24T00:00:00Z ERROR"))
    );
}

/// All strings in a value.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// False claims about releases and events change only what is shown of that device.
#[tokio::test]
async fn lies_about_the_sequence_harm_who_tells_them_alone() {
    let world = World::new().await;
    let manifest = Digest::of(b"1");
    world
        .fixture
        .publish(7, &[("a", &[manifest]), ("b", &[manifest])]);
    let (liar, honest) = (
        world.device(&TestDevice::new("a")).await,
        world.device(&TestDevice::new("b")).await,
    );
    let highest = i64::MAX as u64;
    let mut tried = 0;
    for claimed in [0, 6, 8, 1 << 53, highest] {
        let body = with("/release", claimed);
        assert_eq!(liar.put("/v1/report", body).await.status, 200);
        // a future tag, a past one and an empty one: none matches the offer, so it is sent at once
        for tag in [
            format!("\"{claimed}-{}\"", manifest.hex()),
            format!("W/\"7-{}\"", manifest.hex()),
            format!("\"{}-{}\"", u64::MAX, Digest::of(b"x").hex()),
            "*".to_owned(),
            "\"".to_owned(),
        ] {
            for root in ["0", "1", "4294967295"] {
                let path = format!("/v1/desired?root={root}");
                let headers = [("if-none-match", &*tag), ("prefer", "wait=600")];
                let offer: Offer = liar.get(&path, &headers).await.json();
                let leaf = Leaf::parse(offer.leaf.as_bytes()).unwrap();
                assert_eq!((leaf.device, offer.manifest), (name("a"), manifest));
                tried += 1;
            }
        }
    }
    for root in ["-1", "4294967296", "1e9", "NaN", "%00"] {
        let answer = liar.get(&format!("/v1/desired?root={root}"), &[]).await;
        assert_eq!(answer.status, 400, "{root}");
        tried += 1;
    }
    println!("lies about the release: {tried} told, {tried} without effect");
    assert_eq!(tried, 5 * 5 * 3 + 5);
    // the next release follows the last that the server made
    assert_eq!(world.fixture.store.highest_sequence().await.unwrap(), None);
    let answer = honest.get("/v1/desired?root=1", &[]).await;
    let tag = format!("\"7-{}\"", manifest.hex());
    assert_eq!(answer.header("etag"), tag);
    let held = hold(honest, &tag);
    waits(&world).await;
    let next = Digest::of(b"2");
    world.fixture.publish(8, &[("a", &[next]), ("b", &[next])]);
    let (_, answer) = held.await.unwrap();
    assert_eq!(
        answer.unwrap().header("etag"),
        format!("\"8-{}\"", next.hex())
    );
}

#[tokio::test]
async fn lies_about_events_harm_who_tells_them_alone() {
    let world = World::new().await;
    let (liar, honest) = (
        world.device(&TestDevice::new("a")).await,
        world.device(&TestDevice::new("b")).await,
    );
    let say = async |client: &Client, ids: &[u64]| {
        let mut said = report();
        said.events = ids.iter().map(|id| happened(*id, "e")).collect();
        for (event, time) in said
            .events
            .iter_mut()
            .zip(["9999-12-30T22:00:00.999999999Z", "-009999-01-02T01:59:59Z"])
        {
            event.time = time.parse().unwrap();
        }
        let answer = client.put("/v1/report", serde_json::to_vec(&said).unwrap());
        answer.await.json::<Acknowledged>().events
    };
    // out of order, repeated, from the end of time, and backwards
    assert_eq!(say(&liar, &[5, 3, 5, 0]).await, 5);
    assert_eq!(say(&liar, &[4, 5]).await, 5);
    let last = i64::MAX as u64;
    assert_eq!(say(&liar, &[last]).await, last);
    assert_eq!(say(&liar, &[6, last - 1, last]).await, last);
    // as many as allowed: they displace only this device's own oldest events
    assert_eq!(say(&honest, &[1, 2]).await, 2);
    let flood: Vec<_> = (1..=1000).collect();
    let other = world.device(&TestDevice::new("c")).await;
    for _ in 0..10 {
        say(&other, &flood).await;
    }
    let count = async |device: &str| {
        let filter = EventFilter {
            device: Some(name(device)),
            limit: 10_000,
            ..EventFilter::default()
        };
        let events = world.fixture.store.events(filter).await.unwrap();
        events
            .iter()
            .filter(|event| event.reason == "Applied")
            .count()
    };
    let counts = [count("a").await, count("b").await, count("c").await];
    println!("events kept of a liar, an honest device, and a flood of 10,000: {counts:?}");
    assert_eq!(crate::store::events::KEPT_EACH, 200);
    assert_eq!(counts, [3, 2, 200]);
    // times beyond all calendars do not break the list
    eventually("the whole list", async || {
        (!world.fixture.events().await.is_empty()).then_some(())
    })
    .await;
}
