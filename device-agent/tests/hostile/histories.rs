//! Two releases with one sequence for two devices: neither device can know that alone, and each keeps the release it saw.

use std::process::Command;

use flotta_bundle::{Digest, code};
use serde_json::Value;

use crate::bench::{Bench, FIRST, says};
use crate::fleet::{Bundle, manifest};

/// The sequences and roots of `flotta-agent history -o json`.
fn history(bench: &Bench) -> Vec<(u64, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_flotta-agent"))
        .args(["history", "-o", "json", "--state"])
        .arg(&bench.config.state)
        .output()
        .expect("the program runs");
    assert!(output.status.success());
    let seen: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let each = seen.iter().map(|seen| {
        let sequence = seen["sequence"].as_u64().expect("a sequence");
        let root = seen["root"].as_str().expect("a root").to_owned();
        root.parse::<Digest>().expect("a digest");
        (sequence, root)
    });
    each.collect()
}

#[tokio::test(start_paused = true)]
async fn each_device_keeps_what_it_saw() {
    let mut one = Bench::new().await;
    let mut other = Bench::of(one.fleet.again()).await;
    for bench in [&mut one, &mut other] {
        bench.become_honest();
        bench.run_first().await;
    }
    one.publish(FIRST + 1);
    // the signer gives the other device another release under the same sequence
    let mut bundle = Bundle::default();
    let text = manifest(&mut bundle, 666).to_string();
    other.truth = other.signed(FIRST + 1, bundle, &text);
    for bench in [&one, &other] {
        bench.become_honest();
        bench.run(bench.well()).await;
    }
    let (first, second) = (history(&one), history(&other));
    assert_eq!(first.len(), 2);
    assert_eq!(first[0], second[0], "the release before is one story");
    assert_eq!((first[1].0, second[1].0), (FIRST + 1, FIRST + 1));
    assert_ne!(first[1].1, second[1].1);
    // a device that is shown the other release later names both roots and keeps its own
    let before = other.state();
    other.offer(one.truth.clone(), "\"the other truth\"");
    let refused = |state: &_| says(state, "Refused", code::EQUIVOCATION.id);
    other.run(other.until("a refusal", refused)).await;
    assert!(other.state() == before);
    let state = other.server.state.borrow();
    let events = state.reports.iter().flat_map(|report| &report.events);
    let mut said = events.filter(|event| event.reason == "Refused");
    let said = &said.next().expect("an event").message;
    assert!(
        said.contains(&first[1].1) && said.contains(&second[1].1),
        "{said}"
    );
    assert_eq!(history(&other), second);
}
