//! The input of a render: the objects of a source, decoded and checked.

use std::sync::Arc;

use crate::check::Batch;
use crate::finding::Finding;

/// The content of a source. Batches that did not change are kept, so that nothing is read or checked twice.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The batches, in the order of the source. The first of two objects with the same name counts.
    pub batches: Vec<Arc<Batch>>,
    /// Findings of the source itself, such as files that it does not read.
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
