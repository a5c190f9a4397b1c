//! Whether the machine's clock is synchronised: by systemd-timesyncd's marker file if it is fresh, or by systemd-timedated,
//! which asks the kernel and says no when nothing has set the clock for nine hours.

use std::path::Path;
use std::time::Duration;

use flotta_bundle::clock::{MARK, is_fresh};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use zbus::{Connection, Proxy};

use super::Clock;
use crate::backoff::Backoff;

/// How long the bus may take: timedated is started on demand.
const ANSWER: Duration = Duration::from_secs(30);
/// Shortest and longest wait between two checks, since each starts a program. After a leap of the clock it is checked at once.
const LOOK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

impl Clock {
    /// Checks whether the network sets the machine's clock, and records the answer; none when that is unknown.
    pub async fn ask(&self, root: &Path) -> Option<bool> {
        let synchronised = if is_marked(root, self.unaided()) {
            Some(true)
        } else {
            timeout(ANSWER, ask()).await.ok().flatten()
        };
        self.set_synchronised(synchronised);
        synchronised
    }
}

pub(super) fn is_marked(root: &Path, now: Timestamp) -> bool {
    let mark = std::fs::metadata(root.join("run").join(MARK)).and_then(|file| file.modified());
    let mark = mark.ok().and_then(|time| Timestamp::try_from(time).ok());
    mark.is_some_and(|mark| is_fresh(mark, now))
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

/// Keeps that up to date until the agent exits.
pub async fn follow(clock: Clock, root: &Path) {
    let mut backoff = Backoff::new(LOOK.0, LOOK.1);
    loop {
        let wait = if clock.ask(root).await == Some(true) {
            backoff.reset();
            LOOK.1
        } else {
            backoff.next_delay().max(LOOK.0)
        };
        tokio::select! {
            () = sleep(wait) => {}
            // the program that sets the clock marks it as synchronised a moment later
            () = clock.leaps() => sleep(Duration::from_secs(2)).await,
        }
    }
}
