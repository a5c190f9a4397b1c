//! `/etc/flotta/policy.toml`: what the device's owner allows a release to do.
//!
//! ```toml
//! # folders beyond the ones that every release may use
//! allow = ["/etc/myapp/"]
//! ```

use std::ops::Range;
use std::path::Path;

use flotta_bundle::Manifest;
use flotta_bundle::code::{self, Problem};
use flotta_bundle::policy::Policy;
use flotta_bundle::verify::Refusal;
use serde::Deserialize;
use toml::Spanned;

use crate::durable;

/// Longest file, in bytes: a policy is a few lines.
const MAX_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
}

/// Reads the policy. A policy with an error is reported, and counts as an empty one. A policy only adds folders, so an empty one
/// never allows more than the owner wrote, and a typing error does not stop updates that need only the default folders. A key
/// that forbids something would have to be handled differently.
pub fn read(path: &Path) -> (Policy, Option<Problem>) {
    match text(path).and_then(|text| text.map_or(Ok(Policy::default()), |text| parse(&text))) {
        Ok(policy) => (policy, None),
        Err(why) => {
            let what = format!("{}{why}", path.display());
            (Policy::default(), Some(Problem::new(code::POLICY, what)))
        }
    }
}

/// Returns what is wrong with the policy, and which path of a manifest it forbids.
pub fn problems(path: &Path, manifest: &Manifest) -> (Option<Problem>, Option<Problem>) {
    let (policy, problem) = read(path);
    let forbidden = policy.check_manifest(manifest).map_err(Refusal::from);
    (problem, forbidden.err().map(|refusal| refusal.problem()))
}

fn text(path: &Path) -> Result<Option<String>, String> {
    // reading a pipe would block
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return Err(": it is not a plain file".to_owned());
    }
    let bytes = durable::read(path, MAX_BYTES).map_err(|error| format!(": {error}"))?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|_| ": it is not text".to_owned())
}

/// Parses a policy. An error begins with its place.
fn parse(text: &str) -> Result<Policy, String> {
    let at = |span: Option<Range<usize>>, why: &str| {
        let place = span.map(|span| place(text, span.start)).unwrap_or_default();
        format!("{place}: {why}")
    };
    let file: File = toml::from_str(text).map_err(|error| at(error.span(), error.message()))?;
    let mut policy = Policy::default();
    for prefix in file.allow {
        let allowed = policy.allow(prefix.get_ref());
        allowed.map_err(|error| at(Some(prefix.span()), &error.to_string()))?;
    }
    Ok(policy)
}

/// Returns `:LINE:COLUMN` of an offset in a text, both from 1.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let lines = before.matches('\n').count();
    format!(":{}:{}", lines + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_and_what_is_wrong_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.toml");
        assert_eq!(read(&path), (Policy::default(), None));
        let mut allows = Policy::default();
        allows.allow("/etc/myapp/").expect("allowed");
        for text in ["", "# nothing\n", "allow = []\n"] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(read(&path), (Policy::default(), None), "{text:?}");
        }
        std::fs::write(&path, "# ours\nallow = [\"/etc/myapp/\"]\n").expect("written");
        assert_eq!(read(&path), (allows, None));
        for (text, at) in [
            (
                "allow = [\n  \"/etc/myapp/\",\n  \"/etc/\",\n]\n",
                "policy.toml:3:3: `/etc/`",
            ),
            (
                "\nallow = [\"/etc/flotta/x/\"]",
                "policy.toml:2:10: `/etc/flotta/x/` cannot be allowed: it is Flotta's own",
            ),
            ("allow = \"/etc/myapp/\"\n", "policy.toml:1:9: "),
            (
                "allow = [\"/etc/myapp/\"]\ndeny = []\n",
                "policy.toml:2:1: unknown field",
            ),
            ("allow = [\n", "policy.toml:1:"),
            (
                "allow = [\"etc/myapp/\"]\n",
                "policy.toml:1:10: `etc/myapp/` cannot be allowed: not absolute",
            ),
            ("allow = [\"/etc/myapp/../\"]\n", "policy.toml:1:10: "),
            (&"#".repeat(MAX_BYTES + 1), "policy.toml: "),
        ] {
            std::fs::write(&path, text).expect("written");
            let (policy, problem) = read(&path);
            assert_eq!(policy, Policy::default(), "a part of it was used: {text:?}");
            let problem = problem.expect("a problem");
            assert_eq!(problem.code, code::POLICY.id);
            assert!(problem.message.contains(at), "{problem}");
        }
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        let problem = read(&path).1.expect("a problem");
        assert!(problem.message.ends_with("policy.toml: it is not text"));
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("a folder");
        let (policy, problem) = read(&path);
        assert_eq!((policy, problem.is_some()), (Policy::default(), true));
    }
}
