//! Writes Markdown from what the reader found.

use std::fmt::Write as _;

use flotta_bundle::code;

use super::reader::{Item, Limit, Member, Source};

/// The sections of codes, by the first two digits.
const PLACES: [(&str, &str, &str); 6] = [
    (
        "FLT01",
        "Input",
        "Errors in what is committed. Those of one object refuse the commit; those of what objects mean together hold the devices they concern.",
    ),
    ("FLT02", "Warnings about input", "They stop nothing."),
    (
        "FLT03",
        "What a device refuses",
        "The device keeps what it has, and says so in its report.",
    ),
    (
        "FLT04",
        "Joining and the edge API",
        "Answers of the server to a device, or of the admin socket to a person.",
    ),
    (
        "FLT05",
        "Applying on a device",
        "In a device's report: of a workload, or of the device.",
    ),
    (
        "FLT06",
        "The server's own work",
        "In the server's log, and in answers where it cannot do what it was asked.",
    ),
];

/// `docs/errors.md`.
pub(crate) fn errors() -> String {
    let mut text = "# Error codes\n\n<!-- Generated from `renderer/bundle/src/code.rs`: FLOTTA_UPDATE_DOCS=1 cargo test -p flotta-bundle --test docs -->\n\nEvery error and warning that a person sees has a code. A code never changes its meaning and is never used again: it is what\nto search for, what a test asserts, what a dashboard groups by. The message next to it has the particulars.\n".to_owned();
    let mut count = 0;
    for (prefix, title, about) in PLACES {
        let _ = write!(
            text,
            "\n## {title}\n\n{about}\n\n| code | what happened | what to do |\n|---|---|---|\n"
        );
        for code in code::ALL.iter().filter(|code| code.id.starts_with(prefix)) {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} |",
                code.id,
                cell(code.title),
                cell(code.help)
            );
            count += 1;
        }
    }
    assert_eq!(count, code::ALL.len(), "a code without a place");
    text
}

/// Returns the document with new text between its markers.
pub(crate) fn fill(document: &str, sources: &[Source]) -> Result<String, String> {
    let mut text = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let marker = line
            .strip_prefix("<!-- ")
            .and_then(|line| line.strip_suffix(" -->"));
        let made = match marker.and_then(|marker| marker.split_once(": ")) {
            Some(("fields", name)) => fields(name, sources, document)?,
            Some(("limits", module)) => limits(module, sources)?,
            _ => continue,
        };
        text.push_str(&made);
        lines
            .find(|line| *line == "<!-- end -->")
            .ok_or_else(|| format!("{line} has no end"))?;
        text.push_str("<!-- end -->\n");
    }
    Ok(text)
}

fn fields(name: &str, sources: &[Source], document: &str) -> Result<String, String> {
    let mut found = sources.iter().flat_map(|source| {
        let items = source.items.iter().filter(|item| item.name == name);
        items.map(move |item| (source, item))
    });
    let (source, item) = found.next().ok_or_else(|| format!("no type {name}"))?;
    if found.next().is_some() {
        return Err(format!("two types {name}"));
    }
    let mut text = format!("{}\n\n", prose(&item.doc, source));
    text.push_str(if item.is_enum {
        "| value | is |\n|---|---|\n"
    } else {
        "| field | type | is |\n|---|---|---|\n"
    });
    for member in &item.members {
        let _ = writeln!(text, "{}", row(item, member, source, document));
    }
    Ok(text)
}

fn row(item: &Item, member: &Member, source: &Source, document: &str) -> String {
    let doc = cell(&prose(&member.doc, source));
    if !item.is_enum {
        let kind = kind(&member.kind, document);
        let optional = if member.optional { ", optional" } else { "" };
        return format!("| `{}` | {kind}{optional} | {doc} |", member.name);
    }
    let mut text = format!("| `{}` | {doc}", member.name);
    for field in &member.fields {
        let doc = cell(&prose(&field.doc, source));
        let _ = write!(
            text,
            " `{}` ({}): {doc}",
            field.name,
            kind(&field.kind, document)
        );
    }
    text + " |"
}

/// Returns a type in words, with a link if the type has a heading in the document.
fn kind(rust: &str, document: &str) -> String {
    let inside = |outer: &str| rust.strip_prefix(outer)?.strip_suffix('>');
    if let Some(inner) = inside("Option<") {
        return kind(inner, document);
    }
    if let Some(inner) = inside("Vec<") {
        let one = kind(inner, document);
        let plural = if one.starts_with('[') { "" } else { "s" };
        return format!("list of {one}{plural}");
    }
    match rust {
        "u16" | "u32" | "u64" | "usize" => "integer".to_owned(),
        "bool" => "true or false".to_owned(),
        "String" | "Token" => "string".to_owned(),
        "BTreeMap<String, String>" => "map of strings".to_owned(),
        "Digest" => "digest".to_owned(),
        "Timestamp" => "time".to_owned(),
        "DevicePath" => "path".to_owned(),
        "DeviceName" => "device name".to_owned(),
        "FleetName" => "fleet name".to_owned(),
        "PublicKey" => "public key".to_owned(),
        "Mode" => "mode".to_owned(),
        name => {
            let heading = format!("### {name}");
            assert!(
                document.lines().any(|line| line == heading),
                "docs/contract.md has no heading {heading:?} to link to"
            );
            format!("[{name}](#{})", name.to_lowercase())
        }
    }
}

fn limits(module: &str, sources: &[Source]) -> Result<String, String> {
    let source = sources
        .iter()
        .find(|source| source.module == module && !source.limits.is_empty())
        .ok_or_else(|| format!("no limits in {module}"))?;
    let mut text = "| limit | value | is |\n|---|---|---|\n".to_owned();
    for limit in &source.limits {
        let doc = cell(&prose(&limit.doc, source));
        let _ = writeln!(text, "| `{}` | {} | {doc} |", limit.name, value(limit)?);
    }
    Ok(text)
}

fn value(limit: &Limit) -> Result<String, String> {
    let texts: Vec<_> = limit.value.split('"').skip(1).step_by(2).collect();
    if !texts.is_empty() {
        return Ok(texts
            .iter()
            .map(|text| format!("`{text}`"))
            .collect::<Vec<_>>()
            .join(", "));
    }
    let number = |text: &str| text.replace('_', "").parse::<u64>();
    let found = match limit.value.split_once(" << ") {
        Some((number_, by)) => number(number_).and_then(|n| Ok(n << number(by)?)),
        None => number(&limit.value),
    };
    let number = found.map_err(|_| format!("{}: cannot read {:?}", limit.name, limit.value))?;
    Ok(match number {
        n if limit.name.contains("BYTES") && n >= 1 << 20 && n % (1 << 20) == 0 => {
            format!("{} MiB", n >> 20)
        }
        n if limit.name.contains("BYTES") && n >= 1 << 10 && n % (1 << 10) == 0 => {
            format!("{} KiB", n >> 10)
        }
        n => grouped(n),
    })
}

/// Formats 10000 as `10,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Converts a doc comment to Markdown: links to constants of the module become their values.
fn prose(doc: &str, source: &Source) -> String {
    let mut text = String::new();
    let mut rest = doc;
    while let Some((before, after)) = rest.split_once("[`") {
        let (name, after) = after.split_once("`]").expect("a link has an end");
        text.push_str(before);
        let limit = source.limits.iter().find(|limit| limit.name == name);
        match limit.map(value) {
            Some(Ok(value)) => text.push_str(&value),
            _ => {
                let _ = write!(text, "`{}`", name.rsplit("::").next().unwrap_or(name));
            }
        }
        rest = after;
    }
    text + rest
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
