//! The API over real TLS on a loopback address. A file per subject; `hostile_*` are the devices that mean no good.

mod blobs;
mod desired;
mod hostile_asks;
mod hostile_connections;
mod hostile_ends;
mod hostile_floods;
mod hostile_log;
mod hostile_reports;
mod identity;
mod joining;
mod limits;
mod raw;
mod report;
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
    let index = &world.house.index;
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
