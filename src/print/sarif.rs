//! Findings as SARIF 2.1.0 (OASIS), which code hosts and editors read.

use std::collections::BTreeMap;

use flotta_bundle::Code;
use flotta_renderer::{Finding, Place, Severity};
use serde_json::{Value, json};

/// A log with one run. `prefix` is the source as given, relative to the working directory.
pub(crate) fn sarif(findings: &[Finding], prefix: &str) -> String {
    let codes: BTreeMap<_, _> = findings.iter().map(|f| (f.code.id, f.code)).collect();
    let rules: Vec<_> = codes.values().map(rule).collect();
    let index = |code: Code| codes.keys().position(|id| *id == code.id);
    let results = findings.iter().map(|finding| {
        json!({
            "ruleId": finding.code.id,
            "ruleIndex": index(finding.code),
            "level": level(finding.severity),
            "message": {"text": text(finding)},
            "locations": location(&finding.place, prefix).as_slice(),
        })
    });
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "flotta",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    });
    format!("{log:#}\n")
}

fn rule(code: &Code) -> Value {
    json!({
        "id": code.id,
        "shortDescription": {"text": code.title},
        "help": {"text": code.help},
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// The message, with help that is more specific than the rule's.
pub(super) fn text(finding: &Finding) -> String {
    match &finding.help {
        Some(help) => format!("{}\n{help}", finding.message),
        None => finding.message.clone(),
    }
}

fn location(place: &Place, prefix: &str) -> Option<Value> {
    let Place::File { file, .. } = place else {
        let name = place.to_string();
        let named = json!({"logicalLocations": [{"fullyQualifiedName": name}]});
        return (!name.is_empty()).then_some(named);
    };
    let mut physical = json!({"artifactLocation": {"uri": uri(&format!("{prefix}{file}"))}});
    let (line, column, length) = place.span();
    if line > 0 {
        physical["region"] = json!({"startLine": line});
        if column > 0 {
            physical["region"]["startColumn"] = json!(column);
            physical["region"]["endColumn"] = json!(column + length.max(1));
        }
    }
    Some(json!({"physicalLocation": physical}))
}

/// A path as a URI reference: other characters are percent-encoded.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@!$&()*+,;=".contains(&byte);
    let encoded = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    path.bytes().map(encoded).collect()
}
