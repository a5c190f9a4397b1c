//! Real-world networks: connections that break anywhere, no DNS, captive portals, and long outages.

use std::time::Duration;

use flotta_agent::pull::LinkState;
use flotta_bundle::code;
use tokio::time::Instant;

use crate::authority::Authority;
use crate::bench::{Bench, FIRST, State, says};
use crate::server::{Front, ServerState};

fn attempts(bench: &Bench) -> usize {
    bench.server.state.borrow().connections
}

/// The result for a device whose connections all end after so many bytes from the server.
struct Cut {
    /// Whether it has the new release; otherwise it keeps the old one.
    came: bool,
    /// Whether the server received a request.
    asked: bool,
    /// Whether a download was resumed.
    resumed: bool,
}

async fn cut(bytes: u64) -> Cut {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let before = bench.state();
    bench.publish(FIRST + 1);
    bench.become_honest();
    let (before_cut, asked) = (attempts(&bench), bench.server.state.borrow().requests);
    bench.front(Front::Cut(bytes));
    let begun = Instant::now();
    let wanted = bench.truth.manifest;
    let done = |state: &ServerState| {
        let applied = state.reports.last().and_then(|report| report.applied);
        state.lies >= 40 || applied.is_some_and(|applied| applied.manifest == wanted)
    };
    bench.run(bench.until("the end of a cut", done)).await;
    let tries = attempts(&bench) - before_cut;
    let allowed = 12 + usize::try_from(begun.elapsed().as_secs()).expect("a number");
    assert!(tries <= allowed, "{tries} tries in {:?}", begun.elapsed());
    let then = bench.state();
    let is_applying = bench.is_applying();
    let (lies, requests, resumed) = {
        let state = bench.server.state.borrow();
        (state.lies, state.requests, state.resumed)
    };
    bench.become_honest();
    bench.run(bench.well()).await;
    let after = bench.state();
    // the release was applied completely or not at all
    let is_of = |state: &State| then.files == state.files && then.runs == state.runs;
    assert!(is_applying || is_of(&before) || is_of(&after), "{bytes}");
    for (path, content) in &then.files {
        let known = [&before, &after].map(|state| state.files.get(path));
        assert!(
            known.contains(&Some(content)),
            "{bytes}: {}",
            path.display()
        );
    }
    Cut {
        came: lies < 40,
        asked: requests > asked,
        resumed: resumed > 0,
    }
}

/// Every connection ends after so many bytes from the server: in the handshake, in the headers, in the middle of a blob.
/// Downloads are resumed; with too few bytes to get anywhere, the device keeps what it has.
#[tokio::test(start_paused = true)]
async fn a_connection_may_end_after_any_number_of_bytes() {
    const STEP: u64 = 97;
    let (mut tried, mut came, mut resumed) = (0, 0, 0);
    let mut shake = None;
    let few = (0..40).map(|n| n * STEP);
    let some = (0..24).map(|n| 3_880 + n * 1_931);
    let mut run = async |bytes| {
        let cut = cut(bytes).await;
        tried += 1;
        came += u32::from(cut.came);
        resumed += u32::from(cut.resumed);
        cut.asked
    };
    for bytes in few.chain(some) {
        if run(bytes).await {
            shake.get_or_insert(bytes);
        }
    }
    // byte by byte around the end of the handshake and the first answers
    let shake = shake.expect("some get through");
    for bytes in shake - STEP..shake - STEP + 128 {
        run(bytes).await;
    }
    let stayed = tried - came;
    println!(
        "cuts: {tried} survived of {tried} tried ({came} got through, {stayed} went on as they were, {resumed} resumed a blob)"
    );
    assert!(came > 0 && stayed > 0 && resumed > 0);
}

#[tokio::test(start_paused = true)]
async fn without_names_the_device_goes_on_and_comes_back() {
    let mut bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let before = bench.state();
    // the addresses where it joined, and where the server answered last
    let files = ["joined.json", "server"].map(|name| {
        let path = bench.config.identity().join(name);
        let good = std::fs::read_to_string(&path).expect("a file");
        // RFC 6761: this name never resolves
        let gone = good.replace("localhost", "flotta.invalid");
        std::fs::write(&path, gone).expect("written");
        (path, good)
    });
    let link = bench.run(bench.link("tries", |link| link.attempts >= 5));
    let problem = link.await.problem.expect("a problem");
    assert_eq!(problem.code, code::UNREACHABLE.id, "{problem}");
    assert!(bench.state() == before);
    for (path, good) in files {
        std::fs::write(path, good).expect("written");
    }
    bench.publish(FIRST + 1);
    bench.become_honest();
    bench.run(bench.well()).await;
}

/// A captive portal: with its own TLS, without TLS, with another protocol, or silent.
#[tokio::test(start_paused = true)]
async fn a_portal_is_not_a_server() {
    let portal = b"HTTP/1.1 302 Found\r\nlocation: http://portal.example/\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<html>Pay";
    for (name, front, code) in [
        ("plain", Some(Front::Says(portal)), code::NOT_FLOTTA),
        ("silent", Some(Front::Says(b"")), code::UNREACHABLE),
        (
            "its own TLS",
            Some(Front::Other(Authority::new().server(&["localhost"]))),
            code::UNTRUSTED_SERVER,
        ),
        ("HTTP/1 alone", None, code::NOT_FLOTTA),
    ] {
        let mut bench = Bench::new().await;
        bench.become_honest();
        bench.run_first().await;
        let before = bench.state();
        let old = bench
            .server
            .authority
            .server_with(&["localhost"], (1980, 2200), b"http/1.1");
        bench.front(front.unwrap_or(Front::Other(old)));
        let begun = Instant::now();
        bench
            .run(async {
                let link = bench.link(name, |link| link.attempts >= 8).await;
                let problem = link.problem.expect("a problem");
                assert_eq!(problem.code, code.id, "{name}: {problem}");
                let spent = begun.elapsed();
                assert!(spent > Duration::from_secs(4), "{name}: {spent:?}");
                assert!(bench.state() == before, "{name}");
                bench.become_honest();
                if code != code::UNREACHABLE {
                    let refused = |state: &ServerState| says(state, "Refused", code.id);
                    bench.until(name, refused).await;
                }
            })
            .await;
        bench.publish(FIRST + 1);
        bench.become_honest();
        bench.run(bench.well()).await;
    }
}

/// Each wait is between nothing and a bound that doubles up to the heartbeat (a minute when nothing says otherwise): a fleet that lost its server together does not come back together.
#[tokio::test(start_paused = true)]
async fn waits_grow_are_spread_and_are_counted() {
    let bench = Bench::new().await;
    bench.front(Front::Cut(0));
    let begun = Instant::now();
    let mut waits = Vec::new();
    bench
        .run(async {
            let mut last = Instant::now();
            for tried in 1..=40 {
                bench
                    .until("a try", |state| state.connections >= tried)
                    .await;
                waits.push(last.elapsed());
                last = Instant::now();
            }
            // the device counts the same attempts as the server
            bench.link("counted", |link| link.attempts >= 39).await;
        })
        .await;
    let longest = waits.iter().max().expect("waits");
    assert!(*longest <= Duration::from_secs(61), "{longest:?}");
    assert!(
        begun.elapsed() > Duration::from_secs(300),
        "{:?}",
        begun.elapsed()
    );
    // full jitter: of thirty waits with the same bound, some are short and some are long
    let late = &waits[10..];
    assert!(
        late.iter().any(|wait| *wait < Duration::from_secs(20)),
        "{late:?}"
    );
    assert!(
        late.iter().any(|wait| *wait > Duration::from_secs(40)),
        "{late:?}"
    );
}

/// The start of an outage and its reason survive a restart of the agent, and are forgotten when the server is back.
#[tokio::test(start_paused = true)]
async fn since_when_the_server_is_gone_outlives_the_agent() {
    let bench = Bench::new().await;
    bench.become_honest();
    bench.run_first().await;
    let noted = bench.config.outage();
    assert!(!noted.exists());
    bench.front(Front::Cut(0));
    // after a restart of the agent
    let link = async |attempts, served: bool| {
        let _ = std::fs::remove_file(bench.config.status());
        let like = |link: &LinkState| {
            link.attempts >= attempts && (!served || link.connected_since.is_some())
        };
        bench.run(bench.link("it says so", like)).await
    };
    let since = link(3, false).await.failing_since.expect("a time");
    assert!(noted.exists());
    for attempts in [0, 3] {
        let link = link(attempts, false).await;
        assert_eq!(link.failing_since, Some(since));
        let problem = link.problem.expect("a problem");
        assert_eq!(problem.code, code::UNREACHABLE.id, "{problem}");
    }
    bench.become_honest();
    assert_eq!(link(0, true).await.failing_since, None);
    assert!(!noted.exists());
    // an unreadable file does no harm
    std::fs::write(&noted, "{").expect("written");
    bench.run(bench.well()).await;
}
