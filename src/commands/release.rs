//! `flotta release`: decisions about held commits; `flotta decommission`.

use clap::{Args, Subcommand};
use flotta_bundle::DeviceName;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::{Allowance, Allowed, Decided, Decommission as Request};

use crate::error::Answer;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// Let a held commit through; with the commit in force, decommission the devices that left Git
    Allow(Allow),
}

#[derive(Debug, Args)]
pub(crate) struct Allow {
    /// The commit, or its beginning, as `flotta get releases` shows it
    commit: String,
}

impl Release {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let Self::Allow(Allow { commit }) = self;
        let allowance = Allowance { commit };
        let allowed: Allowed = client.post("/v1/releases/allow", &allowance).await?;
        let commit = allowed.commit.trim_start_matches("sha256:");
        let short = commit.get(..7).unwrap_or(commit);
        output::answer(&format!("{short} allowed\n"))?;
        output::talk("it is published now; see: flotta get releases");
        Ok(Answer::Yes)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Decommission {
    /// The device: NAMESPACE/NAME or NAME. It must no longer be in Git
    device: DeviceName,
}

impl Decommission {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let device = self.device;
        let request = Request { device };
        let decided: Decided = client.post("/v1/decommission", &request).await?;
        super::join::done(&decided, "decommissioned")?;
        output::talk(&format!(
            "the next release has nothing for it to run; to end its identity then: flotta revoke {}",
            decided.device
        ));
        Ok(Answer::Yes)
    }
}
