//! The outcome of publishing a checkout: published, unchanged, refused, held, or an error.

use std::sync::Arc;

use flotta_bundle::code::{self, Code};
use flotta_renderer::{Counts, Finding, Rendered, Severity};

use super::details::Details;
use super::{OpenError, Published};
use crate::clock::InDoubt;
use crate::depot::DepotError;

/// Most errors of a refused commit that are named in a line; all of them are in the details.
const NAMED: usize = 5;

/// Why nothing was published although the commit may be valid.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The depot failed.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The depot has content that this fleet did not write.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The release key is not on the server.
    #[error("there is no release key in the data directory: releases are signed elsewhere")]
    NoKey,
    /// The clock is in doubt, so nothing is signed.
    #[error(transparent)]
    Clock(#[from] InDoubt),
    /// Rendering failed.
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

/// The errors for which a commit was refused.
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

/// A valid commit that is held for what it takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// `would remove till from 40 of 40 devices (limit 30 %)`.
    pub reason: String,
    /// What it removes.
    pub details: Details,
    /// What was rendered.
    pub counts: Counts,
}

/// The outcome of publishing a checkout.
#[derive(Debug)]
pub enum Outcome {
    /// A new release is in the depot.
    Published {
        /// The release.
        release: Arc<Published>,
        /// What was rendered.
        counts: Counts,
        /// Errors that hold single devices back, and warnings.
        findings: Vec<Finding>,
        /// How many devices keep what they have, because of errors that concern them alone.
        held: usize,
        /// Its details for people.
        details: Box<Details>,
    },
    /// The release in force is up to date.
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
