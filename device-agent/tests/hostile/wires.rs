//! Malformed or hostile HTTP answers, and connections to something else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotta_bundle::code;
use flotta_bundle::wire::Acknowledged;
use futures_util::stream;

use crate::authority::Authority;
use crate::bench::{Bench, FIRST};
use crate::content::content;
use crate::server::{Answer, Front, answer, json, whole};
use crate::{Case, case, cut_off};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Makes the server answer polls like this.
fn desired(bench: &Bench, lie: fn() -> Answer) {
    bench.answer(Arc::new(move |request| {
        (request.uri().path() == "/v1/desired").then(lie)
    }));
}

fn blob(bench: &Bench, lie: fn() -> Answer) {
    content(bench, false, move |_| lie());
}

fn endless(status: u16) -> Answer {
    let spaces = stream::repeat_with(|| Bytes::from_static(&[b' '; 16 << 10]));
    answer(status, &[JSON], crate::server::stream(spaces))
}

/// A body of one byte a second.
fn drip() -> Answer {
    let drops = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Bytes::from_static(b" "), ()))
    });
    answer(200, &[JSON], crate::server::stream(drops))
}

fn gzip() -> Answer {
    // the beginning of ten gigabytes of nothing
    let bomb = whole(&b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xec\xc1\x01\x01\x00"[..]);
    answer(200, &[JSON, ("content-encoding", "gzip")], bomb)
}

/// More headers than allowed.
fn headers() -> Answer {
    let mut answer = answer(200, &[JSON], whole("{}"));
    for number in 0..100_u32 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        let value = "x".repeat(1_000).parse().expect("a value");
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn redirect() -> Answer {
    answer(
        302,
        &[("location", "https://elsewhere.example/v1/desired")],
        whole(""),
    )
}

fn portal() -> Answer {
    answer(
        200,
        &[("content-type", "text/html")],
        whole("<html>Welcome, please pay"),
    )
}

fn text(text: String) -> Answer {
    answer(200, &[JSON], whole(text))
}

const CASES: &[Case] = &[
    case(
        "an endless offer",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            desired(bench, || endless(200));
        },
    ),
    case(
        "an endless error",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            desired(bench, || endless(500));
        },
    ),
    case(
        "an endless blob",
        code::NOT_FLOTTA,
        "sent more than",
        |bench| {
            blob(bench, || endless(200));
        },
    ),
    cut_off(
        "an offer at a byte a second",
        code::TOO_SLOW,
        "bytes in 60s",
        |bench| {
            desired(bench, drip);
        },
    ),
    case(
        "a blob at a byte a second",
        code::TOO_SLOW,
        "bytes in 60s",
        |bench| {
            blob(bench, drip);
        },
    ),
    cut_off(
        "an offer that is a gzip bomb",
        code::NOT_FLOTTA,
        "sends gzip encoding",
        |bench| {
            desired(bench, gzip);
        },
    ),
    case(
        "a blob that is a gzip bomb",
        code::NOT_FLOTTA,
        "sends gzip encoding",
        |bench| {
            blob(bench, gzip);
        },
    ),
    cut_off(
        "an offer with a header bomb",
        code::NOT_FLOTTA,
        "header compression context",
        |bench| {
            desired(bench, headers);
        },
    ),
    case(
        "a blob with a header bomb",
        code::NOT_FLOTTA,
        "header compression context",
        |bench| {
            blob(bench, headers);
        },
    ),
    cut_off(
        "an offer elsewhere",
        code::NOT_FLOTTA,
        "redirects to",
        |bench| {
            desired(bench, redirect);
        },
    ),
    case(
        "a blob elsewhere",
        code::NOT_FLOTTA,
        "redirects to",
        |bench| {
            blob(bench, redirect);
        },
    ),
    cut_off(
        "a portal's page for an offer",
        code::NOT_FLOTTA,
        "text/html",
        |bench| {
            desired(bench, portal);
        },
    ),
    case(
        "a portal's page for a blob",
        code::DIGEST_MISMATCH,
        "content requested as",
        |bench| blob(bench, portal),
    ),
    cut_off(
        "an offer with a key twice",
        code::NOT_FLOTTA,
        "duplicate field",
        |bench| {
            desired(bench, || text("{\"leaf\":\"\",\"leaf\":\"\"}".to_owned()));
        },
    ),
    cut_off(
        "an offer of a thousand lists",
        code::NOT_FLOTTA,
        "invalid type: sequence",
        |bench| {
            desired(bench, || text("[".repeat(500_000)));
        },
    ),
    cut_off(
        "an offer of a thousand lists in what nobody reads",
        code::NOT_FLOTTA,
        "missing field `release`",
        |bench| {
            desired(bench, || {
                let (open, close) = ("[".repeat(250_000), "]".repeat(250_000));
                text(format!("{{\"x\":{open}{close}}}"))
            });
        },
    ),
    cut_off(
        "a certificate of another authority",
        code::UNTRUSTED_SERVER,
        "BadSignature",
        |bench| {
            bench.front(Front::Other(Authority::new().server(&["localhost"])));
        },
    ),
    cut_off(
        "a certificate of another name",
        code::UNTRUSTED_SERVER,
        "not valid for name",
        |bench| {
            let other = bench.server.authority.server(&["elsewhere.example"]);
            bench.front(Front::Other(other));
        },
    ),
    cut_off(
        "a certificate that has ended",
        code::UNTRUSTED_SERVER,
        "a certificate of its chain ended at 2000-01-01T00:00:00Z",
        |bench| {
            let ended = bench
                .server
                .authority
                .server_with(&["localhost"], (1990, 2000), b"h2");
            bench.front(Front::Other(ended));
        },
    ),
];

#[tokio::test(start_paused = true)]
async fn answers_that_no_server_of_ours_gives_are_refused() {
    crate::run("answers", CASES).await;
}

/// A server cannot have stored an event that was not sent. If the device believed it, one lie would silence it for good.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_what_was_never_said_silences_nobody() {
    let mut bench = Bench::new().await;
    bench.answer(Arc::new(|request| {
        let all = Acknowledged {
            events: u64::MAX,
            ..Acknowledged::default()
        };
        (request.uri().path() == "/v1/report").then(|| json(200, &[], &all))
    }));
    bench
        .run(bench.until("a lie", |state| state.lies > 0))
        .await;
    bench.become_honest();
    bench.run_first().await;
    bench.publish(FIRST + 1);
    bench.become_honest();
    let told = |state: &crate::server::ServerState| {
        let mut events = state.reports.iter().flat_map(|report| &report.events);
        events.any(|event| event.reason == "Applied" && event.message.starts_with("release 6"))
    };
    bench.run(bench.until("the new event", told)).await;
    let silent = |state: &crate::server::ServerState| {
        state
            .reports
            .last()
            .is_some_and(|report| report.events.is_empty())
    };
    bench.run(bench.until("that it is kept", silent)).await;
}

/// The `Date` of an answer is not signed, and must not count.
#[tokio::test(start_paused = true)]
async fn a_servers_time_does_not_end_every_certificate() {
    let mut bench = Bench::new().await;
    bench.answer(Arc::new(|request| {
        let late = [("date", "Fri, 31 Dec 9999 00:00:00 GMT")];
        (request.uri().path() == "/v1/desired").then(|| answer(304, &late, whole("")))
    }));
    bench
        .run(bench.until("a lie", |state| state.lies > 0))
        .await;
    bench.publish(FIRST + 1);
    bench.become_honest();
    bench.front(Front::Server);
    bench.run(bench.well()).await;
}

/// A server that does not hold a poll is not polled again at once, nor is one that has a new answer each time.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_at_once_makes_no_busy_loop() {
    let lies: [fn() -> Answer; 3] = [
        || answer(304, &[], whole("")),
        || {
            json(
                404,
                &[],
                &serde_json::json!({"error": {"code": "FLT0416", "message": "no"}}),
            )
        },
        || answer(503, &[], whole("")),
    ];
    for lie in lies {
        let bench = Bench::new().await;
        desired(&bench, lie);
        let begun = tokio::time::Instant::now();
        bench
            .run(bench.until("many", |state| state.lies >= 100))
            .await;
        let spent = begun.elapsed();
        assert!(spent > Duration::from_secs(600), "100 answers in {spent:?}");
    }
}

/// The same for certificates that are due for renewal at once.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_old_at_once_makes_no_busy_loop() {
    let bench = Bench::new().await;
    bench.become_honest();
    let folder = bench.config.identity();
    let identity = flotta_agent::identity::Identity::open(&folder).expect("keys");
    let name = crate::fleet::device(crate::fleet::OURS);
    let csr = identity.csr(&name).expect("a request");
    let of = &bench.fleet.trust.fleet;
    let authority = bench.server.authority.clone();
    let old = authority.device_with(&csr, &name.identity(of), (1971, 2040));
    identity.keep_certificate(&old, of, &name).expect("kept");
    bench.answer(Arc::new(move |request| {
        let answer = serde_json::json!({"certificate": old});
        (request.uri().path() == "/v1/certificates").then(|| json(200, &[], &answer))
    }));
    let begun = tokio::time::Instant::now();
    bench
        .run(bench.until("renewals", |state| state.lies >= 10))
        .await;
    let spent = begun.elapsed();
    assert!(spent > Duration::from_secs(600), "10 renewals in {spent:?}");
}

/// But releases in quick succession are fetched at once: no commit waits for the ones before it.
#[tokio::test(start_paused = true)]
async fn releases_that_come_at_once_are_followed_at_once() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let offers: Vec<_> = (FIRST + 1..=FIRST + 30)
        .map(|release| {
            bench.publish(release);
            bench.truth.clone()
        })
        .collect();
    let offers = std::sync::Mutex::new(offers.into_iter());
    bench.become_honest();
    // every poll is answered with the next release, the last one with the honest release
    bench.answer(Arc::new(move |request| {
        if request.uri().path() != "/v1/desired" {
            return None;
        }
        let offer = offers.lock().expect("no panic").next()?;
        let tag = format!("\"{}\"", offer.manifest.short());
        Some(json(200, &[("etag", &tag)], &offer))
    }));
    let begun = tokio::time::Instant::now();
    bench.run(bench.well()).await;
    let spent = begun.elapsed();
    assert!(bench.server.state.borrow().lies >= 30);
    assert!(spent < Duration::from_secs(60), "30 releases in {spent:?}");
}
