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
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(cli));
            // Looking up a name while no name server answers blocks a thread for longer than systemd waits.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
