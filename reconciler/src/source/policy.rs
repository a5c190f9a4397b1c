//! Decides whether errors refuse a commit.

use flotta_renderer::{Rendered, Scope, Severity};

/// Whether the commit must be refused. It is published as a whole or not at all: a person can fix it, and half of it is not
/// what was reviewed. Errors that concern only some devices hold back only these.
pub fn refuses(rendered: &Rendered) -> bool {
    rendered.findings.iter().any(|finding| {
        let reaches_further = match finding.scope {
            Scope::Commit | Scope::Object => true,
            Scope::Devices(_) => false,
        };
        finding.severity == Severity::Error && reaches_further
    })
}
