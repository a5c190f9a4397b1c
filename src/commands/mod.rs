//! One file for each group of commands.
#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are the help that people read"
)]

mod backup;
mod check;
mod clock;
mod completion;
mod crds;
mod describe;
mod get;
mod join;
mod keys;
mod lint;
mod man;
mod release;
mod render;
mod serve;
mod token;
mod verify_history;
mod wait;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use flotta_bundle::DeviceName;
use flotta_reconciler::admin;
use flotta_reconciler::admin::client::Client;

use crate::error::Answer;

/// GitOps for edge devices: what is in Git is what every device runs.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the answer is \"no\" (findings, not ready, not there), 2 error.\n\
                  Device names are NAMESPACE/NAME; a bare name is in namespace `default`.\n\
                  FLOTTA_LOG sets what is logged to stderr: warn, info, debug."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: Server,
}

/// Which server a command talks to.
#[derive(Debug, Clone, Args)]
struct Server {
    /// Socket of the server's admin API [default: /run/flotta/admin.sock]
    #[arg(long, global = true, env = "FLOTTA_ADMIN", value_name = "SOCKET")]
    admin: Option<PathBuf>,
}

impl Server {
    fn client(&self) -> Client {
        Client::new(
            self.admin
                .as_deref()
                .unwrap_or(admin::DEFAULT_SOCKET.as_ref()),
        )
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: watch a source, publish signed releases, serve devices
    Serve(serve::Serve),
    /// Render a source: what every device would have, or a signed depot
    Render(render::Render),
    /// Check a source: 0 clean, 1 findings, 2 could not run
    Lint(lint::Lint),
    /// One-time tokens, for devices to join with
    #[command(subcommand)]
    Token(token::Token),
    /// Let a device join that asked to
    Approve(join::Approve),
    /// Refuse a device that asked to join
    Deny(join::Deny),
    /// Revoke a device's identity: it stops being served at once
    Revoke(join::Revoke),
    /// Decommission a device that is no longer in Git: it runs nothing from the next release on
    Decommission(release::Decommission),
    /// Decide about held commits
    #[command(subcommand)]
    Release(release::Release),
    /// The server's clock
    #[command(subcommand)]
    Clock(clock::Clock),
    /// List devices, workloads, requests, releases, events or tokens
    Get(get::Get),
    /// Show everything about one device, workload or release
    Describe(describe::Describe),
    /// Wait until a device is in a state: 0 it is, 1 it was not in time
    Wait(wait::Wait),
    /// The fleet's keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Copy everything that the server must not lose into one file; the server may be running
    Backup(backup::Backup),
    /// Make a data directory from a backup, or from the fleet's keys
    Restore(backup::Restore),
    /// Compare what two devices accepted: 0 one story, 1 two stories, 2 could not compare
    VerifyHistory(verify_history::VerifyHistory),
    /// Check the server itself: 0 it is well, 1 someone should look, 2 it does not serve
    Check(check::Check),
    /// The CRDs of all kinds, as YAML: flotta crds | kubectl apply -f -
    Crds,
    /// The JSON Schema of all kinds, for editors: flotta schema > flotta.schema.json
    Schema,
    /// Completion for a shell, on stdout
    Completion(completion::Completion),
    /// Manual pages
    #[command(hide = true)]
    Man(man::Man),
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Answer> {
    let client = cli.server.client();
    match cli.command {
        // the server uses every core; the other commands send one request
        Command::Serve(serve) => runtime(tokio::runtime::Builder::new_multi_thread())?
            .block_on(serve.run(cli.server.admin)),
        command => {
            runtime(tokio::runtime::Builder::new_current_thread())?.block_on(ask(command, &client))
        }
    }
}

async fn ask(command: Command, client: &Client) -> anyhow::Result<Answer> {
    match command {
        Command::Serve(_) => unreachable!("serve has a runtime of its own"),
        Command::Render(render) => render.run().await,
        Command::Lint(lint) => lint.run().await,
        Command::Token(token) => token.run(client).await,
        Command::Approve(approve) => approve.run(client).await,
        Command::Deny(deny) => deny.run(client).await,
        Command::Revoke(revoke) => revoke.run(client).await,
        Command::Decommission(decommission) => decommission.run(client).await,
        Command::Release(release) => release.run(client).await,
        Command::Clock(clock) => clock.run(client).await,
        Command::Get(get) => get.run(client).await,
        Command::Describe(describe) => describe.run(client).await,
        Command::Wait(wait) => wait.run(client).await,
        Command::Keys(keys) => keys.run(client).await,
        Command::Backup(backup) => backup.run().await,
        Command::Restore(restore) => restore.run(),
        Command::VerifyHistory(verify) => verify.run(),
        Command::Check(check) => check.run(client).await,
        Command::Crds => crds::crds(),
        Command::Schema => crds::schema(),
        Command::Completion(completion) => completion.run(),
        Command::Man(man) => man.run(),
    }
}

fn runtime(mut builder: tokio::runtime::Builder) -> std::io::Result<tokio::runtime::Runtime> {
    builder.enable_all().build()
}

/// Reads `KEY=VALUE` of a label.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| format!("`{text}` is not a label: write KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Combines `-n` with a name that may include its namespace.
fn device_name(name: &str, namespace: Option<&str>) -> anyhow::Result<DeviceName> {
    Ok(match (name.split_once('/'), namespace) {
        (None, Some(namespace)) => DeviceName::new(namespace, name)?,
        _ => name.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands on the recovery page are commands of this program.
    #[test]
    fn the_commands_of_the_recovery_page_are_commands() {
        let page = include_str!("../../docs/recovery.md");
        let in_blocks = page.lines().map(str::trim);
        let in_texts = page.split('`').skip(1).step_by(2);
        let mut tried = 0;
        for line in in_blocks.chain(in_texts) {
            let line = line.split(" > ").next().unwrap().replace("NAME", "shop");
            // a lone word is just the name of a command
            if !line.starts_with("flotta ") || line.split(' ').count() < 3 || line.contains('\n') {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("`{line}`: {error}");
            }
            tried += 1;
        }
        assert!(tried > 10, "{tried}");
    }
}
