//! Findings as workflow commands of GitHub Actions, which shows each at its line of the pull request.

use flotta_renderer::{Counts, Finding, Severity};

use super::findings::sum;
use super::sarif::text;

/// One command for each finding, and a summary for the log.
pub(crate) fn github(findings: &[Finding], counts: &Counts, prefix: &str) -> String {
    let lines = findings.iter().map(|finding| command(finding, prefix));
    lines.collect::<String>() + &sum(findings, counts)
}

fn command(finding: &Finding, prefix: &str) -> String {
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut properties = Vec::new();
    let document = finding.place.document();
    if matches!(finding.place, flotta_renderer::Place::File { .. }) {
        properties.push(format!("file={}", property(&format!("{prefix}{document}"))));
    }
    let (line, column, length) = finding.place.span();
    if line > 0 {
        let end = column + length.max(1);
        properties.push(format!("line={line},col={column},endColumn={end}"));
    }
    let title = format!("{} {}", finding.code.id, finding.code.title);
    properties.push(format!("title={}", property(&title)));
    format!(
        "::{word} {}::{}\n",
        properties.join(","),
        data(&text(finding))
    )
}

/// Escapes like `escapeData` of actions/toolkit.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes like `escapeProperty` of actions/toolkit.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
