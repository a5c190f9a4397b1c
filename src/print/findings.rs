//! The findings of `flotta lint`, as rustc prints them: what, where, the line, what to do.

use std::collections::HashMap;
use std::fmt::Write;

use flotta_reconciler::source::Tree;
use flotta_renderer::{Counts, Finding, Severity};
use serde_json::json;

use super::table::one_line;
use super::{Style, count, paint};

/// Longest part of a source line that is shown.
const LINE: usize = 160;

/// All findings and a summary. `prefix` is the source as given, so that a path can be pasted into an editor.
pub(crate) fn human(
    findings: &[Finding],
    tree: &Tree,
    counts: &Counts,
    prefix: &str,
    colours: bool,
) -> String {
    let mut text = String::new();
    let mut lines = Lines::new(tree);
    for finding in findings {
        one(&mut text, finding, &mut lines, prefix, colours);
        text.push('\n');
    }
    text + &sum(findings, counts)
}

/// The lines of the files that findings are in. Each file is taken apart once, because a file may have as many findings as lines.
struct Lines<'a> {
    tree: &'a Tree,
    known: HashMap<String, Vec<&'a str>>,
}

impl<'a> Lines<'a> {
    fn new(tree: &'a Tree) -> Self {
        let known = HashMap::new();
        Self { tree, known }
    }

    fn get(&mut self, path: String, number: usize) -> Option<&'a str> {
        let tree = self.tree;
        let lines = self.known.entry(path).or_insert_with_key(|path| {
            let file = tree.files.iter().find(|file| file.path == *path);
            let text = file.and_then(|file| std::str::from_utf8(&file.content).ok());
            text.unwrap_or_default().lines().collect()
        });
        lines.get(number.checked_sub(1)?).copied()
    }
}

/// `1 error, 1 warning in 12 files (40 devices, 12 workloads)`.
pub(crate) fn sum(findings: &[Finding], counts: &Counts) -> String {
    let number = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
    let found = match (errors, warnings) {
        (0, 0) => "no findings".to_owned(),
        (_, 0) => count(errors, "error"),
        (0, _) => count(warnings, "warning"),
        _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    format!(
        "{found} in {} ({}, {})\n",
        count(counts.files, "file"),
        count(counts.devices, "device"),
        count(counts.workloads, "workload")
    )
}

fn one(text: &mut String, finding: &Finding, lines: &mut Lines<'_>, prefix: &str, colours: bool) {
    let (word, style) = match finding.severity {
        Severity::Error => ("error", Style::Bad),
        Severity::Warning => ("warning", Style::Busy),
    };
    let place = &finding.place;
    let word = paint(
        &format!("{word}[{}]", finding.code.id),
        Some(style),
        colours,
    );
    write(
        text,
        format_args!("{word}: {}\n", one_line(&finding.message)),
    );
    let place = place.to_string();
    if !place.is_empty() {
        write(text, format_args!("  --> {prefix}{}\n", one_line(&place)));
    }
    let help = finding.help.as_deref().map(one_line);
    let shown =
        finding.severity == Severity::Error && snippet(text, finding, lines, help.as_deref());
    match help {
        Some(help) if !shown => write(text, format_args!("   = help: {help}\n")),
        _ if finding.severity == Severity::Error => {
            write(
                text,
                format_args!(
                    "   = help: explained by `flotta lint --explain {}`\n",
                    finding.code.id
                ),
            );
        }
        _ => write(text, format_args!("   = help: {}\n", finding.code.help)),
    }
    if !finding.devices().is_empty() {
        write(text, format_args!("   = note: {}\n", devices(finding)));
    }
}

/// Prints the line with the place marked and the help next to it. Returns whether there is a line.
fn snippet(
    text: &mut String,
    finding: &Finding,
    lines: &mut Lines<'_>,
    help: Option<&str>,
) -> bool {
    let (number, column, length) = finding.place.span();
    let line = lines.get(finding.place.document(), number);
    let Some(line) = line else {
        return false;
    };
    let line: String = one_line(line).chars().take(LINE).collect();
    let start = column.saturating_sub(1).min(line.chars().count());
    let marks = length.clamp(1, (line.chars().count() - start).max(1));
    let number = number.to_string();
    let margin = " ".repeat(number.len().max(2));
    let help = help.map(|help| format!(" {help}")).unwrap_or_default();
    write(
        text,
        format_args!(
            "{margin} |\n{number:>2} | {line}\n{margin} | {:start$}{}{help}\n",
            "",
            "^".repeat(marks)
        ),
    );
    true
}

/// The devices that an error holds back, which keep what they have.
fn devices(finding: &Finding) -> String {
    let shown: Vec<String> = finding
        .devices()
        .iter()
        .take(3)
        .map(ToString::to_string)
        .collect();
    let more = finding.devices().len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let what = match finding.severity {
        Severity::Error => "held back",
        Severity::Warning => "on",
    };
    format!("{what}: {}{more}", shown.join(", "))
}

/// The findings for programs: a JSON array.
pub(crate) fn json(findings: &[Finding]) -> String {
    let list: Vec<_> = findings
        .iter()
        .map(|finding| {
            let (line, column, _) = finding.place.span();
            json!({
                "severity": match finding.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "code": finding.code.id,
                "message": finding.message,
                "file": finding.place.document(),
                "line": line,
                "column": column,
                "help": finding.help.as_deref().unwrap_or(finding.code.help),
                "devices": finding.devices(),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(list))
}

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes any text");
}
