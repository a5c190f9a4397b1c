//! Whether anything sets the machine's clock: systemd-timesyncd's mark if it is fresh, or what systemd-timedated has from the
//! kernel, which says no when nothing has set the clock for nine hours.

use std::path::Path;
use std::time::Duration;

use flotta_bundle::clock::{MARK, is_fresh};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use zbus::{Connection, Proxy};

use super::Clock;
use crate::backoff::Backoff;

/// How long the bus may take: timedated is started for the question.
const ANSWER: Duration = Duration::from_secs(30);
/// Shortest and longest wait between two questions: asking starts a program. A clock that leaps is asked about at once.
const LOOK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

impl Clock {
    /// Asks whether the machine's clock is set by the network, and takes up the answer; none when nothing says so.
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

/// Keeps the clock told whether it is set, until the agent ends.
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
            // who sets the clock says a moment later that it is right
            () = clock.leaps() => sleep(Duration::from_secs(2)).await,
        }
    }
}
