//! Measures a server under attack by some of its devices and many strangers.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::raw::{self, Raw};
use super::{Cost, Line, mebibytes, millis, percentile};
use crate::follow::{join, join_files};
use crate::process;
use crate::site::{Fleet, Site, scratch};

/// Number of hostile devices, next to an honest one.
const HOSTILE: usize = 50;
/// Connections of each: the most that are allowed.
const CONNECTIONS: usize = 16;
/// Parallel requests of each connection.
const STREAMS: usize = 32;
/// Connections that send half a `ClientHello` and wait.
const STRANGERS: usize = 10_000;
/// How long it lasts.
const LASTS: Duration = Duration::from_secs(30);
/// How often memory is read, and the honest device sends a request.
const LOOK: Duration = Duration::from_millis(100);

/// Measures memory, and the response times of one honest device.
pub async fn attack(program: &Path) -> Result<Vec<Line>> {
    let site = Site::start(program, &Fleet::new(HOSTILE + 1, 1)).await?;
    let folder = scratch()?;
    let files = join_files(&site, HOSTILE + 1).await?;
    let members: Vec<_> = join(&files, 8, folder.path()).try_collect().await?;
    let before = process::pss(site.pid()?)?;
    let cost = Cost::begin(&site)?;
    let report = Bytes::from(vec![b'['; (1 << 20) - 1]);
    let mut attackers = JoinSet::new();
    for member in &members[1..] {
        let (tls, address) = (raw::tls(member)?, site.address());
        for _ in 0..CONNECTIONS {
            let (tls, report) = (tls.clone(), report.clone());
            attackers.spawn(async move {
                loop {
                    if let Ok(raw) = Raw::connect(tls.clone(), address).await {
                        let all = (0..STREAMS).map(|_| misuse(&raw, report.clone()));
                        futures_util::future::join_all(all).await;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    for _ in 0..STRANGERS {
        let address = site.address();
        attackers.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let hello = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
                    // wait until the server closes it
                    if hello.await.is_ok() {
                        let _ = stream.readable().await;
                    }
                }
                sleep(LOOK).await;
            }
        });
    }
    let began = Instant::now();
    let (mut peak, mut times) = (0, Vec::new());
    let (tls, address) = (raw::tls(&members[0])?, site.address());
    while began.elapsed() < LASTS {
        let asked = Instant::now();
        // on a new connection each time, because strangers block new connections
        Raw::connect(tls.clone(), address).await?.desired().await?;
        times.push(asked.elapsed());
        peak = peak.max(process::pss(site.pid()?)?);
        sleep(LOOK).await;
    }
    let (took, cpu) = cost.end()?;
    attackers.shutdown().await;
    let what = format!(
        "{HOSTILE} devices, each with {CONNECTIONS} connections of {STREAMS} reports of a megabyte that cannot be read, and \
         {STRANGERS} strangers with half a handshake: server PSS, CPU, and what one honest device waits for a new connection \
         and its answer"
    );
    let figure = format!(
        "{} at rest, {} at most; {:.0} % of one core; {} answers, median {}, worst {}",
        mebibytes(before),
        mebibytes(peak),
        cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
        times.len(),
        millis(percentile(&mut times, 50)),
        millis(percentile(&mut times, 100)),
    );
    Ok(vec![Line::new(what, figure)])
}

/// Sends a report of the largest size and deepest nesting: all attackers send the same bytes.
async fn misuse(raw: &Raw, report: Bytes) {
    // either a refusal or a closed connection is fine
    let _ = raw.report(report).await;
}
