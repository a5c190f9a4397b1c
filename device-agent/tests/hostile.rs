//! A server that lies, against the real agent: its loop, its connection, its verification and its ledger. Whatever comes is
//! refused with a stable code, nothing on the machine is touched, what runs goes on, the refusal is reported, and when the
//! server tells the truth again, under the same tag, the device follows.
//!
//! The clock is the tests' own: an hour of silence takes no time.

#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "a test's own modules"
)]

#[path = "hostile/authority.rs"]
mod authority;
#[path = "hostile/content.rs"]
mod content;
#[path = "hostile/fleet.rs"]
mod fleet;
#[path = "hostile/histories.rs"]
mod histories;
#[path = "hostile/machine.rs"]
mod machine;
#[path = "hostile/network.rs"]
mod network;
#[path = "hostile/offers.rs"]
mod offers;
#[path = "hostile/paths.rs"]
mod paths;
#[path = "hostile/server.rs"]
mod server;
#[path = "hostile/stage.rs"]
mod stage;
#[path = "hostile/wires.rs"]
mod wires;

use flotta_bundle::code::Code;
use tokio::time::Instant;

use stage::{FIRST, Stage, says};

/// One line of the table.
pub struct Case {
    name: &'static str,
    code: Code,
    /// There is no connection meanwhile, so it is reported afterwards.
    cut_off: bool,
    lie: fn(&mut Stage),
}

/// A lie that leaves the connection as it is.
pub const fn case(name: &'static str, code: Code, lie: fn(&mut Stage)) -> Case {
    Case {
        name,
        code,
        cut_off: false,
        lie,
    }
}

/// A lie that costs the connection.
pub const fn cut_off(name: &'static str, code: Code, lie: fn(&mut Stage)) -> Case {
    Case {
        cut_off: true,
        ..case(name, code, lie)
    }
}

impl Case {
    async fn play(&self) {
        let mut stage = Stage::new().await;
        stage.heal();
        stage.play_first().await;
        let before = stage.state();
        stage.plan(FIRST + 1);
        let asked = stage.server.world.borrow().requests;
        let begun = Instant::now();
        (self.lie)(&mut stage);
        stage
            .play(async {
                let code = self.code.id;
                if self.cut_off {
                    stage.until(self.name, |world| world.lies >= 3).await;
                } else {
                    stage
                        .until(self.name, |world| says(world, "Refused", code))
                        .await;
                }
                let calls = stage.hand.calls();
                let touched = calls.len() - before.touched;
                assert_eq!(touched, 0, "{}: {:?}", self.name, &calls[before.touched..]);
                assert!(stage.state() == before, "{}: something changed", self.name);
                let asked = stage.server.world.borrow().requests - asked;
                let allowed = 30 + usize::try_from(begun.elapsed().as_secs()).expect("a number");
                assert!(asked <= allowed, "{}: asked {asked} times", self.name);
                stage.heal();
                stage
                    .until(self.name, |world| says(world, "Refused", code))
                    .await;
                stage.well().await;
                assert!(stage.hand.touched() > before.touched, "the count counts");
            })
            .await;
    }
}

impl Stage {
    /// The agent runs until the device has the truth.
    async fn play_first(&self) {
        self.play(self.well()).await;
    }
}

/// Plays every line, and says how many were refused.
pub async fn play(what: &str, cases: &[Case]) {
    for case in cases {
        println!("{}", case.name);
        case.play().await;
    }
    println!("{what}: {} refused of {} tried", cases.len(), cases.len());
}
