//! Health checks over time, with a paused clock and containers that answer by a script.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use flotta_bundle::health::Action;
use tokio::time::{advance, timeout};

use super::container::Tally;
use super::probe::Late;
use super::*;
use crate::backend::fake::bundle::{Bundle, Workload};
use crate::backend::fake::{Definition, QUADLET, World};
use crate::backend::{BackendError, Container, Systemd as _};

mod machine;
mod network;

fn check(purpose: Purpose) -> HealthCheck {
    HealthCheck {
        unit: "web.service".to_owned(),
        container: "web".to_owned(),
        purpose,
        action: Action::Tcp {
            host: None,
            port: 8080,
        },
        delay_seconds: 0,
        period_seconds: 10,
        timeout_seconds: 1,
        failures: 3,
        successes: 1,
    }
}

#[test]
fn a_check_is_decided_by_so_many_results_in_a_row() {
    let mut readiness = check(Purpose::Readiness);
    readiness.successes = 2;
    for (results, decided) in [
        ("", ""),
        ("---", "..-"),
        ("----", "..--"),
        ("--+--", "....."),
        ("++", ".+"),
        ("+-++", "...+"),
        ("++---++", ".+..-.+"),
    ] {
        let mut tally = Tally::default();
        let word = |decided| match decided {
            None => '.',
            Some(true) => '+',
            Some(false) => '-',
        };
        let found: String = results
            .chars()
            .map(|result| word(tally.count(&readiness, result == '+')))
            .collect();
        assert_eq!(found, decided, "{results}");
    }
}

/// Answers each check as scripted, and notes the second at which it was made; without a script every check passes.
#[derive(Default)]
struct Script {
    began: Option<Instant>,
    /// `+` passes, `-` fails, `?` cannot be made; `*` in front of the last one: always from then on.
    answers: RefCell<BTreeMap<Purpose, VecDeque<char>>>,
    asked: RefCell<Vec<(Purpose, u64)>>,
    /// How many checks are under way, and the most there were.
    open: Cell<(usize, usize)>,
    takes: Duration,
}

impl Script {
    fn of(answers: &[(Purpose, &str)]) -> Self {
        let answers = answers.iter();
        Self {
            began: Some(Instant::now()),
            answers: RefCell::new(
                answers
                    .map(|(p, text)| (*p, text.chars().collect()))
                    .collect(),
            ),
            ..Self::default()
        }
    }
}

impl Probe for Script {
    async fn ask(
        &self,
        check: &HealthCheck,
        _: &Container,
        _: &Late,
    ) -> Result<Result<(), String>, BackendError> {
        let at = self.began.map(|began| began.elapsed().as_secs());
        self.asked
            .borrow_mut()
            .push((check.purpose, at.unwrap_or_default()));
        let (open, most) = self.open.get();
        self.open.set((open + 1, most.max(open + 1)));
        tokio::time::sleep(self.takes).await;
        self.open.set((self.open.get().0 - 1, self.open.get().1));
        let mut answers = self.answers.borrow_mut();
        let answer = answers.get_mut(&check.purpose).and_then(|answers| {
            if answers.front() == Some(&'*') {
                answers.get(1).copied()
            } else {
                answers.pop_front()
            }
        });
        match answer {
            None | Some('+') => Ok(Ok(())),
            Some('?') => Err(BackendError::Other("no answer".to_owned())),
            Some(_) => Ok(Err("GET /: answered 503".to_owned())),
        }
    }
}

/// A machine that runs `web`.
fn world() -> World {
    let world = World::default();
    let mut state = world.state();
    let definition = Definition {
        source: format!("{QUADLET}web.container"),
        text: "[Service]\nRestart=always\n".to_owned(),
    };
    state.loaded.insert("web.service".to_owned(), definition);
    state.start("web.service").expect("it starts");
    drop(state);
    world
}

async fn target(world: &mut World, checks: Vec<HealthCheck>) -> Target {
    let found = world.unit("web.service").await.expect("a unit");
    Target {
        unit: "web.service".to_owned(),
        workload: "web".to_owned(),
        invocation: found.invocation,
        started: Instant::now(),
        checks,
    }
}

/// Runs these checks for so many seconds. Returns when each was made, and what was stopped.
async fn play(
    checks: Vec<HealthCheck>,
    answers: &[(Purpose, &str)],
    seconds: u64,
) -> (Vec<(Purpose, u64)>, Vec<String>, Readiness) {
    let mut world = world();
    let target = target(&mut world, checks).await;
    let script = Script::of(answers);
    let (readiness, found) = watch::channel(Readiness::new());
    let (stops, mut stopped) = mpsc::unbounded_channel();
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    let checks = Checks {
        podman: &world,
        ask: &script,
        clock: &clock,
        turns: Semaphore::new(AT_ONCE),
        readiness,
        stops,
    };
    let watch = checks.watch(target);
    timeout(Duration::from_secs(seconds), watch)
        .await
        .expect_err("it watches on");
    let mut why = Vec::new();
    while let Ok(stop) = stopped.try_recv() {
        why.push(stop.why.text());
    }
    let found = found.borrow().clone();
    (script.asked.take(), why, found)
}

fn of(purpose: Purpose, asked: &[(Purpose, u64)]) -> Vec<u64> {
    let of = asked.iter().filter(|(found, _)| *found == purpose);
    of.map(|(_, at)| *at).collect()
}

#[tokio::test(start_paused = true)]
async fn liveness_stops_after_failures_in_a_row_and_begins_anew_with_the_next_container() {
    use Purpose::Liveness;
    let mut live = check(Liveness);
    live.delay_seconds = 5;
    let (asked, why, _) = play(vec![live], &[(Liveness, "+--+---")], 70).await;
    // the delay, then every ten seconds; stopped at 65
    assert_eq!(of(Liveness, &asked)[..7], [5, 15, 25, 35, 45, 55, 65]);
    assert_eq!(
        why,
        ["web.service: liveness check failed: GET /: answered 503"]
    );
    // a check that could not be made is not a failure
    let (_, why, _) = play(vec![check(Liveness)], &[(Liveness, "--?-+--??+")], 100).await;
    assert_eq!(why.len(), 1);
    let (_, why, _) = play(vec![check(Liveness)], &[(Liveness, "*?")], 1000).await;
    assert_eq!(why.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_others_wait_for_the_startup_check() {
    use Purpose::{Liveness, Readiness, Startup};
    let mut startup = check(Startup);
    (startup.period_seconds, startup.failures) = (2, 30);
    let checks = vec![startup, check(Liveness), check(Readiness)];
    let (asked, why, found) = play(checks.clone(), &[(Startup, "------+")], 20).await;
    assert_eq!(
        of(Startup, &asked),
        [0, 2, 4, 6, 8, 10, 12],
        "and not once it has passed"
    );
    // when it has passed, they are due at once
    assert_eq!(of(Liveness, &asked), [12]);
    assert_eq!(of(Readiness, &asked), [12]);
    assert!(why.is_empty());
    assert_eq!(found["web.service"].1, Ready::Yes);
    // it fails for ever
    let (asked, why, found) = play(checks, &[(Startup, "*-")], 59).await;
    assert_eq!(
        why,
        ["web.service: startup check failed: GET /: answered 503"]
    );
    assert!(of(Liveness, &asked).is_empty() && found.is_empty());
}

#[tokio::test(start_paused = true)]
async fn readiness_stops_nothing_and_says_since_when() {
    use Purpose::Readiness;
    let ready = vec![check(Readiness)];
    let (_, why, found) = play(ready.clone(), &[(Readiness, "--")], 15).await;
    assert!(
        why.is_empty() && found.is_empty(),
        "it may still be starting"
    );
    let (_, why, found) = play(ready.clone(), &[(Readiness, "*-")], 1000).await;
    assert!(why.is_empty());
    let (_, Ready::No(problem, _)) = &found["web.service"] else {
        panic!("{found:?}");
    };
    assert_eq!(problem.code, code::NOT_READY.id);
    assert_eq!(problem.text(), "not ready: GET /: answered 503");
    let (.., found) = play(ready, &[(Readiness, "+---+")], 100).await;
    assert_eq!(found["web.service"].1, Ready::Yes, "it recovers");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_commands_run_at_once_and_connections_wait_for_nobody() {
    let mut world = world();
    let command = Action::Exec {
        command: vec!["true".to_owned()],
    };
    let of = |action| HealthCheck {
        action,
        ..check(Purpose::Liveness)
    };
    let one = target(&mut world, vec![of(command)]).await;
    let other = target(&mut world, vec![check(Purpose::Liveness)]).await;
    let script = Script {
        takes: Duration::from_millis(100),
        ..Script::of(&[])
    };
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    let checks = Checks {
        podman: &world,
        ask: &script,
        clock: &clock,
        turns: Semaphore::new(AT_ONCE),
        readiness: watch::channel(Readiness::new()).0,
        stops: mpsc::unbounded_channel().0,
    };
    let many = (0..100).map(|n| Target {
        unit: format!("unit-{n}.service"),
        ..one.clone()
    });
    let (sender, targets) = watch::channel(Vec::new());
    sender.send_replace(many.collect());
    let mut follow = pin!(follow(&checks, targets));
    timeout(Duration::from_secs(5), &mut follow)
        .await
        .expect_err("for ever");
    assert_eq!(script.asked.borrow().len(), 100);
    assert_eq!(script.open.get().1, AT_ONCE);
    // no targets, no checks
    sender.send_replace(Vec::new());
    timeout(Duration::from_secs(500), &mut follow)
        .await
        .expect_err("for ever");
    assert_eq!(script.asked.borrow().len(), 100);
    advance(Duration::from_secs(1)).await;

    let many = (0..100).map(|n| Target {
        unit: format!("unit-{n}.service"),
        ..other.clone()
    });
    sender.send_replace(many.collect());
    timeout(Duration::from_secs(5), &mut follow)
        .await
        .expect_err("for ever");
    assert_eq!(script.open.get().1, 100);
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_stopped_is_checked_no_more() {
    let mut world = world();
    let web = target(&mut world, vec![check(Purpose::Liveness)]).await;
    let other = Target {
        unit: "other.service".to_owned(),
        workload: "other".to_owned(),
        ..web.clone()
    };
    let (health, watcher) = watch(world.clone(), Clock::new(Timestamp::UNIX_EPOCH));
    health.set(vec![web, other]);
    health.release("web");
    let left = watcher.targets.borrow().clone();
    let left: Vec<_> = left.iter().map(|target| &*target.unit).collect();
    assert_eq!(left, ["other.service"]);
}
