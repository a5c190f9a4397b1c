//! `docs/conditions.md` is generated from the words of conditions.
//!
//! Without `FLOTTA_UPDATE_DOCS` this test compares, with it it writes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use flotta_api::condition::{ConditionStatus, ConditionType, Reason};

const COMMAND: &str = "FLOTTA_UPDATE_DOCS=1 cargo test -p flotta-api --test docs";

const HEAD: &str = "\
# Conditions of a device

A device has six conditions, always all of them and in this order. `flotta describe device NAME` shows them,
`flotta wait device NAME --for condition=TYPE=STATUS` waits for one, and `flotta get devices -o json` has them as Kubernetes writes them.
Types and reasons never change their meaning: scripts and alerts may rely on them. Messages are for people and may change.
A device that has not joined has `Ready` alone.
";

fn table(head: &str, rows: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let mut text = format!("\n| {head} | means |\n|---|---|\n");
    for (word, meaning) in rows {
        let _ = writeln!(text, "| `{word}` | {meaning} |");
    }
    text
}

#[test]
fn conditions_md_has_every_word() {
    let types = ConditionType::ALL.iter();
    let statuses = ConditionStatus::ALL.iter();
    let reasons = Reason::ALL.iter();
    let should = [
        HEAD,
        &table("type", types.map(|word| (word.as_str(), word.meaning()))),
        &table(
            "status",
            statuses.map(|word| (word.as_str(), word.meaning())),
        ),
        &table(
            "reason",
            reasons.map(|word| (word.as_str(), word.meaning())),
        ),
        &format!("\nThis page is generated: `{COMMAND}`.\n"),
    ]
    .concat();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conditions.md");
    let is = fs::read_to_string(&path).unwrap_or_default();
    if is != should && std::env::var_os("FLOTTA_UPDATE_DOCS").is_some() {
        fs::write(&path, should).expect("a document that can be written");
        return;
    }
    assert_eq!(
        is, should,
        "docs/conditions.md is out of date. To regenerate it: {COMMAND}"
    );
}
