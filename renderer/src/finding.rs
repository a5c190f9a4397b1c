//! Findings: what is wrong with the input, where, and what to do.

use flotta_bundle::{Code, DeviceName};

use crate::place::Place;

/// Whether a finding stops something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// What the scope says cannot be rendered.
    Error,
    /// Rendering continues, but somebody should look at it.
    Warning,
}

/// What a finding concerns. What an error means there is the policy of the source: a commit may be refused as a whole, where a
/// cluster continues without the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The whole commit, because it is not known what else the source contains.
    Commit,
    /// The object that contains it.
    Object,
    /// Only these devices. They keep their current bundle.
    Devices(Vec<DeviceName>),
}

/// Something about the input that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops something.
    pub severity: Severity,
    /// The stable code's id: `FLT0103`.
    pub code: Code,
    /// What is wrong, in detail.
    pub message: String,
    /// Where it is.
    pub place: Place,
    /// What to do, if more is known than the general help of the code.
    pub help: Option<String>,
    /// What it concerns.
    pub scope: Scope,
}

impl Finding {
    /// Returns an error in the object that contains the place.
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

    /// Returns a warning.
    pub fn warning(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, place, message)
        }
    }

    /// Sets what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the scope.
    #[must_use]
    pub fn reaching(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Turns the finding into a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Returns the devices, if the scope is devices.
    pub fn devices(&self) -> &[DeviceName] {
        match &self.scope {
            Scope::Devices(devices) => devices,
            Scope::Commit | Scope::Object => &[],
        }
    }
}
