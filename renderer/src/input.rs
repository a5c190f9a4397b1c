//! What is rendered: the objects of a source, decoded and checked, wherever they are from.

use std::sync::Arc;

use crate::check::Batch;
use crate::finding::Finding;

/// What a source holds. It keeps batches that did not change: nothing is read or checked twice.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// In the order of the source. Of two objects of one name the first counts.
    pub batches: Vec<Arc<Batch>>,
    /// What the source itself found: what it does not read.
    pub findings: Vec<Finding>,
}

impl FromIterator<Batch> for Input {
    fn from_iter<T: IntoIterator<Item = Batch>>(batches: T) -> Self {
        Self {
            batches: batches.into_iter().map(Arc::new).collect(),
            findings: Vec::new(),
        }
    }
}
