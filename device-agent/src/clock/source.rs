//! Whether anything sets the machine's clock: systemd-timesyncd's mark, or what systemd-timedated has from the kernel.

use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zbus::{Connection, Proxy};

use super::Clock;
use crate::backoff::Backoff;

/// A file that systemd-timesyncd makes when it has set the clock, and that is gone after a reboot.
const MARK: &str = "run/systemd/timesync/synchronized";
/// How long the bus may take: timedated is started for the question.
const ANSWER: Duration = Duration::from_secs(30);
/// Shortest and longest wait between two questions: asking starts a program. A clock that leaps is asked about at once.
const LOOK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

/// Whether the machine's clock is set by the network; none when nothing says so.
pub async fn is_synchronised(root: &Path) -> Option<bool> {
    if root.join(MARK).exists() {
        return Some(true);
    }
    timeout(ANSWER, ask()).await.ok().flatten()
}

async fn ask() -> Option<bool> {
    let bus = Connection::system().await.ok()?;
    let time = Proxy::new_owned(
        bus,
        "org.freedesktop.timedate1",
        "/org/freedesktop/timedate1",
        "org.freedesktop.timedate1",
    )
    .await
    .ok()?;
    time.get_property("NTPSynchronized").await.ok()
}

/// Keeps the clock told whether it is set, until the agent ends.
pub async fn follow(clock: Clock, root: &Path) {
    let mut backoff = Backoff::new(LOOK.0, LOOK.1);
    loop {
        let synchronised = is_synchronised(root).await;
        clock.set_synchronised(synchronised);
        let wait = if synchronised == Some(true) {
            backoff.reset();
            LOOK.1
        } else {
            backoff.next_delay().max(LOOK.0)
        };
        tokio::select! {
            () = sleep(wait) => {}
            // who sets the clock says a moment later that it is right
            () = clock.leaps() => sleep(Duration::from_secs(2)).await,
        }
    }
}
