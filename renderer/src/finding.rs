//! Findings: what is wrong with the input, where, and what to do.

use flotta_bundle::{Code, DeviceName};

use crate::place::Place;

/// Whether a finding stops something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It cannot be compiled, as far as its scope reaches.
    Error,
    /// It goes on; someone should look.
    Warning,
}

/// How far a finding reaches. What an error does there is the policy of the source: a commit may be refused as a whole where a
/// cluster goes on without the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that is rendered together: what else the source holds is not known.
    Commit,
    /// The object that it stands in.
    Object,
    /// These devices, and nobody else: they keep what they have.
    Devices(Vec<DeviceName>),
}

/// Something about the input that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops something.
    pub severity: Severity,
    /// The stable code's id: `FLT0103`.
    pub code: Code,
    /// What is wrong, with the particulars.
    pub message: String,
    /// Where.
    pub place: Place,
    /// What to do here, when more is known than the code's general help.
    pub help: Option<String>,
    /// How far it reaches.
    pub scope: Scope,
}

impl Finding {
    /// An error in the object that the place is in.
    pub fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place,
            help: None,
            scope: Scope::Object,
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

    /// The same, reaching as far as this.
    #[must_use]
    pub fn reaching(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The same, but it stops nothing.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The devices that it reaches alone.
    pub fn devices(&self) -> &[DeviceName] {
        match &self.scope {
            Scope::Devices(devices) => devices,
            Scope::Commit | Scope::Object => &[],
        }
    }
}
