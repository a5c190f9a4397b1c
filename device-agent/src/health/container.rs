//! The health checks of one container, from its start.

use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::health::{Action, HealthCheck, Purpose};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::probe::{Late, Probe};
use super::{Readiness, Ready, Stop, Target, not_ready};
use crate::backend::{Container, Podman};
use crate::backoff::Backoff;
use crate::clock::Clock;

/// Shortest and longest bound of the wait before Podman is asked again for a container that is starting or ending.
const FIND: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The state that the checks of all containers share.
pub(super) struct Checks<'a, P, A> {
    pub(super) podman: &'a P,
    pub(super) ask: &'a A,
    pub(super) clock: &'a Clock,
    pub(super) turns: Semaphore,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) stops: mpsc::UnboundedSender<Stop>,
}

/// How many times in a row a check has had the same result.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: bool,
    run: u32,
}

impl Tally {
    /// Counts a result. Returns the verdict once there are enough equal results in a row.
    pub(super) fn count(&mut self, check: &HealthCheck, passed: bool) -> Option<bool> {
        if self.passed != passed {
            *self = Self { passed, run: 0 };
        }
        self.run = self.run.saturating_add(1);
        let enough = if passed {
            check.successes
        } else {
            check.failures
        };
        (self.run >= enough).then_some(passed)
    }
}

/// The schedule and tally of one check.
struct Rounds<'a> {
    check: &'a HealthCheck,
    due: Instant,
    tally: Tally,
    late: Late,
}

impl<'a> Rounds<'a> {
    fn new(check: &'a HealthCheck, started: Instant) -> Self {
        Self {
            check,
            due: started + Duration::from_secs(check.delay_seconds.into()),
            tally: Tally::default(),
            late: Late::default(),
        }
    }
}

impl<P: Podman, A: Probe> Checks<'_, P, A> {
    /// Checks a container for ever; the caller drops this when the unit's run ends.
    pub(super) async fn watch(&self, target: Target) {
        let Some(check) = target.checks.first() else {
            return;
        };
        let mut started = target.started;
        let mut last = None;
        loop {
            let container = self.find(&check.container, last.as_ref()).await;
            self.watch_run(&target, &container, started).await;
            // systemd starts a new container, maybe before anybody notices
            last = Some(container.id);
            started = Instant::now();
        }
    }

    /// Waits for a running container other than the last one.
    async fn find(&self, name: &str, last: Option<&String>) -> Container {
        let mut backoff = Backoff::new(FIND.0, FIND.1);
        loop {
            match self.podman.container(name).await {
                Ok(Some(found)) if Some(&found.id) != last => return found,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, name, "the container cannot be inspected"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// Runs the checks of one container until one of them has stopped it.
    async fn watch_run(&self, target: &Target, container: &Container, started: Instant) {
        let of = |purpose| {
            let mut checks = target.checks.iter();
            checks.find(|check| check.purpose == purpose)
        };
        if let Some(check) = of(Purpose::Startup) {
            let mut rounds = Rounds::new(check, started);
            while let Err(why) = self.decide(&mut rounds, container).await {
                if self.stop(target, container, check, &why).await {
                    return;
                }
            }
        }
        let live = async {
            let Some(check) = of(Purpose::Liveness) else {
                return std::future::pending().await;
            };
            let mut rounds = Rounds::new(check, started);
            loop {
                let decided = self.decide(&mut rounds, container).await;
                if let Err(why) = decided
                    && self.stop(target, container, check, &why).await
                {
                    return;
                }
            }
        };
        let ready = async {
            let Some(check) = of(Purpose::Readiness) else {
                return std::future::pending().await;
            };
            let mut rounds = Rounds::new(check, started);
            loop {
                let decided = self.decide(&mut rounds, container).await;
                self.is_ready(target, decided);
            }
        };
        tokio::select! {
            () = live => {}
            () = ready => {}
        }
    }

    /// Runs a check until there is a verdict, which may be the same as before.
    async fn decide(&self, rounds: &mut Rounds<'_>, container: &Container) -> Result<(), String> {
        let check = rounds.check;
        loop {
            sleep_until(rounds.due).await;
            let turn = match check.action {
                // the semaphore is never closed
                Action::Exec { .. } => self.turns.acquire().await.ok(),
                Action::Http { .. } | Action::Tcp { .. } => None,
            };
            let began = Instant::now();
            let asked = self.ask.ask(check, container, &rounds.late).await;
            drop(turn);
            // checks that were missed, because the machine was suspended or a check took long, are skipped
            let period = Duration::from_secs(check.period_seconds.into());
            rounds.due = (began + period).max(Instant::now());
            let result = match asked {
                Ok(result) => result,
                Err(error) => {
                    tracing::debug!(%error, unit = check.unit, "the check could not be made");
                    continue;
                }
            };
            if rounds.tally.count(check, result.is_ok()).is_some() {
                return result;
            }
        }
    }

    /// Stops the container. Returns whether it is stopped now.
    async fn stop(
        &self,
        target: &Target,
        container: &Container,
        check: &HealthCheck,
        why: &str,
    ) -> bool {
        let (unit, purpose) = (&target.unit, check.purpose.as_str());
        let problem = Problem::new(code::UNHEALTHY, format!("{unit}: {purpose} check failed"))
            .about(unit)
            .with_detail(why);
        let why = problem.text();
        match self.podman.stop(&container.id).await {
            // it has ended by itself
            Ok(false) => true,
            Ok(true) => {
                tracing::warn!("{why}: stopped");
                // the receiver lives as long as this sender
                let _ = self.stops.send(Stop {
                    unit: unit.clone(),
                    invocation: target.invocation.clone(),
                    why: problem,
                });
                true
            }
            Err(error) => {
                tracing::warn!(%error, "{why}: not stopped");
                false
            }
        }
    }

    fn is_ready(&self, target: &Target, decided: Result<(), String>) {
        let Target {
            unit, invocation, ..
        } = target;
        self.readiness.send_if_modified(|all| {
            let of_run = all.get(unit).filter(|(of, _)| of == invocation);
            let ready = match (decided, of_run) {
                (Ok(()), Some((_, Ready::Yes))) => return false,
                (Ok(()), _) => Ready::Yes,
                (Err(why), Some((_, Ready::No(problem, since)))) => {
                    let now = not_ready(&why);
                    if now == *problem {
                        return false;
                    }
                    Ready::No(now, *since)
                }
                (Err(why), _) => Ready::No(not_ready(&why), self.clock.now()),
            };
            all.insert(unit.clone(), (invocation.clone(), ready));
            true
        });
    }

    /// Forgets the results for these units.
    pub(super) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        self.readiness.send_if_modified(|all| {
            all.retain(|unit, _| !is_gone(unit));
            // these are no longer checked
            false
        });
    }
}
