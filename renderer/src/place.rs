//! The place of something: in a file of a source, or in an object of a cluster.

use std::fmt;
use std::sync::Arc;

use crate::pointer::key;

/// A version of an object of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `EdgeWorkload`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID, which distinguishes it from earlier objects with its name.
    pub uid: String,
    /// Its generation, or its resource version if it has no generation.
    pub version: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The place of something in the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// There is nothing to point at.
    #[default]
    Nowhere,
    /// Among the devices that joined without an object.
    Inventory,
    /// In a file.
    File {
        /// Path within the source.
        file: String,
        /// From 1; 0 when the whole file is meant.
        line: usize,
        /// From 1, in characters; 0 when the whole file is meant.
        column: usize,
        /// Characters to underline; 0 when unknown.
        len: usize,
    },
    /// In an object of a cluster.
    Field {
        /// The object.
        object: Arc<ObjectRef>,
        /// JSON pointer (RFC 6901) of the field; empty when the whole object is meant.
        pointer: String,
    },
}

impl Place {
    /// A whole file.
    pub fn file(path: impl Into<String>) -> Self {
        Self::File {
            file: path.into(),
            line: 0,
            column: 0,
            len: 0,
        }
    }

    /// What it is in: the path of a file, or kind and name of an object. Empty when there is nothing to point at.
    pub fn document(&self) -> String {
        match self {
            Self::Nowhere => String::new(),
            Self::Inventory => "(inventory)".to_owned(),
            Self::File { file, .. } => file.clone(),
            Self::Field { object, .. } => object.to_string(),
        }
    }

    /// Line, column and length within a file; zeros where there is none.
    pub fn span(&self) -> (usize, usize, usize) {
        match self {
            Self::File {
                line, column, len, ..
            } => (*line, *column, *len),
            _ => (0, 0, 0),
        }
    }
}

impl fmt::Display for Place {
    /// `fleet/web.yaml:14:13`, or `EdgeWorkload default/web spec.pod.spec.containers[0].image`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.document())?;
        match self {
            Self::File { line, column, .. } if *line > 0 => write!(f, ":{line}:{column}"),
            Self::Field { pointer, .. } => {
                let mut before = " ";
                for step in pointer.split('/').skip(1) {
                    let step = key(step);
                    if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) {
                        write!(f, "[{step}]")?;
                    } else {
                        write!(f, "{before}{step}")?;
                    }
                    before = ".";
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
