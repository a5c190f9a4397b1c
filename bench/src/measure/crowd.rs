//! Measures a server without devices, with a thousand, and with as many as this machine can hold.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Cost, Line, mebibytes, millis, percentile};
use crate::follow::{Crowd, last};
use crate::process;
use crate::site::{Fleet, Site};

/// How long an idle fleet is measured: two heartbeats of every device.
const IDLE: Duration = Duration::from_secs(120);

/// Measures a server at rest, with one device that has not joined.
pub async fn rest(program: &Path) -> Result<Vec<Line>> {
    let site = Site::start(program, &Fleet::new(1, 1)).await?;
    let cost = Cost::begin(&site)?;
    sleep(Duration::from_secs(20)).await;
    let memory = mebibytes(process::pss(site.pid()?)?);
    let what = "server at rest, one process: PSS and processor time in 20 s";
    let figure = format!("{memory}, {}", millis(cost.end()?.1));
    Ok(vec![Line::new(what, figure)])
}

/// Measures the time from a commit to the last of a thousand devices.
pub async fn wake(program: &Path) -> Result<Vec<Line>> {
    const DEVICES: usize = 1000;
    const ROUNDS: u64 = 10;
    let mut fleet = Fleet::new(DEVICES, 1);
    let mut site = Site::start(program, &fleet).await?;
    let crowd = Crowd::start(&mut site, DEVICES).await?;
    let (mut times, mut server) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        fleet.shared[0] += 1;
        let cost = Cost::begin(&site)?;
        let began = Instant::now();
        site.commit(&fleet).await?;
        times.push(last(&crowd.all_have(2 + round).await?, began));
        site.held(DEVICES).await?;
        server.push(cost.end()?.1);
    }
    let figure = format!(
        "median {}, worst {}; the server's part {} of processor time",
        millis(percentile(&mut times, 50)),
        millis(percentile(&mut times, 100)),
        millis(percentile(&mut server, 50)),
    );
    let what = "a commit that changes one workload of 1,000 devices, until the last has it verified and fetched";
    Ok(vec![Line::new(what, figure)])
}

/// Measures many devices with held polls and heartbeats, and their reconnection after a restart.
pub async fn crowd(program: &Path, devices: usize) -> Result<Vec<Line>> {
    let mut site = Site::start(program, &Fleet::new(devices, 1)).await?;
    let before = process::pss(site.pid()?)?;
    let crowd = Crowd::start(&mut site, devices).await?;
    let cost = Cost::begin(&site)?;
    sleep(IDLE).await;
    let (took, cpu) = cost.end()?;
    let memory = process::pss(site.pid()?)?;
    let each = memory.saturating_sub(before) / u64::try_from(devices)?;
    let held = format!(
        "{}, {each} bytes for each device; {:.1} % of one core",
        mebibytes(memory),
        cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
    );
    site.kill()?;
    let began = Instant::now();
    site.serve().await?;
    let cost = Cost::begin(&site)?;
    site.held(devices).await?;
    let back = began.elapsed();
    let (_, cpu) = cost.end()?;
    for device in &crowd.devices {
        anyhow::ensure!(device.wrong().is_empty(), "{:?}", device.wrong());
    }
    let storm = format!(
        "{:.1} s to the last, {:.1} s of the server's processor time",
        back.as_secs_f64(),
        cpu.as_secs_f64()
    );
    Ok(vec![
        Line::new(
            format!(
                "{devices} devices that hold a poll and report once a minute: server PSS and CPU"
            ),
            held,
        ),
        Line::new(
            format!("{devices} devices come back after SIGKILL and restart of the server"),
            storm,
        ),
    ])
}
