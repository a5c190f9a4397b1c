//! `flotta`: the command line, and the server. Only arguments and printing; the code is in the crates.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::needless_pass_by_value,
        reason = "tests"
    )
)]

mod commands;
mod error;
mod output;
mod print;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

/// A held connection is a few hundred small allocations, a poll some twenty: see docs/decisions.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    let filter = EnvFilter::try_from_env("FLOTTA_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(print::colours(&std::io::stderr()))
        .with_target(false)
        .init();
    // the one provider for TLS; an error would mean that it is installed already
    let _ = rustls::crypto::ring::default_provider().install_default();
    match commands::run(cli) {
        Ok(answer) => answer.into(),
        Err(error) => error::report(&error),
    }
}
