//! `flotta lint`.

use clap::{Args, ValueEnum};
use flotta_bundle::{Problem, code};
use flotta_reconciler::source;
use flotta_renderer::{Options, Severity, render};

use crate::error::{Answer, Coded};
use crate::print::findings;
use crate::{output, print};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Human,
    /// A JSON array
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Directory, read as it is on disk, or Git URL
    #[arg(default_value = ".")]
    source: String,
    /// Revision of the repository that the directory is in; branch of a Git URL
    #[arg(long)]
    rev: Option<String>,
    /// An image without a digest is an error
    #[arg(long)]
    require_digests: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Explain a code, as FLT0103, and do nothing else
    #[arg(long, value_name = "CODE")]
    explain: Option<String>,
}

impl Lint {
    pub(crate) async fn run(self) -> anyhow::Result<Answer> {
        if let Some(id) = &self.explain {
            return explain(id);
        }
        let checkout = read(&self.source, self.rev.as_deref()).await?;
        let options = Options {
            require_digests: self.require_digests,
        };
        let rendered = render(&checkout.input, &[], &options);
        let text = match self.output {
            Format::Human => findings::human(
                &rendered.findings,
                &checkout.tree,
                &rendered.counts,
                &prefix(&self.source),
                print::colours(&std::io::stdout()),
            ),
            Format::Json => findings::json(&rendered.findings),
        };
        output::answer(&text)?;
        let error = |finding: &flotta_renderer::Finding| finding.severity == Severity::Error;
        Ok(if rendered.findings.iter().any(error) {
            Answer::No
        } else {
            Answer::Yes
        })
    }
}

/// Reads a source once.
pub(super) async fn read(text: &str, rev: Option<&str>) -> anyhow::Result<source::Checkout> {
    source::open(text, rev).await.map_err(|error| {
        let message = format!("{:#}", anyhow::Error::new(error));
        Coded(Problem::new(code::UNREADABLE, message)).into()
    })
}

/// What stands before a path in the source, so that it can be opened from here. A URL's files are not here.
pub(super) fn prefix(source: &str) -> String {
    match source.trim_end_matches('/') {
        "" | "." => String::new(),
        url if url.contains("://") => String::new(),
        directory => format!("{directory}/"),
    }
}

fn explain(id: &str) -> anyhow::Result<Answer> {
    let Some(code) = code::ALL
        .iter()
        .find(|code| code.id.eq_ignore_ascii_case(id))
    else {
        output::talk(&format!("there is no code {id}"));
        return Ok(Answer::No);
    };
    output::answer(&format!(
        "{}  {}\n  what to do: {}\n",
        code.id, code.title, code.help
    ))?;
    Ok(Answer::Yes)
}
