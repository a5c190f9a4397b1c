//! The resources that a process uses, from the kernel (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// CPU time of a process, in user and kernel mode.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the name in parentheses may contain anything
    let rest = stat.rsplit_once(") ").context("no name")?.1;
    let field = |n: usize| -> Result<u64> {
        let text = rest.split(' ').nth(n).context("too few fields")?;
        Ok(text.parse()?)
    };
    // fields 14 and 15 of the whole line are utime and stime
    let ticks = field(11)? + field(12)?;
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}

/// Proportional set size of a process in bytes: its own memory, and its share of shared memory.
pub fn pss(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no Pss")?
        .trim()
        .parse()?;
    Ok(kib << 10)
}
