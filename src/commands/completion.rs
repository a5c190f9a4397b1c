//! `flotta completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::error::Answer;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self) -> anyhow::Result<Answer> {
        let mut script = Vec::new();
        let mut command = super::Cli::command();
        clap_complete::generate(self.shell, &mut command, "flotta", &mut script);
        output::answer(&String::from_utf8(script)?)?;
        Ok(Answer::Yes)
    }
}
