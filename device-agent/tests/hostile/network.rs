//! Real-world networks: connections that break anywhere, no DNS, captive portals, and long outages.

use std::time::Duration;

use flotta_agent::pull::LinkState;
use flotta_bundle::code;
use tokio::time::Instant;

use crate::authority::Authority;
use crate::server::{Front, World};
use crate::stage::{FIRST, Stage, State, says};

fn attempts(stage: &Stage) -> usize {
    stage.server.world.borrow().connections
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
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let before = stage.state();
    stage.plan(FIRST + 1);
    stage.heal();
    let (before_cut, asked) = (attempts(&stage), stage.server.world.borrow().requests);
    stage.front(Front::Cut(bytes));
    let begun = Instant::now();
    let wanted = stage.truth.manifest;
    let done = |world: &World| {
        let applied = world.reports.last().and_then(|report| report.applied);
        world.lies >= 40 || applied.is_some_and(|applied| applied.manifest == wanted)
    };
    stage.play(stage.until("the end of a cut", done)).await;
    let tries = attempts(&stage) - before_cut;
    let allowed = 12 + usize::try_from(begun.elapsed().as_secs()).expect("a number");
    assert!(tries <= allowed, "{tries} tries in {:?}", begun.elapsed());
    let then = stage.state();
    let is_applying = stage.is_applying();
    let (lies, requests, resumed) = {
        let world = stage.server.world.borrow();
        (world.lies, world.requests, world.resumed)
    };
    stage.heal();
    stage.play(stage.well()).await;
    let after = stage.state();
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
    let mut play = async |bytes| {
        let cut = cut(bytes).await;
        tried += 1;
        came += u32::from(cut.came);
        resumed += u32::from(cut.resumed);
        cut.asked
    };
    for bytes in few.chain(some) {
        if play(bytes).await {
            shake.get_or_insert(bytes);
        }
    }
    // byte by byte around the end of the handshake and the first answers
    let shake = shake.expect("some get through");
    for bytes in shake - STEP..shake - STEP + 128 {
        play(bytes).await;
    }
    let stayed = tried - came;
    println!(
        "cuts: {tried} survived of {tried} tried ({came} got through, {stayed} went on as they were, {resumed} resumed a blob)"
    );
    assert!(came > 0 && stayed > 0 && resumed > 0);
}

#[tokio::test(start_paused = true)]
async fn without_names_the_device_goes_on_and_comes_back() {
    let mut stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let before = stage.state();
    // the addresses where it joined, and where the server answered last
    let files = ["joined.json", "server"].map(|name| {
        let path = stage.config.identity().join(name);
        let good = std::fs::read_to_string(&path).expect("a file");
        // RFC 6761: this name never resolves
        let gone = good.replace("localhost", "flotta.invalid");
        std::fs::write(&path, gone).expect("written");
        (path, good)
    });
    let link = stage.play(stage.link("tries", |link| link.attempts >= 5));
    let problem = link.await.problem.expect("a problem");
    assert_eq!(problem.code, code::UNREACHABLE.id, "{problem}");
    assert!(stage.state() == before);
    for (path, good) in files {
        std::fs::write(path, good).expect("written");
    }
    stage.plan(FIRST + 1);
    stage.heal();
    stage.play(stage.well()).await;
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
        let mut stage = Stage::new().await;
        stage.heal();
        stage.play_first().await;
        let before = stage.state();
        let old = stage
            .server
            .authority
            .server_with(&["localhost"], (1980, 2200), b"http/1.1");
        stage.front(front.unwrap_or(Front::Other(old)));
        let begun = Instant::now();
        stage
            .play(async {
                let link = stage.link(name, |link| link.attempts >= 8).await;
                let problem = link.problem.expect("a problem");
                assert_eq!(problem.code, code.id, "{name}: {problem}");
                let spent = begun.elapsed();
                assert!(spent > Duration::from_secs(4), "{name}: {spent:?}");
                assert!(stage.state() == before, "{name}");
                stage.heal();
                if code != code::UNREACHABLE {
                    let refused = |world: &World| says(world, "Refused", code.id);
                    stage.until(name, refused).await;
                }
            })
            .await;
        stage.plan(FIRST + 1);
        stage.heal();
        stage.play(stage.well()).await;
    }
}

/// Each wait is between nothing and a bound that doubles up to the heartbeat (a minute when nothing says otherwise): a fleet that lost its server together does not come back together.
#[tokio::test(start_paused = true)]
async fn waits_grow_are_spread_and_are_counted() {
    let stage = Stage::new().await;
    stage.front(Front::Cut(0));
    let begun = Instant::now();
    let mut waits = Vec::new();
    stage
        .play(async {
            let mut last = Instant::now();
            for tried in 1..=40 {
                stage
                    .until("a try", |world| world.connections >= tried)
                    .await;
                waits.push(last.elapsed());
                last = Instant::now();
            }
            // the device counts the same attempts as the server
            stage.link("counted", |link| link.attempts >= 39).await;
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
    let stage = Stage::new().await;
    stage.heal();
    stage.play_first().await;
    let noted = stage.config.outage();
    assert!(!noted.exists());
    stage.front(Front::Cut(0));
    // after a restart of the agent
    let link = async |attempts, served: bool| {
        let _ = std::fs::remove_file(stage.config.status());
        let like = |link: &LinkState| {
            link.attempts >= attempts && (!served || link.connected_since.is_some())
        };
        stage.play(stage.link("it says so", like)).await
    };
    let since = link(3, false).await.failing_since.expect("a time");
    assert!(noted.exists());
    for attempts in [0, 3] {
        let link = link(attempts, false).await;
        assert_eq!(link.failing_since, Some(since));
        let problem = link.problem.expect("a problem");
        assert_eq!(problem.code, code::UNREACHABLE.id, "{problem}");
    }
    stage.heal();
    assert_eq!(link(0, true).await.failing_since, None);
    assert!(!noted.exists());
    // an unreadable file does no harm
    std::fs::write(&noted, "{").expect("written");
    stage.play(stage.well()).await;
}
