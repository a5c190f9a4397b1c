//! Every command that a help text, a message or a page mentions exists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use flotta_bundle::code;

/// Words that follow a program's name in a sentence and are not commands; `alice` is a member of the group of that name.
const PROSE: [&str; 11] = [
    "alice", "and", "first", "is", "of", "on", "sealing", "that", "to", "with", "works",
];

/// A command in a text: program, words in lower case, options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    program: &'static str,
    words: Vec<String>,
    options: Vec<String>,
}

/// The commands in a text. A command ends at the first word that is neither in lower case, an option nor a place for a value.
fn commands(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for program in ["flotta", "flotta-agent"] {
        for (at, _) in text.match_indices(&format!("{program} ")) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "-_/.".contains(c)) {
                continue;
            }
            let rest = &text[at + program.len() + 1..];
            // the end of a command within a sentence
            let end = rest.find(['`', '\n', ',', ';', ')', '"', '\\', '|', '>', '&', '#']);
            let rest = &rest[..end.unwrap_or(rest.len())];
            let mut named = Named {
                program,
                words: Vec::new(),
                options: Vec::new(),
            };
            let is_word = |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase());
            for word in rest.split(' ') {
                let plain = word.trim_end_matches([':', '.', '\'']);
                let ends = plain.len() != word.len();
                let letters = plain.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                if plain.starts_with("--") && plain.len() > 2 && letters {
                    named.options.push(plain.to_owned());
                } else if is_word(plain) && letters && named.options.is_empty() {
                    named.words.push(plain.to_owned());
                } else if plain.is_empty() || is_word(plain) {
                    break;
                }
                if ends {
                    break;
                }
            }
            if named
                .words
                .first()
                .is_some_and(|word| !PROSE.contains(&&**word))
            {
                found.push(named);
            }
        }
    }
    found
}

/// Why a command does not exist; none when it does.
fn fault(named: &Named, known: &mut BTreeMap<(&'static str, String), String>) -> Option<String> {
    if named.program == "flotta-agent" {
        let mut command = flotta_agent::cli::Cli::command();
        command.build();
        let first = named.words.first()?;
        let Some(command) = command.find_subcommand(first) else {
            return Some(format!("no command {first}"));
        };
        let has = |option: &&String| {
            !command
                .get_arguments()
                .any(|argument| argument.get_long() == option.strip_prefix("--"))
        };
        return named
            .options
            .iter()
            .find(has)
            .map(|option| format!("no option {option}"));
    }
    // the depth of subcommands; further words are values
    for depth in (1..=named.words.len().min(2)).rev() {
        let words = &named.words[..depth];
        let help = known
            .entry((named.program, words.join(" ")))
            .or_insert_with(|| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_flotta"));
                let output = command.args(words).arg("--help").output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                if output.status.success() {
                    text
                } else {
                    String::new()
                }
            });
        let is_group = help.contains("\nCommands:") && depth < named.words.len();
        if help.is_empty() || is_group {
            continue;
        }
        let lacks = |option: &&String| !help.contains(&***option);
        return named
            .options
            .iter()
            .find(lacks)
            .map(|option| format!("no option {option}"));
    }
    Some(format!("no command {}", named.words.join(" ")))
}

fn check<'a>(texts: impl Iterator<Item = (String, &'a str)>) -> (usize, Vec<String>) {
    let mut known = BTreeMap::new();
    let (mut count, mut faults) = (0, Vec::new());
    for (place, text) in texts {
        for named in commands(text) {
            count += 1;
            if let Some(why) = fault(&named, &mut known) {
                faults.push(format!("{place}: {named:?}: {why}"));
            }
        }
    }
    (count, faults)
}

#[test]
fn every_command_in_the_help_of_a_code_is_there() {
    let texts = code::ALL.iter().map(|code| (code.id.to_owned(), code.help));
    let (count, faults) = check(texts);
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count >= 10, "{count} commands were found");
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(&*name, "target" | "tests" | "snapshots" | "node_modules") {
                files(&path, extension, found);
            }
        } else if name != "tests.rs" && path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_command_in_a_message_or_on_a_page_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut places);
    // the page with decisions also mentions rejected ideas
    places.retain(|path| !path.ends_with("decisions.md"));
    for folder in ["src", "device-agent/src", "reconciler/src", "renderer"] {
        files(&root.join(folder), "rs", &mut places);
    }
    let texts: Vec<_> = places
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let is_code = path.extension().is_some_and(|extension| extension == "rs");
            // messages are not in comments, except for the help of arguments
            let lines = text.lines().filter(|line| {
                let line = line.trim_start();
                !(is_code && line.starts_with("//") && !line.starts_with("///"))
            });
            let text = lines.collect::<Vec<_>>().join("\n");
            (path.strip_prefix(root).unwrap().display().to_string(), text)
        })
        .collect();
    let (count, faults) = check(texts.iter().map(|(place, text)| (place.clone(), &**text)));
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count >= 50, "{count} commands were found");
}

#[test]
fn a_command_that_is_not_there_is_seen() {
    for (text, why) in [
        ("see: flotta-agent surgeon", "no command surgeon"),
        ("see: flotta-agent enrol --again", "no option --again"),
        ("first `flotta forgive NAME`, then", "no command forgive"),
        ("flotta approve NAME --swap", "no option --swap"),
        ("flotta token destroy", "no command token destroy"),
    ] {
        let (_, faults) = check(std::iter::once((String::new(), text)));
        assert!(
            faults.len() == 1 && faults[0].ends_with(why),
            "{text}: {faults:?}"
        );
    }
    for text in [
        "flotta approve NAME --replace",
        "a flotta-agent of a version near the server's",
        "flotta get requests -o wide: see there",
        "systemctl status flotta-agent.service",
    ] {
        let (_, faults) = check(std::iter::once((String::new(), text)));
        assert!(faults.is_empty(), "{text}: {faults:?}");
    }
}
