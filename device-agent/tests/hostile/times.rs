//! Clocks that are wrong, of the server or of the device, by minutes or by ten years: while they are, and after, the device
//! follows its fleet, or is at least there again when the clock is right. What runs is never touched for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotta_agent::clock::Clock;
use flotta_agent::enrol::Join;
use flotta_agent::identity::Identity;
use flotta_bundle::code;
use flotta_bundle::wire::{Hardware, JoinFile};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::fleet::{OURS, device};
use crate::server::World;
use crate::stage::{FIRST, Stage, says};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How far clocks are off, in either direction: within what certificates allow for, beyond it, beyond a device's certificate,
/// beyond the server's, and beyond everything.
fn offsets() -> Vec<SignedDuration> {
    let sizes = [MINUTE * 5, HOUR * 3, DAY, DAY * 100, DAY * 730, DAY * 3652];
    sizes.into_iter().flat_map(|size| [size, -size]).collect()
}

/// A machine's clock that can be set.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<SignedDuration>>);

impl Machine {
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

impl Stage {
    /// The server's clock is off by this; its certificate was made when it was off by that.
    fn server_is_off(&mut self, now: SignedDuration, made: SignedDuration) {
        let right = Timestamp::now();
        self.change(|world| {
            world.clock = Some((right + now, right + made));
            world.era += 1;
        });
        self.fleet.now = right + now;
    }

    /// A new release, by the server's clock.
    fn next(&mut self, sequence: &mut u64) {
        *sequence += 1;
        self.plan(*sequence);
        self.heal();
    }

    /// The agent ends, and starts again with what it has saved.
    fn restart(&mut self, machine: &Machine, synchronised: Option<bool>) {
        let path = self.settings.clock();
        self.clock.save(&path).expect("saved");
        let floor = Clock::load(&path).floor();
        self.clock = machine.clock(floor, synchronised);
    }

    /// The device comes to what the server offers, and says of it no more than this.
    async fn follows(&self, what: &str, may_say: &[&str]) {
        let wanted = self.truth.manifest;
        let like = |world: &World| {
            world.reports.last().is_some_and(|report| {
                let mut problems = report.problems.iter();
                report.applied.is_some_and(|a| a.manifest == wanted)
                    && problems.all(|problem| may_say.contains(&problem.code.as_str()))
            })
        };
        self.play(self.until(what, like)).await;
    }
}

/// What a device may say of times, and follow all the same.
const OF_TIME: [&str; 2] = [code::TIME_AHEAD.id, code::CLOCK_UNSURE.id];
/// The same of a release that was issued so long ago that it has expired.
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
            let (machine, mut sequence) = (Machine::default(), FIRST);
            let mut stage = Stage::new().await;
            stage.clock = machine.clock(Timestamp::UNIX_EPOCH, synchronised);
            stage.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            stage.heal();
            stage.follows(&what, &[]).await;

            // it starts with the wrong clock, makes its certificate by it, and signs a release
            stage.server_is_off(offset, offset);
            stage.next(&mut sequence);
            let before = stage.state();
            // a certificate that ended by a clock that is believed is refused: that alone may wait
            let has_ended = synchronised == Some(true) && offset < -DAY * 365;
            if has_ended {
                let refused = |world: &World| world.connections > 5;
                stage.play(stage.until(&what, refused)).await;
                assert!(stage.state() == before, "{what}: something was touched");
            } else if offset <= -DAY {
                stage.follows(&what, &OR_EXPIRED).await;
            } else {
                stage.follows(&what, &OF_TIME).await;
            }

            // its clock is right, and its certificate still the one that was made before
            stage.server_is_off(SignedDuration::ZERO, offset);
            stage.next(&mut sequence);
            if !has_ended {
                stage.follows(&what, &OF_TIME).await;
                stage.restart(&machine, synchronised);
                stage.next(&mut sequence);
                stage.follows(&what, &OF_TIME).await;
            }

            // it has made it anew; nothing is left to say, also after the agent was started again
            stage.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            stage.next(&mut sequence);
            stage.follows(&what, &[]).await;
            stage.restart(&machine, synchronised);
            stage.next(&mut sequence);
            stage.follows(&what, &[]).await;
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
            let (machine, mut sequence) = (Machine::default(), FIRST);
            let mut stage = Stage::new().await;
            stage.clock = machine.clock(Timestamp::UNIX_EPOCH, synchronised);
            stage.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            stage.heal();
            stage.follows(&what, &[]).await;

            machine.set(offset);
            stage.restart(&machine, synchronised);
            stage.next(&mut sequence);
            stage.follows(&what, &OF_TIME).await;
            // once more without what it had learned
            stage.clock = machine.clock(Timestamp::UNIX_EPOCH, synchronised);
            stage.next(&mut sequence);
            stage.follows(&what, &OF_TIME).await;

            // the network sets it
            machine.set(SignedDuration::ZERO);
            stage.restart(&machine, Some(true));
            stage.next(&mut sequence);
            stage.follows(&what, &[]).await;
            tried += 1;
        }
    }
    println!(
        "device's clock: {tried} of {tried} combinations followed; {} offsets",
        offsets().len()
    );
}

/// What an agent of an earlier version has on disk after a release from the future: the floor, and the accepted release.
#[tokio::test(start_paused = true)]
async fn a_device_that_was_poisoned_already_is_healed() {
    let mut tried = 0;
    for offset in offsets().into_iter().filter(SignedDuration::is_positive) {
        for synchronised in [Some(true), Some(false), None] {
            let what = format!("a floor ahead by {offset:#}, the device set: {synchronised:?}");
            let (machine, mut sequence) = (Machine::default(), FIRST);
            let mut stage = Stage::new().await;
            stage.server_is_off(offset, SignedDuration::ZERO);
            stage.plan(FIRST);
            stage.server_is_off(SignedDuration::ZERO, SignedDuration::ZERO);
            stage.heal();
            stage.follows(&what, &OF_TIME).await;
            let ahead = Timestamp::now() + offset;
            Clock::new(ahead)
                .save(&stage.settings.clock())
                .expect("saved");
            let floor = Clock::load(&stage.settings.clock()).floor();
            assert!(floor >= ahead - MINUTE);

            stage.clock = machine.clock(floor, synchronised);
            stage.next(&mut sequence);
            stage.follows(&what, &[]).await;
            let told = stage.server.world.borrow().clone();
            let is_told = says(&told, "ClockCorrected", code::TIME_AHEAD.id);
            assert_eq!(
                is_told,
                synchronised == Some(true) && offset > HOUR,
                "{what}"
            );
            stage.restart(&machine, synchronised);
            let left = stage.clock.floor() < ahead - offset / 2;
            assert!(left, "{what}: the floor is still ahead");
            tried += 1;
        }
    }
    println!("poisoned devices: {tried} of {tried} healed");
}

/// The same at join, with what `enrol --reset` leaves in place.
#[tokio::test(start_paused = true)]
async fn a_device_joins_whatever_the_clocks_are() {
    let stage = Stage::new().await;
    let file = JoinFile {
        schema: 1,
        fleet: stage.fleet.trust.fleet.clone(),
        server: stage.server.url.clone(),
        ca: stage.server.authority.pem.clone(),
        trust_root: stage.fleet.sign_root(&stage.fleet.trust),
        device: Some(device(OURS)),
        token: None,
    };
    let bytes = serde_json::to_vec(&file).expect("JSON");
    let join = Join::parse(&bytes, "join".as_ref(), None).expect("a join file");
    let identity = Identity::open(&stage.settings.identity()).expect("keys");
    let hardware = Hardware::default();
    let ask = async |clock: &Clock| {
        let deadline = Instant::now() + Duration::from_secs(600);
        let client = join
            .client(clock, &stage.settings.proxies)
            .expect("a client");
        join.ask(&identity, &hardware, &client, Some(deadline), || {})
            .await
    };
    let now = Timestamp::now();
    stage.change(|world| world.clock = Some((now, now)));
    let mut tried = 0;
    for offset in offsets() {
        let machine = Machine::default();
        machine.set(offset);
        for clock in [
            machine.clock(Timestamp::UNIX_EPOCH, Some(false)),
            Machine::default().clock(now + offset, Some(false)),
            Machine::default().clock(now + offset, Some(true)),
        ] {
            let joined = ask(&clock).await.expect("an answer").expect("approved");
            assert_eq!(joined.0, device(OURS));
            tried += 1;
        }
    }
    // a certificate that ended long ago, by a clock that is believed, is refused with its reason
    stage.change(|world| world.clock = Some((now, now - DAY * 730)));
    let right = Machine::default().clock(Timestamp::UNIX_EPOCH, Some(true));
    let problem = ask(&right).await.expect_err("an old server").problem();
    assert_eq!(problem.code, code::UNTRUSTED_SERVER.id, "{problem}");
    assert!(problem.message.contains("ended at"), "{problem}");
    println!("joined with {tried} of {tried} clocks");
}
