//! When the program ends because of its mounts.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_agent_ends_for_fresh_mounts_at_once_unless_those_did_not_help() {
    let bench = Bench::new();
    let mut ledger = bench.ledger();
    let offer = bench.offer(&ledger, 5, 60);
    let memory = ledger.memory().expect("begun").clone();
    let accepted = verify::verify_offer(&offer, &bench.device, &memory).expect("a good offer");
    ledger.accept(&offer, &accepted).expect("kept");
    drop(ledger);
    let run = async |shut_out| {
        bench.machine.shut_out.set(shut_out);
        let (mut agent, _wires) = bench.agent(bench.ledger());
        agent.ended_file = Some(bench.state.path().join("ended"));
        let ended = tokio::time::timeout(Duration::from_secs(120), agent.run()).await;
        matches!(ended, Ok(Err(Stop::ShutOut)))
    };
    assert!(!run(Some(false)).await, "the machine may not write either");
    for _ in 0..2 {
        assert!(run(Some(true)).await, "the next one has fresh mounts");
        assert!(!run(Some(true)).await, "which did not help");
        assert!(!run(None).await, "it can write");
    }
}
