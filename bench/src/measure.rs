//! Measures the cost of joins, polls, connections, reports and held connections for the server, and of a render.
//!
//! The server runs in its own process, and its CPU time is read from the kernel. It does not include the simulated devices on
//! the same machine, but they compete with the server, so rates by wall-clock time are lower bounds.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::process;
use crate::site::Site;

mod attack;
mod crowd;
mod raw;
mod render;
mod requests;

pub use attack::attack;
pub use crowd::{crowd, rest, wake};
pub use render::render;
pub use requests::requests;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The figure, with its unit.
    pub figure: String,
}

impl Line {
    fn new(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
        }
    }
}

/// What is measured, by name.
pub const NAMES: [&str; 6] = ["rest", "render", "requests", "wake", "crowd", "attack"];

/// Runs one of [`NAMES`].
pub async fn measure(name: &str, program: &Path, devices: usize) -> Result<Vec<Line>> {
    match name {
        "rest" => rest(program).await,
        "render" => render(),
        "requests" => requests(program).await,
        "wake" => wake(program).await,
        "crowd" => crowd(program, devices).await,
        "attack" => attack(program).await,
        _ => anyhow::bail!("`{name}` is not measured: {}", NAMES.join(", ")),
    }
}

/// The cost of a measured interval.
struct Cost {
    pid: u32,
    began: Instant,
    cpu: Duration,
}

impl Cost {
    fn begin(site: &Site) -> Result<Self> {
        let pid = site.pid()?;
        Ok(Self {
            pid,
            began: Instant::now(),
            cpu: process::cpu(pid)?,
        })
    }

    /// The wall-clock time, and the server's CPU time.
    fn end(&self) -> Result<(Duration, Duration)> {
        let cpu = process::cpu(self.pid)?.saturating_sub(self.cpu);
        Ok((self.began.elapsed(), cpu))
    }
}

/// A count as a rate by wall-clock time and by the server's CPU time.
fn rates(count: usize, (took, cpu): (Duration, Duration)) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = |time: Duration| count as f64 / time.as_secs_f64().max(0.001);
    format!(
        "{:.0}/s; {:.0} per core-second of the server",
        rate(took),
        rate(cpu)
    )
}

fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The percentile of these times.
fn percentile(times: &mut [Duration], of_hundred: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * of_hundred / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}
