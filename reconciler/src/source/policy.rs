//! What an error does, by how far it reaches.

use flotta_renderer::{Rendered, Scope, Severity};

/// Whether nothing of what was rendered may be released. A commit is taken as a whole or not at all: someone can fix it, and
/// half of it is not what was reviewed. Errors that reach some devices alone hold these back, and nobody else.
pub fn refuses(rendered: &Rendered) -> bool {
    rendered.findings.iter().any(|finding| {
        let reaches_further = match finding.scope {
            Scope::Commit | Scope::Object => true,
            Scope::Devices(_) => false,
        };
        finding.severity == Severity::Error && reaches_further
    })
}
