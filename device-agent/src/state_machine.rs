//! The agent's states, and the edges between them.

use flotta_bundle::wire::Phase;

/// A state of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The device belongs to no fleet yet.
    Unjoined,
    /// The machine is as wanted, or nothing is wanted yet.
    Idle,
    /// The agent fetches what the wanted manifest needs. Nothing has changed yet.
    Fetching,
    /// The agent changes the machine.
    Applying,
    /// Something failed; the agent will try again later.
    Waiting,
}

/// An edge that does not exist: a bug in this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no edge {edge} from {from:?}")]
pub struct NoEdge {
    /// The state that the agent was in.
    pub from: State,
    /// The edge that was asked for.
    pub edge: &'static str,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Unjoined,
        Self::Idle,
        Self::Fetching,
        Self::Applying,
        Self::Waiting,
    ];

    /// The device belongs to a fleet.
    pub fn joined(self) -> Result<Self, NoEdge> {
        self.to(Self::Idle, "joined", &[Self::Unjoined])
    }

    /// There is something to do: a new manifest, a start, a retry that is due. A newer manifest interrupts older work.
    pub fn begin(self) -> Result<Self, NoEdge> {
        let from = [Self::Idle, Self::Fetching, Self::Applying, Self::Waiting];
        self.to(Self::Fetching, "begin", &from)
    }

    /// All blobs are there.
    pub fn fetched(self) -> Result<Self, NoEdge> {
        self.to(Self::Applying, "fetched", &[Self::Fetching])
    }

    /// The machine is as wanted.
    pub fn done(self) -> Result<Self, NoEdge> {
        self.to(Self::Idle, "done", &[Self::Applying])
    }

    /// Something failed that a later try may fix.
    pub fn wait(self) -> Result<Self, NoEdge> {
        let from = [Self::Fetching, Self::Applying, Self::Idle];
        self.to(Self::Waiting, "wait", &from)
    }

    fn to(self, next: Self, edge: &'static str, from: &[Self]) -> Result<Self, NoEdge> {
        if from.contains(&self) {
            Ok(next)
        } else {
            Err(NoEdge { from: self, edge })
        }
    }

    /// The phase that a report gives for this state.
    pub fn phase(self) -> Phase {
        match self {
            Self::Unjoined | Self::Idle | Self::Waiting => Phase::Idle,
            Self::Fetching => Phase::Fetching,
            Self::Applying => Phase::Applying,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_drawing_shows_exactly_the_edges_that_there_are() {
        type Edge = fn(State) -> Result<State, NoEdge>;
        let edges: [(&str, Edge); 5] = [
            ("joined", State::joined),
            ("begin", State::begin),
            ("fetched", State::fetched),
            ("done", State::done),
            ("wait", State::wait),
        ];
        let mut here = BTreeSet::new();
        for from in State::ALL {
            for (name, edge) in edges {
                if let Ok(to) = edge(from) {
                    here.insert(format!("{from:?} -> {to:?} [label=\"{name}\"];"));
                }
            }
        }
        let drawn: BTreeSet<_> = include_str!("state_machine.dot")
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("->"))
            .map(str::to_owned)
            .collect();
        assert_eq!(here, drawn);
    }
}
