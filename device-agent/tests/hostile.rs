//! A malicious server against the real agent: its loop, connection, verification and ledger. Whatever it sends is refused
//! with a stable code, nothing on the machine is touched, workloads keep running, the refusal is reported, and when the
//! server is honest again, under the same tag, the device follows.
//!
//! Time is paused: an hour of silence takes no time.

#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "a test's own modules"
)]

#[path = "hostile/authority.rs"]
mod authority;
#[path = "hostile/bench.rs"]
mod bench;
#[path = "hostile/content.rs"]
mod content;
#[path = "hostile/fleet.rs"]
mod fleet;
#[path = "hostile/histories.rs"]
mod histories;
#[path = "hostile/host.rs"]
mod host;
#[path = "hostile/lost.rs"]
mod lost;
#[path = "hostile/network.rs"]
mod network;
#[path = "hostile/offers.rs"]
mod offers;
#[path = "hostile/paths.rs"]
mod paths;
#[path = "hostile/policy.rs"]
mod policy;
#[path = "hostile/rules.rs"]
mod rules;
#[path = "hostile/server.rs"]
mod server;
#[path = "hostile/times.rs"]
mod times;
#[path = "hostile/wires.rs"]
mod wires;

use flotta_bundle::code::Code;
use tokio::time::Instant;

use bench::{Bench, FIRST};
use server::ServerState;

/// One line of the table.
pub struct Case {
    name: &'static str,
    code: Code,
    /// Words of the refusal, which show that it was refused for this reason and no other.
    words: &'static str,
    /// Whether it costs the connection, so that the refusal is reported afterwards.
    cut_off: bool,
    lie: fn(&mut Bench),
}

/// A lie that leaves the connection as it is.
pub const fn case(
    name: &'static str,
    code: Code,
    words: &'static str,
    lie: fn(&mut Bench),
) -> Case {
    Case {
        name,
        code,
        words,
        cut_off: false,
        lie,
    }
}

/// A lie that costs the connection.
pub const fn cut_off(
    name: &'static str,
    code: Code,
    words: &'static str,
    lie: fn(&mut Bench),
) -> Case {
    Case {
        cut_off: true,
        ..case(name, code, words, lie)
    }
}

impl Case {
    async fn run(&self) {
        let mut bench = Bench::new().await;
        bench.become_honest();
        bench.run_first().await;
        let before = bench.state();
        bench.publish(FIRST + 1);
        let asked = bench.server.state.borrow().requests;
        let begun = Instant::now();
        (self.lie)(&mut bench);
        bench
            .run(async {
                let refused = |state: &ServerState| self.is_refused(state);
                if self.cut_off {
                    bench.until(self.name, |state| state.lies >= 3).await;
                } else {
                    bench.until(self.name, refused).await;
                }
                let calls = bench.machine.calls();
                let touched = calls.len() - before.touched;
                assert_eq!(touched, 0, "{}: {:?}", self.name, &calls[before.touched..]);
                assert!(bench.state() == before, "{}: something changed", self.name);
                let asked = bench.server.state.borrow().requests - asked;
                let allowed = 30 + usize::try_from(begun.elapsed().as_secs()).expect("a number");
                assert!(asked <= allowed, "{}: asked {asked} times", self.name);
                bench.become_honest();
                bench.until(self.name, refused).await;
                bench.well().await;
                assert!(bench.machine.touched() > before.touched, "the count counts");
            })
            .await;
        // the ledger can also be opened after a refusal
        bench.run_first().await;
    }

    fn is_refused(&self, state: &ServerState) -> bool {
        let said = format!("{}: ", self.code.id);
        let mut events = state.reports.iter().flat_map(|report| &report.events);
        events.any(|event| {
            let [code, words] =
                [said.as_str(), self.words].map(|text| event.message.contains(text));
            event.reason == "Refused" && code && words
        })
    }
}

impl Bench {
    /// Runs the agent until the device has the honest release.
    async fn run_first(&self) {
        self.run(self.well()).await;
    }
}

/// Runs every case, and prints how many were refused.
pub async fn run(what: &str, cases: &[Case]) {
    for case in cases {
        println!("{}", case.name);
        case.run().await;
    }
    println!("{what}: {} refused of {} tried", cases.len(), cases.len());
}
