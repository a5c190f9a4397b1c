//! `flotta lint`.

use clap::{Args, ValueEnum};
use flotta_bundle::{Problem, code};
use flotta_reconciler::source;
use flotta_renderer::{Finding, Options, render};

use crate::error::{Answer, Coded};
use crate::print::{findings, github, sarif};
use crate::{output, print};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Human,
    /// A JSON array
    Json,
    /// SARIF 2.1.0, for code hosts and editors
    Sarif,
    /// Workflow commands of GitHub Actions
    Github,
}

/// The exit codes of `lint` and `render`.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 no errors, 1 errors, which refuse the commit or hold devices back, 2 it could not run.\n\
    Warnings change nothing.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
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
    /// Explain a code, such as FLT0103, and do nothing else
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
        let (findings, prefix) = (&rendered.findings, prefix(&self.source));
        let text = match self.output {
            Format::Human => findings::human(
                findings,
                &checkout.tree,
                &rendered.counts,
                &prefix,
                print::colours(&std::io::stdout()),
            ),
            Format::Json => findings::json(findings),
            Format::Sarif => sarif::sarif(findings, &prefix),
            Format::Github => github::github(findings, &rendered.counts, &prefix),
        };
        output::answer(&text)?;
        Ok(answer(findings))
    }
}

/// The answer for these findings, by [`EXIT_CODES`].
pub(super) fn answer(findings: &[Finding]) -> Answer {
    if findings.iter().any(Finding::is_error) {
        Answer::No
    } else {
        Answer::Yes
    }
}

/// Reads a source once.
pub(super) async fn read(text: &str, rev: Option<&str>) -> anyhow::Result<source::Checkout> {
    source::open(text, rev).await.map_err(|error| {
        let message = format!("{:#}", anyhow::Error::new(error));
        Coded(Problem::new(code::UNREADABLE, message)).into()
    })
}

/// The prefix that makes a path in the source one that can be opened from here. Empty for a URL.
pub(super) fn prefix(source: &str) -> String {
    match source.trim_end_matches('/') {
        "" | "." => String::new(),
        url if source::Url::parse(url).is_some() => String::new(),
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
