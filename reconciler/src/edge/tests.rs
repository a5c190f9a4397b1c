//! The API over real TLS on a loopback address. A file for each subject; `hostile_*` are malicious devices.

mod blobs;
mod clocks;
mod desired;
mod hostile_asks;
mod hostile_connections;
mod hostile_ends;
mod hostile_floods;
mod hostile_log;
mod hostile_reports;
mod http1;
mod identity;
mod joining;
mod limits;
mod raw;
mod report;
mod restored;
mod world;

use flotta_bundle::wire::Event;
use http::Method;
use jiff::Timestamp;

use crate::fixture::eventually;
use world::{Answer, Client, World};

fn refused(code: flotta_bundle::Code, status: u16) -> (u16, String) {
    (status, code.id.to_owned())
}

type Held = tokio::task::JoinHandle<(Client, Result<Answer, String>)>;

fn hold(client: Client, tag: &str) -> Held {
    let tag = tag.to_owned();
    tokio::spawn(async move {
        let headers = [("if-none-match", tag.as_str()), ("prefer", "wait=600")];
        let answer = client
            .send(Method::GET, "/v1/desired?root=1", &headers, "")
            .await;
        (client, answer)
    })
}

async fn waits(world: &World) {
    let index = &world.fixture.index;
    eventually("a held poll", async || (index.waiting() == 1).then_some(())).await;
}

fn happened(id: u64, message: &str) -> Event {
    Event {
        id,
        time: Timestamp::now(),
        reason: "Applied".to_owned(),
        message: message.to_owned(),
        warning: false,
    }
}

/// The control characters in a text that a terminal or log would act on. Written independently of the code that removes them,
/// to find what that misses.
fn obeyed(text: &str) -> Vec<char> {
    let hidden = [
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202d}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2067}',
        '\u{2069}',
        '\u{feff}',
        '\u{fff9}',
        '\u{e0041}',
    ];
    let obeyed = |c: &char| c.is_control() || hidden.contains(c);
    text.chars().filter(obeyed).collect()
}
