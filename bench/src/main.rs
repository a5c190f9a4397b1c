//! `ci/bench`: arguments and printing.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use flotta_bench::{follow, measure};
use mimalloc::MiMalloc;

/// Renders are measured in this process, so it has the server's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Simulate many devices, and measure what they cost
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A fleet joins, follows commits and survives kills of the server; every device is checked
    Fleet {
        /// How many devices
        devices: usize,
        /// The program that serves them
        #[arg(long, value_name = "PROGRAM")]
        flotta: PathBuf,
    },
    /// Measure costs, as lines of a table
    Table {
        /// What to measure
        #[arg(default_values = measure::NAMES)]
        names: Vec<String>,
        /// How many devices hold a poll at once
        #[arg(long, default_value_t = 10_000)]
        devices: usize,
        /// The program that serves them
        #[arg(long, value_name = "PROGRAM")]
        flotta: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Fleet { devices, flotta } => {
            let followed = follow::follow(&flotta, devices, |what| eprintln!("{what}")).await?;
            println!("{followed:#?}");
        }
        What::Table {
            names,
            devices,
            flotta,
        } => {
            println!("| what | figure |\n|---|---|");
            for name in names {
                eprintln!("{name}");
                for line in measure::measure(&name, &flotta, devices).await? {
                    println!("| {} | {} |", line.what, line.figure);
                }
            }
        }
    }
    Ok(())
}
