//! What becomes of a checkout: published, unchanged, refused, held, or nothing, for want of something.

use std::sync::Arc;

use flotta_bundle::code::{self, Code};
use flotta_renderer::{Counts, Finding, Rendered, Severity};

use super::details::Details;
use super::{OpenError, Published};
use crate::clock::InDoubt;
use crate::depot::DepotError;

/// Most errors of a refused commit that a line names by their place; all of them are in the release's details.
const NAMED: usize = 5;

/// Why nothing was published, although the commit may be good.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The depot failed.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The depot holds what this fleet did not write.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The release key was taken away.
    #[error("there is no release key in the data directory: releases are signed elsewhere")]
    NoKey,
    /// Nothing is signed with a time that is likely wrong.
    #[error(transparent)]
    Clock(#[from] InDoubt),
    /// Rendering did not come to an end.
    #[error("rendering failed: {0}")]
    Render(String),
}

impl PublishError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Depot(error) => error.code(),
            Self::Open(_) => code::DEPOT,
            Self::NoKey => code::KEYS,
            Self::Clock(doubt) => doubt.code(),
            Self::Render(_) => code::REFUSED_COMMIT,
        }
    }
}

/// The errors for which a commit was not published.
#[derive(Debug, Clone)]
pub struct CommitErrors {
    /// Its errors, in the order of files.
    pub errors: Vec<Finding>,
}

impl std::fmt::Display for CommitErrors {
    /// `2 errors (FLT0103 fleet/workloads/web.yaml:14:13, FLT0101 fleet/devices.yaml:3:1)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.errors.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} error{plural}")?;
        for (error, n) in self.errors.iter().take(NAMED).zip(0..) {
            let before = if n == 0 { " (" } else { ", " };
            write!(f, "{before}{} {}", error.code.id, error.place)?;
        }
        match count {
            0 => Ok(()),
            1..=NAMED => f.write_str(")"),
            more => write!(f, ", and {} more)", more - NAMED),
        }
    }
}

/// A commit that is good and was not published, for what it takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// `would remove till from 40 of 40 devices (limit 30 %)`.
    pub reason: String,
    /// What goes, by name.
    pub details: Details,
    /// What was rendered.
    pub counts: Counts,
}

/// What became of a checkout.
#[derive(Debug)]
pub enum Outcome {
    /// A new release is in the depot.
    Published {
        /// It.
        release: Arc<Published>,
        /// What was rendered.
        counts: Counts,
        /// Errors that hold single devices back, and warnings.
        findings: Vec<Finding>,
        /// How many devices keep what they have, because of errors that concern them alone.
        held: usize,
        /// What it takes away, for people.
        details: Box<Details>,
    },
    /// The release in force says the same.
    Unchanged,
    /// The commit has errors; the release before stays in force.
    Refused(CommitErrors),
    /// The commit removes more than the fleet's limits allow; the release before stays in force.
    Held(Box<Holding>),
}

pub(super) fn errors_of(rendered: &Rendered) -> CommitErrors {
    let errors = rendered
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    CommitErrors {
        errors: errors.cloned().collect(),
    }
}
