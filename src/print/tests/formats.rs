//! Findings for programs.

use std::collections::BTreeSet;

use flotta_bundle::code;
use flotta_reconciler::source::{Reader, Skipped, SourceFile, Tree};
use flotta_renderer::{Counts, Finding, Options, Place, render};
use insta::assert_snapshot;
use serde_json::Value;

/// Findings in a file whose name and text need escaping in each format.
fn odd_findings() -> (Vec<Finding>, Counts) {
    let content = "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata:\n  name: shop-1\n  labels: {\"50%: a, b\": 1}\n";
    let tree = Tree {
        files: vec![SourceFile {
            path: "shops, north/100%: a b.yaml".to_owned(),
            content: content.as_bytes().to_vec(),
        }],
        skipped: vec![("link.yaml".to_owned(), Skipped::NotFollowed)],
    };
    let rendered = render(&Reader::default().read(&tree), &[], &Options::default());
    (rendered.findings, rendered.counts)
}

#[test]
fn findings_are_workflow_commands() {
    let (findings, counts) = odd_findings();
    assert_snapshot!(super::super::github::github(&findings, &counts, "fleet/"));
}

/// Checks the required members of SARIF 2.1.0, and the constraints on the others that are used.
#[test]
fn findings_are_sarif() {
    let (mut findings, _) = odd_findings();
    let nowhere = Finding::warning(code::EMPTY, Place::Nowhere, "x");
    findings.push(nowhere);
    let text = super::super::sarif::sarif(&findings, "fleet/");
    let log: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let [run] = log["runs"].as_array().unwrap().as_slice() else {
        panic!("{text}");
    };
    let driver = &run["tool"]["driver"];
    assert!(driver["name"].is_string());
    let rules = driver["rules"].as_array().unwrap();
    let ids: BTreeSet<_> = rules
        .iter()
        .map(|rule| rule["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), rules.len(), "a rule is there once");
    for rule in rules {
        assert!(rule["shortDescription"]["text"].is_string() && rule["help"]["text"].is_string());
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), findings.len());
    for (result, finding) in results.iter().zip(&findings) {
        assert!(result["message"]["text"].is_string());
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["ruleId"], finding.code.id);
        for location in result["locations"].as_array().unwrap() {
            let physical = &location["physicalLocation"];
            let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
            assert!(
                uri.bytes().all(|b| b.is_ascii_graphic()) && !uri.contains(':'),
                "{uri}"
            );
            if let Some(region) = physical.get("region") {
                for member in ["startLine", "startColumn", "endColumn"] {
                    assert!(region[member].as_u64().unwrap() >= 1, "{region}");
                }
            }
        }
    }
    assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}
