//! Measures joins, polls, connections and reports.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use flotta_bundle::code::{self, Problem};
use flotta_bundle::wire::{Report, WorkloadReport, WorkloadState};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::raw::{self, Raw};
use super::{Cost, Line, millis, percentile, rates};
use crate::device::Member;
use crate::follow::{join, join_files};
use crate::site::{Fleet, Site, scratch};

/// Number of devices. Each may send a thousand requests at once, and then twenty a second.
const DEVICES: usize = 500;
/// Requests of each device.
const EACH: usize = 300;
/// Parallel requests.
const AT_ONCE: usize = 64;

/// Runs `each` for `count` numbers in parallel.
async fn many<F: Future<Output = Result<()>>>(
    count: usize,
    each: impl FnMut(usize) -> F,
) -> Result<()> {
    let all = stream::iter(0..count).map(each);
    all.buffer_unordered(AT_ONCE).try_collect().await
}

/// Measures the cost of requests.
pub async fn requests(program: &Path) -> Result<Vec<Line>> {
    let site = Site::start(program, &Fleet::new(DEVICES, 1)).await?;
    let folder = scratch()?;
    let files = join_files(&site, DEVICES).await?;
    let cost = Cost::begin(&site)?;
    let members: Vec<_> = join(&files, AT_ONCE, folder.path()).try_collect().await?;
    let joined = cost.end()?;
    let mut took: Vec<_> = members.iter().map(|member| member.took).collect();
    let joins = format!(
        "{}; median {}, p99 {} with {AT_ONCE} at a time",
        rates(DEVICES, joined),
        millis(percentile(&mut took, 50)),
        millis(percentile(&mut took, 99)),
    );
    let mut lines = vec![Line::new(
        "joins: connection, token, certificate, synced to disk",
        joins,
    )];
    connections(&site, &members, &mut lines).await?;

    let devices = stream::iter(&members).map(async |member| {
        let raw = Raw::connect(raw::tls(member)?, site.address()).await?;
        let tag = raw.desired().await?;
        Ok::<_, anyhow::Error>((raw, tag))
    });
    let devices: Vec<_> = devices.buffered(AT_ONCE).try_collect().await?;
    let cost = Cost::begin(&site)?;
    many(DEVICES * EACH, |number| {
        let (raw, tag) = &devices[number % DEVICES];
        raw.unchanged(tag)
    })
    .await?;
    let what = "polls without a change: conditional requests, on connections that are there";
    lines.push(Line::new(what, rates(DEVICES * EACH, cost.end()?)));

    let bodies: Vec<_> = (0..DEVICES * EACH / 3).map(report).collect();
    let cost = Cost::begin(&site)?;
    many(bodies.len(), |number| {
        let (raw, _) = &devices[number % DEVICES];
        raw.report(bodies[number].clone())
    })
    .await?;
    let what = "reports, each with other content, kept before they are answered";
    lines.push(Line::new(what, rates(bodies.len(), cost.end()?)));
    Ok(lines)
}

async fn connections(site: &Site, members: &[Member], lines: &mut Vec<Line>) -> Result<()> {
    let rounds = 4;
    for resume in [false, true] {
        let fresh = members.iter().map(raw::tls).collect::<Result<Vec<_>>>()?;
        let connect = async |number: usize| {
            let tls = if resume {
                Arc::clone(&fresh[number % DEVICES])
            } else {
                raw::tls(&members[number % DEVICES])?
            };
            let raw = Raw::connect(tls, site.address()).await?;
            // the session ticket comes with the first answer
            raw.desired().await?;
            Ok::<_, anyhow::Error>(raw.resumed)
        };
        if resume {
            many(DEVICES, async |number| connect(number).await.map(drop)).await?;
        }
        let cost = Cost::begin(site)?;
        many(DEVICES * rounds, async |number| {
            ensure!(connect(number).await? == resume, "resumed or not");
            Ok(())
        })
        .await?;
        let kind = if resume { "resumed" } else { "full handshake" };
        lines.push(Line::new(
            format!("new connections, {kind}, with one request each"),
            rates(DEVICES * rounds, cost.end()?),
        ));
    }
    Ok(())
}

/// A report of ten workloads with new content.
fn report(number: usize) -> Bytes {
    let workload = |index: usize| WorkloadReport {
        name: format!("workload-{index}"),
        state: WorkloadState::Running,
        problem: None,
        since: Some(Timestamp::UNIX_EPOCH),
        restarts: u32::try_from(number).unwrap_or(u32::MAX),
    };
    let report = Report {
        release: Some(1),
        problems: vec![Problem::new(code::UNREACHABLE, format!("try {number}"))],
        workloads: (0..10).map(workload).collect(),
        ..Report::new("bench", "bench", Timestamp::now())
    };
    serde_json::to_vec(&report)
        .expect("a report is JSON")
        .into()
}
