//! Wrong clocks, of the server or of the device, by minutes or by ten years: during and after, the device follows its fleet, or
//! at least comes back when the clock is right. Workloads are never touched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotta_agent::clock::Clock;
use flotta_agent::enrol::Join;
use flotta_agent::identity::Identity;
use flotta_bundle::code;
use flotta_bundle::wire::{Hardware, JoinFile};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, FIRST, says};
use crate::fleet::{Bundle, OURS, device, manifest};
use crate::server::ServerState;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Offsets of a clock, in both directions: within the tolerance of certificates, beyond it, beyond the lifetime of a device's
/// certificate, beyond the server's, and beyond everything.
fn offsets() -> Vec<SignedDuration> {
    let sizes = [MINUTE * 5, HOUR * 3, DAY, DAY * 100, DAY * 730, DAY * 3652];
    sizes.into_iter().flat_map(|size| [size, -size]).collect()
}

/// A machine's clock that can be set.
#[derive(Clone, Default)]
struct FakeClock(Arc<Mutex<SignedDuration>>);

impl FakeClock {
    fn set(&self, offset: SignedDuration) {
        *self.0.lock().expect("no panic") = offset;
    }

    fn clock(&self, floor: Timestamp, synchronised: Option<bool>) -> Clock {
        let offset = Arc::clone(&self.0);
        let now = move || Timestamp::now() + *offset.lock().expect("no panic");
        let clock = Clock::of(now, floor);
        clock.set_synchronised(synchronised);
        clock
    }
}

impl Bench {
    /// Sets the offset of the server's clock, and the offset at which its certificate was made.
    fn server_is_off(&mut self, now: SignedDuration, made: SignedDuration) {
        let right = Timestamp::now();
        self.change(|state| {
            state.clock = Some((right + now, right + made));
            state.era += 1;
        });
        self.fleet.now = right + now;
    }

    /// Offers a new release, signed by the server's clock.
    fn next(&mut self, sequence: &mut u64) {
        *sequence += 1;
        self.publish(*sequence);
        self.become_honest();
    }

    /// Restarts the agent with its saved clock.
    fn restart(&mut self, clock: &FakeClock, synchronised: Option<bool>) {
        let path = self.config.clock();
        self.clock.save(&path).expect("saved");
        let floor = Clock::load(&path).floor();
        self.clock = clock.clock(floor, synchronised);
    }

    /// Checks that the device follows the offer, and reports at most these codes.
    async fn follows(&self, what: &str, may_say: &[&str]) {
        let wanted = self.truth.manifest;
        let like = |state: &ServerState| {
            state.reports.last().is_some_and(|report| {
                let mut problems = report.problems.iter();
                report.applied.is_some_and(|a| a.manifest == wanted)
                    && problems.all(|problem| may_say.contains(&problem.code.as_str()))
            })
        };
        self.run(self.until(what, like)).await;
    }
}

/// Problems of time that a device may report while it follows.
const OF_TIME: [&str; 2] = [code::TIME_AHEAD.id, code::CLOCK_UNSURE.id];
/// The same for a release that was issued so long ago that it has expired.
const OR_EXPIRED: [&str; 3] = [
    code::TIME_AHEAD.id,
    code::CLOCK_UNSURE.id,
    code::TRUST_EXPIRED.id,
];

#[tokio::test(start_paused = true)]
async fn a_server_whose_clock_was_wrong_keeps_no_device() {
    let mut tried = 0;
    for offset in offsets() {
        for synchronised in [Some(true), Some(false), None] {
            let what = format!("the server off by {offset:#}, the device set: {synchronised:?}");
            let (clock, mut sequence) = (FakeClock::default(), FIRST);
            let mut bench = Bench::new().await;
            bench.clock = clock.clock(Timestamp::UNIX_EPOCH, synchronised);
            bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            bench.become_honest();
            bench.follows(&what, &[]).await;

            // the server starts with the wrong clock, and makes its certificate and a release by it
            bench.server_is_off(offset, offset);
            bench.next(&mut sequence);
            let before = bench.state();
            // only a certificate that has expired by a believed clock is refused until it is renewed
            let has_ended = synchronised == Some(true) && offset < -DAY * 365;
            if has_ended {
                let refused = |state: &ServerState| state.connections > 5;
                bench.run(bench.until(&what, refused)).await;
                assert!(bench.state() == before, "{what}: something was touched");
            } else if offset <= -DAY {
                bench.follows(&what, &OR_EXPIRED).await;
            } else {
                bench.follows(&what, &OF_TIME).await;
            }

            // the server's clock is right, but it still has its old certificate
            bench.server_is_off(SignedDuration::ZERO, offset);
            bench.next(&mut sequence);
            if !has_ended {
                bench.follows(&what, &OF_TIME).await;
                bench.restart(&clock, synchronised);
                bench.next(&mut sequence);
                bench.follows(&what, &OF_TIME).await;
            }

            // the certificate is renewed; no problem is left, also after a restart of the agent
            bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            bench.next(&mut sequence);
            bench.follows(&what, &[]).await;
            bench.restart(&clock, synchronised);
            bench.next(&mut sequence);
            bench.follows(&what, &[]).await;
            tried += 1;
        }
    }
    println!(
        "server's clock: {tried} of {tried} combinations of offset and device followed; {} offsets",
        offsets().len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_clock_is_wrong_follows_its_fleet() {
    let mut tried = 0;
    for offset in offsets() {
        for synchronised in [Some(false), None] {
            let what = format!("the device off by {offset:#}");
            let (clock, mut sequence) = (FakeClock::default(), FIRST);
            let mut bench = Bench::new().await;
            bench.clock = clock.clock(Timestamp::UNIX_EPOCH, synchronised);
            bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            bench.become_honest();
            bench.follows(&what, &[]).await;

            clock.set(offset);
            bench.restart(&clock, synchronised);
            bench.next(&mut sequence);
            bench.follows(&what, &OF_TIME).await;
            // again, without what it had learned
            bench.clock = clock.clock(Timestamp::UNIX_EPOCH, synchronised);
            bench.next(&mut sequence);
            bench.follows(&what, &OF_TIME).await;

            // now the network sets it
            clock.set(SignedDuration::ZERO);
            bench.restart(&clock, Some(true));
            bench.next(&mut sequence);
            bench.follows(&what, &[]).await;
            tried += 1;
        }
    }
    println!(
        "device's clock: {tried} of {tried} combinations followed; {} offsets",
        offsets().len()
    );
}

/// The state of an earlier version's agent after a release from the future: the floor, and the accepted release.
#[tokio::test(start_paused = true)]
async fn a_device_that_was_poisoned_already_is_healed() {
    let mut tried = 0;
    for offset in offsets().into_iter().filter(SignedDuration::is_positive) {
        for synchronised in [Some(true), Some(false), None] {
            let what = format!("a floor ahead by {offset:#}, the device set: {synchronised:?}");
            let (clock, mut sequence) = (FakeClock::default(), FIRST);
            let mut bench = Bench::new().await;
            bench.server_is_off(offset, SignedDuration::ZERO);
            bench.publish(FIRST);
            bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            bench.become_honest();
            bench.follows(&what, &OF_TIME).await;
            let ahead = Timestamp::now() + offset;
            Clock::new(ahead)
                .save(&bench.config.clock())
                .expect("saved");
            let floor = Clock::load(&bench.config.clock()).floor();
            assert!(floor >= ahead - MINUTE);

            bench.clock = clock.clock(floor, synchronised);
            bench.next(&mut sequence);
            bench.follows(&what, &[]).await;
            let told = bench.server.state.borrow().clone();
            let is_told = says(&told, "ClockCorrected", code::TIME_AHEAD.id);
            assert_eq!(
                is_told,
                synchronised == Some(true) && offset > HOUR,
                "{what}"
            );
            bench.restart(&clock, synchronised);
            let left = bench.clock.floor() < ahead - offset / 2;
            assert!(left, "{what}: the floor is still ahead");
            tried += 1;
        }
    }
    println!("poisoned devices: {tried} of {tried} healed");
}

/// A certificate that was accepted while the time was unknown is verified again on the open connection once it is known.
#[tokio::test(start_paused = true)]
async fn a_certificate_taken_in_doubt_is_verified_again_when_the_clock_is_set() {
    for (made, is_refused) in [(-DAY * 730, true), (DAY * 730, false), (-DAY, false)] {
        let what = format!("a certificate made {made:#} from now");
        let (clock, mut sequence) = (FakeClock::default(), FIRST);
        let mut bench = Bench::new().await;
        clock.set(made - DAY * 3652);
        bench.clock = clock.clock(Timestamp::UNIX_EPOCH, Some(false));
        bench.server_is_off(SignedDuration::ZERO, made);
        if made == -DAY {
            // nothing shows yet that the certificate is already valid
            bench.fleet.now = Timestamp::now() - DAY * 730;
        }
        bench.publish(FIRST);
        bench.become_honest();
        bench.follows(&what, &OR_EXPIRED).await;
        let before = bench.state();
        bench.change(|state| state.reports.clear());
        let script = async {
            let doubts = |state: &ServerState| {
                let mut problems = state.reports.iter().flat_map(|report| &report.problems);
                problems.any(|problem| problem.code == code::CLOCK_UNSURE.id)
            };
            bench.until(&what, doubts).await;
            let connections = bench.server.state.borrow().connections;
            clock.set(SignedDuration::ZERO);
            bench.clock.set_synchronised(Some(true));
            if is_refused {
                let link = bench
                    .link(&what, |link| link.connected_since.is_none())
                    .await;
                let problem = link.problem.expect("a problem");
                assert_eq!(problem.code, code::UNTRUSTED_SERVER.id, "{what}: {problem}");
                assert!(problem.message.contains("ended at"), "{what}: {problem}");
                let tried = |state: &ServerState| state.connections > connections + 3;
                bench.until(&what, tried).await;
            } else {
                let is_judged = |state: &ServerState| {
                    state.reports.last().is_some_and(|report| {
                        let has = |code: &str| report.problems.iter().any(|one| one.code == code);
                        !has(code::CLOCK_UNSURE.id)
                            && has(code::TIME_AHEAD.id) == made.is_positive()
                    })
                };
                bench.until(&what, is_judged).await;
                let now = bench.server.state.borrow().connections;
                assert_eq!(now, connections, "{what}: it needs no other connection");
            }
        };
        bench.run(script).await;
        assert!(bench.state() == before, "{what}: something was touched");
        // the server has renewed it
        bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
        bench.next(&mut sequence);
        bench.follows(&what, &[]).await;
    }
}

/// Nobody answers any more at the address where the device joined, the server has moved to the one in the release, and the
/// device was off for so long that its certificate has expired. Its stopped clock says that it has not.
#[tokio::test(start_paused = true)]
async fn a_device_whose_certificate_ended_unseen_comes_back_where_its_server_has_moved_to() {
    const DEAD: &str = "https://localhost:9";
    let (long_ago, off) = (-DAY * 200, -DAY * 150);
    for (offset, before) in [(off, false), (off, true), (SignedDuration::ZERO, false)] {
        let what = format!("the device off by {offset:#}, a dead address before: {before}");
        let (clock, mut sequence) = (FakeClock::default(), FIRST);
        let mut bench = Bench::new().await;
        let alive = bench.server.url.clone();
        bench.server_is_off(off, off);
        let identity = Identity::open(&bench.config.identity()).expect("keys");
        let name = device(OURS).identity(&bench.fleet.trust.fleet);
        let csr = identity.csr(&device(OURS)).expect("a request");
        let (fleet, made) = (&bench.fleet.trust.fleet, Timestamp::now() + long_ago);
        let pem = bench.server.authority.device_at(&csr, &name, made);
        let kept = identity.keep_certificate(&pem, fleet, &device(OURS));
        kept.expect("kept");
        let mut bundle = Bundle::default();
        let mut manifest = manifest(&mut bundle, FIRST);
        manifest["schema"] = json!(2);
        manifest["settings"]["servers"] = if before {
            json!(["https://localhost:19", alive])
        } else {
            json!([alive])
        };
        bench.truth = bench.signed(FIRST, bundle, &manifest.to_string());
        bench.become_honest();
        clock.set(off);
        bench.clock = clock.clock(Timestamp::UNIX_EPOCH, Some(false));
        bench.follows(&what, &OF_TIME).await;

        for file in [
            "identity/joined.json",
            "identity/server",
            "ledger/joined.json",
        ] {
            let path = bench.config.state.join(file);
            let known = std::fs::read_to_string(&path).expect("it is there");
            assert!(known.contains(&alive), "{file}: {known}");
            std::fs::write(&path, known.replace(&alive, DEAD)).expect("written");
        }
        bench.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
        clock.set(offset);
        bench.restart(&clock, Some(false));
        bench.next(&mut sequence);
        bench.follows(&what, &OF_TIME).await;
        let ends = identity.certificate().expect("one").not_after;
        assert!(ends > Timestamp::now(), "{what}: {ends}");
    }
}

/// The same when joining, with the state that `enrol --reset` leaves in place.
#[tokio::test(start_paused = true)]
async fn a_device_joins_whatever_the_clocks_are() {
    let bench = Bench::new().await;
    let file = JoinFile {
        schema: 1,
        fleet: bench.fleet.trust.fleet.clone(),
        server: bench.server.url.clone(),
        ca: bench.server.authority.pem.clone(),
        trust_root: bench.fleet.sign_root(&bench.fleet.trust),
        device: Some(device(OURS)),
        token: None,
    };
    let bytes = serde_json::to_vec(&file).expect("JSON");
    let join = Join::parse(&bytes, "join".as_ref(), None).expect("a join file");
    let identity = Identity::open(&bench.config.identity()).expect("keys");
    let hardware = Hardware::default();
    let ask = async |clock: &Clock| {
        let deadline = Instant::now() + Duration::from_secs(600);
        let client = join.client(clock, &bench.config.proxies).expect("a client");
        join.ask(&identity, &hardware, &client, Some(deadline), || {})
            .await
    };
    let now = Timestamp::now();
    bench.change(|state| state.clock = Some((now, now)));
    let mut tried = 0;
    for offset in offsets() {
        let clock = FakeClock::default();
        clock.set(offset);
        for clock in [
            clock.clock(Timestamp::UNIX_EPOCH, Some(false)),
            FakeClock::default().clock(now + offset, Some(false)),
            FakeClock::default().clock(now + offset, Some(true)),
        ] {
            let joined = ask(&clock).await.expect("an answer").expect("approved");
            assert_eq!(joined.0, device(OURS));
            tried += 1;
        }
    }
    // a certificate that expired long ago by a believed clock is refused with the reason
    bench.change(|state| state.clock = Some((now, now - DAY * 730)));
    let right = FakeClock::default().clock(Timestamp::UNIX_EPOCH, Some(true));
    let problem = ask(&right).await.expect_err("an old server").problem();
    assert_eq!(problem.code, code::UNTRUSTED_SERVER.id, "{problem}");
    assert!(problem.message.contains("ended at"), "{problem}");
    println!("joined with {tried} of {tried} clocks");
}
