//! Findings: what is wrong with the input, where, and what to do.

use flotta_bundle::{Code, DeviceName};
use serde::Serialize;

/// Whether a finding stops something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The commit, or the devices named, cannot have it.
    Error,
    /// It goes on; someone should look.
    Warning,
}

/// A place in a file of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Path within the tree.
    pub file: String,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// From 1, in characters; 0 when the whole file is meant.
    pub column: usize,
    /// Characters to underline; 0 when unknown.
    pub len: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// Something about the input that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it stops something.
    pub severity: Severity,
    /// The stable code's id: `FLT0103`.
    #[serde(serialize_with = "code_id")]
    pub code: Code,
    /// What is wrong, with the particulars.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to do here, when more is known than the code's general help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The devices it concerns; empty: the whole commit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceName>,
}

fn code_id<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.id)
}

impl Finding {
    /// An error that concerns the whole commit.
    pub fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place,
            help: None,
            devices: Vec::new(),
        }
    }

    /// A warning.
    pub fn warning(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, message)
        }
    }

    /// The same, with what to do here.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, concerning one device alone.
    #[must_use]
    pub fn on(mut self, device: &DeviceName) -> Self {
        self.devices.push(device.clone());
        self
    }

    /// Whether it refuses the whole commit.
    pub fn refuses_commit(&self) -> bool {
        self.severity == Severity::Error && self.devices.is_empty()
    }
}
