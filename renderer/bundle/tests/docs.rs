//! Generates documentation from the types: all of `docs/errors.md`, and the tables of `docs/contract.md` between
//! `<!-- fields: TYPE -->` or `<!-- limits: MODULE -->` and `<!-- end -->`.
//!
//! With `FLOTTA_UPDATE_DOCS` these tests write the documents; without it, they compare.

#[path = "docs/reader.rs"]
mod reader;
#[path = "docs/writer.rs"]
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use reader::Source;

/// The command that fixes what these tests find.
const COMMAND: &str = "FLOTTA_UPDATE_DOCS=1 cargo test -p flotta-bundle --test docs";
/// Types that only the device uses, and which are not part of the contract.
const OWN: [&str; 2] = ["Memory", "Highest"];

fn sources() -> Vec<Source> {
    [
        ("code", include_str!("../src/code.rs")),
        ("envelope", include_str!("../src/envelope.rs")),
        ("health", include_str!("../src/health.rs")),
        ("leaf", include_str!("../src/leaf.rs")),
        ("manifest", include_str!("../src/manifest.rs")),
        ("name", include_str!("../src/name.rs")),
        ("path", include_str!("../src/path.rs")),
        ("release", include_str!("../src/release.rs")),
        ("root", include_str!("../src/root.rs")),
        ("tree", include_str!("../src/tree.rs")),
        ("verify", include_str!("../src/verify.rs")),
        ("wire", include_str!("../src/wire.rs")),
    ]
    .map(|(module, text)| Source::parse(module, text))
    .into()
}

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

/// Compares a document with what it should be, or writes it.
fn settle(name: &str, is: &str, should: &str) {
    if is == should {
        return;
    }
    if std::env::var_os("FLOTTA_UPDATE_DOCS").is_some() {
        // The other tests read it at the same time.
        let new = document(&format!(".{name}.new"));
        fs::write(&new, should).expect("a document that can be written");
        fs::rename(new, document(name)).expect("a document that can be replaced");
        return;
    }
    let line = is
        .lines()
        .zip(should.lines())
        .take_while(|(is, should)| is == should)
        .count();
    assert_eq!(
        is.lines().nth(line),
        should.lines().nth(line),
        "docs/{name}:{} is not what the types say (left: the document, right: the types). To regenerate it: {COMMAND}",
        line + 1
    );
    assert_eq!(
        is, should,
        "docs/{name} is not what the types say. To regenerate it: {COMMAND}"
    );
}

#[test]
fn errors_md_lists_every_code() {
    let is = fs::read_to_string(document("errors.md")).unwrap_or_default();
    settle("errors.md", &is, &writer::errors());
}

#[test]
fn contract_md_says_what_the_types_say() {
    let is = fs::read_to_string(document("contract.md")).expect("docs/contract.md");
    let should = writer::fill(&is, &sources()).expect("markers that can be filled");
    settle("contract.md", &is, &should);
}

#[test]
fn contract_md_leaves_no_type_and_no_limit_out() {
    let text = fs::read_to_string(document("contract.md")).expect("docs/contract.md");
    let sources = sources();
    for source in &sources {
        let items = source.items.iter().map(|item| item.name.as_str());
        for name in items.filter(|name| !OWN.contains(name)) {
            let marker = format!("<!-- fields: {name} -->");
            assert!(text.contains(&marker), "docs/contract.md lacks {marker}");
        }
        let marker = format!("<!-- limits: {} -->", source.module);
        assert!(
            source.limits.is_empty() || text.contains(&marker),
            "docs/contract.md lacks {marker}"
        );
    }
    // The reader found something at all.
    let count = |of: fn(&Source) -> usize| sources.iter().map(of).sum::<usize>();
    assert!(count(|source| source.items.len()) >= 25);
    assert!(count(|source| source.limits.len()) >= 20);
}

#[test]
fn a_changed_document_is_seen() {
    let is = fs::read_to_string(document("contract.md")).expect("docs/contract.md");
    for (from, to) in [
        ("| `schema` |", "| `scheme` |"),
        ("| 16 MiB |", "| 17 MiB |"),
    ] {
        assert!(is.contains(from), "{from}");
        let bent = is.replacen(from, to, 1);
        let fixed = writer::fill(&bent, &sources()).expect("markers that can be filled");
        assert_ne!(bent, fixed, "{to}");
    }
}

/// The reader is small: this is all that it knows, and it fails on everything else.
#[test]
fn the_reader_sees_fields_variants_and_limits() {
    let source = Source::parse(
        "sample",
        r#"
/// Most things.
pub const MAX_THINGS: usize = 1_000;
/// Longest thing, in bytes: as
/// long as it is.
pub const MAX_BYTES: u64 = 4 << 20;

/// A thing. See [`crate::other`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Thing {
    /// At most [`MAX_THINGS`].
    pub some_parts: Vec<String>,
    /// When, a | b.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// Which.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// This one.
    This,
    /// That one.
    That {
        /// Its thing.
        thing: Thing,
    },
}
"#,
    );
    let markers = ["fields: Thing", "fields: Which", "limits: sample"];
    let text = markers.map(|marker| format!("<!-- {marker} -->\nstale\n<!-- end -->\n"));
    let text = format!("### Thing\n{}", text.concat());
    let filled = writer::fill(&text, &[source]).expect("markers that can be filled");
    insta::assert_snapshot!(filled);
}

#[test]
fn markers_that_cannot_be_filled_are_refused() {
    for text in [
        "<!-- fields: Nothing -->\n<!-- end -->\n",
        "<!-- limits: nothing -->\n<!-- end -->\n",
        "<!-- fields: Leaf -->\nno end\n",
    ] {
        assert!(writer::fill(text, &sources()).is_err(), "{text}");
    }
}
