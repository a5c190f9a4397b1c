//! Whether the machine's clock is synchronised: by systemd-timesyncd's marker file if it is fresh, or by `timedatectl`, which
//! asks the kernel and says no when nothing has set the clock for nine hours.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flotta_bundle::clock::{MARK, is_fresh};
use jiff::Timestamp;
use tokio::process::Command;
use tokio::time::timeout;

/// How long `timedatectl` may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Whether the network sets the machine's clock; none when that is unknown.
pub(super) async fn is_synchronised(root: &Path, now: Timestamp) -> Option<bool> {
    if is_marked(root, now) {
        return Some(true);
    }
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(ANSWER, asked).await.ok()?.ok()?;
    match output.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

pub(super) fn is_marked(root: &Path, now: Timestamp) -> bool {
    let mark = std::fs::metadata(root.join("run").join(MARK)).and_then(|file| file.modified());
    let mark = mark.ok().and_then(|time| Timestamp::try_from(time).ok());
    mark.is_some_and(|mark| is_fresh(mark, now))
}
