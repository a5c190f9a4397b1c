//! `flotta man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use crate::error::Answer;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write the pages of all commands into this folder; without it, the page of `flotta` to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<Answer> {
        let command = super::Cli::command();
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out)
                .and_then(|()| clap_mangen::generate_to(command, out))
                .with_context(|| format!("{}: the pages were not written", out.display()))?;
        } else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output::answer(&String::from_utf8(page)?)?;
        }
        Ok(Answer::Yes)
    }
}
