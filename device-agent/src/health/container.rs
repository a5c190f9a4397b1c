//! The checks of one container, from its start on.

use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::health::{HealthCheck, Purpose};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::ask::{Ask, Late};
use super::{Readiness, Ready, Stop, Target, not_ready};
use crate::backend::{Container, Podman};
use crate::backoff::Backoff;
use crate::clock::Clock;

/// Shortest and longest bound of the wait before Podman is asked again for a container: it has just started, or leaves.
const FIND: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the checks of all containers share.
pub(super) struct Desk<'a, P, A> {
    pub(super) podman: &'a P,
    pub(super) ask: &'a A,
    pub(super) clock: &'a Clock,
    pub(super) turns: Semaphore,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) stops: mpsc::UnboundedSender<Stop>,
}

/// How often in a row a check went one way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: bool,
    run: u32,
}

impl Tally {
    /// Counts one result; which way it is decided, once there are enough of them in a row.
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

/// A check as time goes on.
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

impl<P: Podman, A: Ask> Desk<'_, P, A> {
    /// Watches a container: for ever, as whoever started this ends it when the unit's run does.
    pub(super) async fn watch(&self, target: Target) {
        let Some(check) = target.checks.first() else {
            return;
        };
        let mut started = target.started;
        let mut last = None;
        loop {
            let container = self.find(&check.container, last.as_ref()).await;
            self.watch_run(&target, &container, started).await;
            // systemd starts another one, maybe before anybody hears of it
            last = Some(container.id);
            started = Instant::now();
        }
    }

    /// The container, once it is there and another one than the last.
    async fn find(&self, name: &str, last: Option<&String>) -> Container {
        let mut backoff = Backoff::new(FIND.0, FIND.1);
        loop {
            match self.podman.container(name).await {
                Ok(Some(found)) if Some(&found.id) != last => return found,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, name, "container not seen"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// Makes the checks of one run of the container until one of them has stopped it.
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

    /// Makes a check until there is a decision, which may be the one before again.
    async fn decide(&self, rounds: &mut Rounds<'_>, container: &Container) -> Result<(), String> {
        let check = rounds.check;
        loop {
            sleep_until(rounds.due).await;
            // nobody closes it
            let turn = self.turns.acquire().await;
            let began = Instant::now();
            let asked = self.ask.ask(check, container, &rounds.late).await;
            drop(turn);
            // what was missed, because the machine slept or a check took long, is not made up for
            let period = Duration::from_secs(check.period_seconds.into());
            rounds.due = (began + period).max(Instant::now());
            let result = match asked {
                Ok(result) => result,
                Err(error) => {
                    tracing::debug!(%error, unit = check.unit, "nobody could ask");
                    continue;
                }
            };
            if rounds.tally.count(check, result.is_ok()).is_some() {
                return result;
            }
        }
    }

    /// Stops the container; whether it does not run any more.
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
                // the other end is there for as long as this is
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

    /// Forgets what was found of these units.
    pub(super) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        self.readiness.send_if_modified(|all| {
            all.retain(|unit, _| !is_gone(unit));
            // nobody asks for these any more
            false
        });
    }
}
