//! `flotta-agent`: the device side of Flotta. Arguments and wiring; what it does is in the crate.

use std::process::ExitCode;

use clap::Parser as _;
use flotta_agent::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::log(&cli);
    // one thread: an edge device's other cores are for its workloads
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
