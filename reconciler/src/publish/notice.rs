//! What the server says of its source, a line at a time.

use std::fmt;
use std::time::Duration;

use flotta_renderer::Counts;

use crate::text::plain;

/// Longest message, in characters: what git says is cut to less.
const MAX_MESSAGE: usize = 4096;

/// Something that happened between the source and the release in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A release was made.
    Published {
        /// `main@4f2c91a`.
        label: String,
        /// What was rendered.
        counts: Counts,
        /// The release.
        sequence: u64,
        /// How long rendering, signing and writing took.
        took: Duration,
        /// How many manifests the devices share.
        manifests: usize,
        /// How many devices keep what they have, because of errors that concern them alone.
        held: usize,
    },
    /// The release in force says the same as the source.
    Unchanged {
        /// `main@4f2c91a`.
        label: String,
        /// The release in force.
        sequence: u64,
    },
    /// A commit with errors.
    Refused {
        /// `main@9e1d3c0`.
        label: String,
        /// `1 error (FLT0103 fleet/workloads/web.yaml:14)`.
        refusal: String,
        /// The release in force.
        in_force: Option<u64>,
    },
    /// The source, or something needed to publish it, cannot be reached.
    Failed {
        /// What failed, with its causes.
        message: String,
        /// The release in force.
        in_force: Option<u64>,
    },
    /// The source can be reached again.
    Recovered,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published {
                label,
                counts,
                sequence,
                took,
                manifests,
                held,
            } => {
                write!(
                    f,
                    "source  {label}  {}, {}, {}: release {sequence} in {} ms, {}",
                    count(counts.files, "file"),
                    count(counts.devices, "device"),
                    count(counts.workloads, "workload"),
                    took.as_millis(),
                    count(*manifests, "manifest"),
                )?;
                match held {
                    0 => Ok(()),
                    _ => write!(
                        f,
                        "; {} held back by errors (see: flotta get events)",
                        count(*held, "device")
                    ),
                }
            }
            Self::Unchanged { label, sequence } => {
                write!(
                    f,
                    "source  {label}  as in release {sequence}, which stays in force"
                )
            }
            Self::Refused {
                label,
                refusal,
                in_force,
            } => {
                let refusal = plain(refusal, MAX_MESSAGE);
                write!(f, "source {label} refused: {refusal}; {}", stays(*in_force))
            }
            Self::Failed { message, in_force } => {
                let message = plain(message, MAX_MESSAGE);
                write!(f, "source unavailable: {message}; {}", stays(*in_force))
            }
            Self::Recovered => f.write_str("source available again"),
        }
    }
}

fn stays(in_force: Option<u64>) -> String {
    match in_force {
        Some(sequence) => format!("release {sequence} stays in force"),
        None => "there is no release yet".to_owned(),
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
