//! `flotta check`.

use clap::{Args, ValueEnum};
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::check::{Check as Answered, Grade};

use crate::error::Answer;
use crate::{output, print};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes, as monitoring expects them: 0 all is well, 1 someone should look, 2 devices are not served,\n\
                  or the server does not answer."
)]
pub(crate) struct Check {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

impl Check {
    pub(crate) async fn run(&self, client: &Client) -> anyhow::Result<Answer> {
        let check: Answered = client.get("/v1/check").await?;
        output::answer(&match self.output {
            Format::Text => print::check::screen(&check, print::colours(&std::io::stdout())),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&check)?),
        })?;
        Ok(match check.grade {
            Grade::Ok => Answer::Yes,
            Grade::Warning => Answer::No,
            Grade::Critical => Answer::Broken,
        })
    }
}
