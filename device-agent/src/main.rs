//! `flotta-agent`: the device side of Flotta. Only starts the runtime; the code is in the library.

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
            // A name lookup without an answer blocks a thread for longer than systemd waits for the process to exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
