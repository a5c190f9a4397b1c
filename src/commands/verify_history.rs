//! `flotta verify-history`: compares what two devices were shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use flotta_bundle::{Digest, code};
use serde::Deserialize;

use crate::error::Answer;
use crate::{output, print};

/// Longest file that is read: a device keeps 1,000 releases of about 250 bytes.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct VerifyHistory {
    /// The output of `flotta-agent history -o json` on one device
    one: PathBuf,
    /// The same on another device
    other: PathBuf,
}

/// A release as a device saw it. A later agent may add fields.
#[derive(Debug, Deserialize)]
struct Seen {
    sequence: u64,
    root: Digest,
}

/// The roots of each sequence: one, unless there are two stories.
type History = BTreeMap<u64, BTreeSet<Digest>>;

impl VerifyHistory {
    pub(crate) fn run(&self) -> anyhow::Result<Answer> {
        let (one, other) = (read(&self.one)?, read(&self.other)?);
        let common: Vec<_> = one.keys().filter(|key| other.contains_key(key)).collect();
        let (Some(first), Some(last)) = (common.first(), common.last()) else {
            bail!("the two devices have no release in common: there is nothing to compare");
        };
        let text = differences(&one, &other);
        let differing = text.lines().count() / 3;
        if differing == 0 {
            let releases = print::count(common.len(), "release");
            output::answer(&format!(
                "one story: {releases} in common, {first} to {last}, and one root for each\n"
            ))?;
            return Ok(Answer::Yes);
        }
        output::answer(&text)?;
        let (code, releases) = (code::EQUIVOCATION, print::count(differing, "release"));
        output::talk(&format!(
            "{}: two stories in {releases}: {}\n   = help: {}",
            code.id, code.title, code.help
        ));
        Ok(Answer::No)
    }
}

fn read(path: &Path) -> anyhow::Result<History> {
    use std::io::Read as _;
    let place = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(place)?;
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    if read.with_context(place)? as u64 > MAX_BYTES {
        bail!("{}: longer than {MAX_BYTES} bytes", place());
    }
    let seen: Vec<Seen> = serde_json::from_slice(&bytes).with_context(|| {
        let what = "not what `flotta-agent history -o json` says";
        format!("{}: {what}", place())
    })?;
    let mut history = History::new();
    for seen in seen {
        history.entry(seen.sequence).or_default().insert(seen.root);
    }
    Ok(history)
}

/// Three lines for each release that has more than one root.
fn differences(one: &History, other: &History) -> String {
    let roots = |history: &History, sequence: &u64| {
        let roots = history.get(sequence).into_iter().flatten();
        let roots: Vec<_> = roots.map(Digest::to_string).collect();
        if roots.is_empty() {
            "not seen".to_owned()
        } else {
            roots.join(" and ")
        }
    };
    let mut text = String::new();
    let sequences: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    for sequence in sequences {
        let all: BTreeSet<_> = [one, other]
            .into_iter()
            .filter_map(|history| history.get(sequence))
            .flatten()
            .collect();
        if all.len() > 1 {
            let (here, there) = (roots(one, sequence), roots(other, sequence));
            let _ = write!(
                text,
                "release {sequence} has two roots\n  one device    {here}\n  the other     {there}\n"
            );
        }
    }
    text
}
