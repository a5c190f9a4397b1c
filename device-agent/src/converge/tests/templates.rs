//! Templates of systemd's own, and the instances that a socket makes of them.

use super::*;
use crate::backend::fake::Definition;

const TEMPLATE: &str = "/etc/systemd/system/echo@.service";
const CONNECTION: &str = "echo@3-10.0.0.1:7-10.0.0.2:40000.service";

fn echo() -> Bundle {
    Bundle::of(&[Workload::new("web")]).accept("echo")
}

#[test]
fn a_template_of_the_host_is_not_replaced() {
    let mut bench = Bench::new();
    let source = "/usr/lib/systemd/system/echo@.service".to_owned();
    let text = "[Service]\nExecStart=/usr/sbin/echod\n".to_owned();
    {
        let mut state = bench.world.state();
        let definition = Definition { source, text };
        state.host.insert("echo@.service".to_owned(), definition);
        state.reload();
    }
    let outcome = bench.converge(&echo());
    let (_, said) = problem(&outcome, "echo");
    assert_eq!(
        said,
        "FLT0504: unit echo@.service exists already, from /usr/lib/systemd/system/echo@.service"
    );
    assert!(!bench.world.state().files.contains_key(TEMPLATE));
    assert_eq!(bench.starts(), ["web.service"]);
}

#[test]
fn what_a_socket_has_started_is_stopped_when_its_workload_leaves() {
    let mut bench = Bench::new();
    assert!(bench.converge(&echo()).complete);
    {
        let mut state = bench.world.state();
        // another one of the host, which has a unit of its own for it
        let source = "/etc/systemd/system/echo@host.service".to_owned();
        let text = "[Service]\nExecStart=/usr/sbin/echod\n".to_owned();
        let definition = Definition { source, text };
        state
            .host
            .insert("echo@host.service".to_owned(), definition);
        state.reload();
        for unit in [CONNECTION, "echo@host.service"] {
            state.start(unit).expect("started");
        }
    }
    bench.world.log();
    assert!(
        bench
            .converge(&Bundle::of(&[Workload::new("web")]))
            .complete
    );
    let log = bench.world.log();
    let stops = ["echo.socket", CONNECTION].map(|unit| Action::Stop(unit.to_owned()));
    assert!(log.starts_with(&stops), "{log:?}");
    let state = bench.world.state();
    let up: Vec<_> = state.runs.iter().filter(|(_, run)| run.is_up()).collect();
    let up: Vec<_> = up.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(up, ["echo@host.service", "web.service"]);
    assert!(!state.files.contains_key(TEMPLATE));
}

#[test]
fn a_connection_that_does_not_end_keeps_its_files() {
    let mut bench = Bench::new();
    assert!(bench.converge(&echo()).complete);
    {
        let mut state = bench.world.state();
        state.start(CONNECTION).expect("started");
        state.faults.refused.insert(CONNECTION.to_owned());
    }
    let without = Bundle::of(&[Workload::new("web")]);
    assert!(!bench.converge(&without).complete);
    assert!(bench.world.state().files.contains_key(TEMPLATE));
    bench.world.state().faults.refused.clear();
    assert!(bench.converge(&without).complete);
    assert!(!bench.world.state().files.contains_key(TEMPLATE));
    let state = bench.world.state();
    assert!(state.runs.get(CONNECTION).is_none_or(|run| !run.is_up()));
}
