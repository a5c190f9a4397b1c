//! Containers for health checks, and what happens when one is stopped.

use std::net::{IpAddr, Ipv4Addr};

use super::state::{State, restart};
use crate::backend::Container;

impl State {
    /// The container of a running unit: a new one with each start.
    pub(super) fn container(&self, name: &str) -> Option<Container> {
        let run = self.runs.get(&format!("{name}.service"))?;
        (run.active == "active").then(|| Container {
            id: run.invocation.clone(),
            address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        })
    }

    /// Stops a container behind systemd's back: systemd takes that for its end and restarts it.
    pub(super) fn end(&mut self, id: &str) -> bool {
        let mut runs = self.runs.iter_mut();
        let run = runs.find(|(_, run)| run.invocation == id && run.active == "active");
        let Some((name, run)) = run.map(|(name, run)| (name.clone(), run)) else {
            return false;
        };
        (run.active, run.sub, run.result, run.exit) = ("failed", "failed", "exit-code", 143);
        let restarts = run.restarts + 1;
        let definition = self.loaded.get(&name);
        if definition.is_some_and(|definition| restart(&definition.text) != "no")
            && self.start(&name).is_ok()
            && let Some(run) = self.runs.get_mut(&name)
        {
            run.restarts = restarts;
        }
        true
    }
}
