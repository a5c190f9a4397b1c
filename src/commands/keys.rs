//! `flotta keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::FleetFacts;
use flotta_reconciler::backup;

use crate::error::Answer;
use crate::{output, print};

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Show the fleet's public keys and their fingerprints
    Show(Show),
    /// Copy the fleet's keys to a new folder, to be kept offline
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// JSON, with the whole fingerprints
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The folder to make
    #[arg(default_value = "flotta-keys")]
    out: PathBuf,
    /// The server's data directory
    #[arg(long, default_value = super::serve::DATA)]
    data: PathBuf,
}

impl Keys {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Show(show) => {
                let facts: FleetFacts = client.get("/v1/fleet").await?;
                let text = if show.json {
                    format!("{}\n", serde_json::to_string_pretty(&facts)?)
                } else {
                    print::start::keys(&facts)
                };
                output::answer(&text)?;
            }
            Self::Export(export) => {
                backup::export(&export.data, &export.out).map_err(super::backup::coded)?;
                let out = export.out.display();
                output::answer(&format!("{out}\n"))?;
                output::talk(&format!(
                    "the fleet's private keys are in {out}: who has them can sign for every device\n\
                     to restore:  flotta restore {out} --data DIR\n\
                     they do not include the list of devices: flotta backup does"
                ));
            }
        }
        Ok(Answer::Yes)
    }
}
