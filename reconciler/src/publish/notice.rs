//! The server's messages about its source, one line each.

use std::fmt;
use std::time::Duration;

use flotta_renderer::Counts;

use crate::clock::Change;
use crate::text::plain;

/// Longest message, in characters; git's own messages are cut to less.
const MAX_MESSAGE: usize = 4096;

/// An event between the source and the release in force.
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
        /// A release that devices had accepted and this server did not know.
        above: Option<u64>,
        /// How long rendering, signing and writing took.
        took: Duration,
        /// How many manifests the devices share.
        manifests: usize,
        /// How many devices keep what they have, because of errors that concern them alone.
        held: usize,
        /// How many devices left Git with it and keep what they run.
        left: u64,
    },
    /// The release in force is up to date with the source.
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
    /// A commit that removes more than the fleet's limits allow.
    Held {
        /// `main@77ab01c`.
        label: String,
        /// What was rendered.
        counts: Counts,
        /// `would remove till from 40 of 40 devices (limit 30 %)`.
        reason: String,
        /// `77ab01c`.
        commit: String,
    },
    /// The branch was reset or rewritten.
    Moved {
        /// `main@4f2c91a`.
        label: String,
        /// What happened.
        message: String,
    },
    /// The source cannot be reached, or what it holds cannot be published.
    Failed {
        /// Whether the source failed, as opposed to publishing.
        source: bool,
        /// What failed, with its causes.
        message: String,
        /// The release in force.
        in_force: Option<u64>,
    },
    /// The source can be reached again.
    Recovered,
    /// The server's clock is in doubt: nothing is signed.
    ClockDoubted {
        /// The reason with its code.
        message: String,
    },
    /// The server's clock is right again.
    ClockRight,
}

impl From<&Change> for Notice {
    fn from(change: &Change) -> Self {
        match change {
            Change::Doubted(doubt) => Self::ClockDoubted {
                message: doubt.problem().to_string(),
            },
            Change::Right => Self::ClockRight,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published {
                label,
                counts,
                sequence,
                above,
                took,
                manifests,
                held,
                left,
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
                if let Some(above) = above {
                    write!(f, "; devices had accepted release {above}")?;
                }
                if *held > 0 {
                    let held = count(*held, "device");
                    write!(f, "; {held} held back by errors (see: flotta get events)")?;
                }
                match left {
                    0 => Ok(()),
                    1 => f.write_str("; 1 device left Git and keeps what it runs"),
                    left => write!(f, "; {left} devices left Git and keep what they run"),
                }
            }
            Self::Held {
                label,
                counts,
                reason,
                commit,
            } => {
                let reason = plain(reason, MAX_MESSAGE);
                write!(
                    f,
                    "source  {label}  {}, {}: release held: it {reason}\n        \
                     what goes: flotta describe release {commit}     let it through: flotta release allow {commit}",
                    count(counts.files, "file"),
                    count(counts.devices, "device"),
                )
            }
            Self::Moved { label, message } => {
                write!(f, "source  {label}  {}", plain(message, MAX_MESSAGE))
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
            Self::Failed {
                source,
                message,
                in_force,
            } => {
                let what = if *source {
                    "source unavailable"
                } else {
                    "no release can be made"
                };
                let message = plain(message, MAX_MESSAGE);
                write!(f, "{what}: {message}; {}", stays(*in_force))
            }
            Self::Recovered => f.write_str("source available again"),
            Self::ClockDoubted { message } => {
                let message = plain(message, MAX_MESSAGE);
                write!(
                    f,
                    "clock   {message}; until then nothing is signed, and the release in force is still served"
                )
            }
            Self::ClockRight => f.write_str("clock   right again"),
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
