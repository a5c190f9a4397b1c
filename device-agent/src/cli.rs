//! The command line of `flotta-agent`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flotta_bundle::DeviceName;
use flotta_bundle::code::{self, Problem};

use crate::config::Config;
use crate::enrol::EnrolError;
use crate::ledger::{Ledger, LedgerError};
use crate::pull::{Proxies, chain};

mod diff;
mod enrol;
mod history;
mod screen;
mod status;
#[cfg(test)]
mod tests;
mod verify;

/// The agent of a device managed by Flotta: what the fleet's Git says is what this machine runs.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the answer is \"no\" (differences, not well, not verified, not joined), 2 error.\n\
                  Device names are NAMESPACE/NAME; a bare name is in namespace `default`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where the agent keeps keys, ledger and blobs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/flotta-agent"
    )]
    state: PathBuf,
    /// Where the agent keeps what need not outlive a reboot
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/flotta-agent",
        hide = true
    )]
    runtime: PathBuf,
    /// The root that the paths of a manifest are under
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/",
        hide = true
    )]
    root: PathBuf,
    /// Log more to stderr
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a fleet with a join file: flotta token create NAME > NAME.join
    Enrol(Enrol),
    /// Run the agent; systemd does this: flotta-agent.service
    Run,
    /// Show the state of this device: 0 well, 1 not
    Status(Output),
    /// Show what on this machine differs from the release: 0 nothing, 1 something
    Diff,
    /// Verify again everything the agent holds and the files it wrote: 0 verified, 1 not
    Verify,
    /// List the releases this device has accepted
    History(Output),
}

#[derive(Debug, Args)]
struct Enrol {
    /// The join file [default: the one waiting for approval, or /etc/flotta/join]
    #[arg(value_name = "JOINFILE")]
    file: Option<PathBuf>,
    /// Join as this device [default: as the join file says, or the host name]
    #[arg(long = "as", value_name = "NAMESPACE/NAME")]
    name: Option<DeviceName>,
    /// Wait this long for approval: 90s, 30m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Join again with new keys; until that is done the device keeps its identity
    #[arg(long)]
    reset: bool,
    /// Do not start flotta-agent.service
    #[arg(long)]
    no_start: bool,
}

#[derive(Debug, Args)]
struct Output {
    /// How to print
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The answer of a command, which sets its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl CliError {
    fn problem(&self) -> Option<Problem> {
        match self {
            Self::Enrol(error) => Some(error.problem()),
            Self::Ledger(error) => Some(Problem::new(code::LEDGER, chain(error))),
            Self::Problem(problem) => Some(Problem::clone(problem)),
            Self::Output(_) => None,
        }
    }
}

/// Sets up logging to stderr. Under systemd the journal has its own times.
pub fn log(cli: &Cli) {
    let level = match (&cli.command, cli.verbose) {
        (_, true) => tracing::Level::DEBUG,
        (Command::Run, false) => tracing::Level::INFO,
        _ => tracing::Level::WARN,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

/// Runs a command.
pub async fn run(cli: Cli) -> ExitCode {
    let config = Config {
        state: cli.state,
        runtime: cli.runtime,
        join: cli.root.join("etc/flotta/join"),
        root: cli.root,
        proxies: Proxies::of_environment(),
        ..Config::default()
    };
    let done = match cli.command {
        Command::Enrol(enrol) => Box::pin(enrol.run(&config)).await,
        Command::Run => match Box::pin(crate::run::run(&config)).await {
            Ok(()) => Ok(Answer::Yes),
            Err(error) => Err(error.into()),
        },
        Command::Status(output) => status::run(&config, output.output).await,
        Command::Diff => diff::run(&config).await,
        Command::Verify => verify::run(&config),
        Command::History(output) => history::run(&config, output.output),
    };
    let error = match done {
        Ok(Answer::Yes) => return ExitCode::SUCCESS,
        Ok(Answer::No) => return ExitCode::from(1),
        // the reader of a pipe has seen enough
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    let text = error
        .problem()
        .map_or_else(|| format!("error: {error}"), |problem| error_text(&problem));
    let _ = writeln!(std::io::stderr(), "{text}");
    match error {
        CliError::Enrol(
            EnrolError::Denied(_) | EnrolError::NotJoined | EnrolError::AlreadyJoined(_),
        ) => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

fn error_text(problem: &Problem) -> String {
    let mut text = format!("error[{}]: {}", problem.code, problem.text());
    if !problem.help.is_empty() {
        text.push_str("\n   = help: ");
        text.push_str(&problem.help);
    }
    text
}

fn print(text: &str) -> Result<(), CliError> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let mut json = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
    json.push('\n');
    print(&json)
}

/// Opens the ledger of a device that has joined, and creates nothing.
fn ledger(config: &Config) -> Result<Ledger, CliError> {
    let joined = crate::identity::joined(&config.identity()).map_err(EnrolError::from)?;
    joined.ok_or(EnrolError::NotJoined)?;
    Ok(Ledger::open(&config.state)?)
}

/// A length of time as people write it: `90s`, `30m`, `1h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write 90s, 30m or 1h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(factor) {
        // at most ten years: longer is a typing error
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}
