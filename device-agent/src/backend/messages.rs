//! Recognises the messages of other programs. Their texts are matched here and nowhere else.

use super::BackendError;

/// The exit status of Podman when it could not run a container (podman-run(1)).
const PODMAN_FAILED: i32 = 125;

/// Classifies an error message of Podman. It passes on the kernel's text, and has no error of its own for a full disk.
pub(super) fn podman(words: String) -> BackendError {
    let full = ["no space left on device", "disk quota exceeded"];
    if is_storage(&words) {
        BackendError::Storage(words)
    } else if full.iter().any(|full| words.contains(full)) {
        BackendError::NoSpace(words)
    } else {
        BackendError::Other(words)
    }
}

/// The exit code that podman-exec(1) documents for a command that could not be run.
pub(super) fn not_run(words: &str) -> Option<i32> {
    let words = words.to_lowercase();
    if words.contains("command that was not found") {
        Some(127)
    } else {
        words.contains("oci permission denied").then_some(126)
    }
}

/// Why a unit is not running, by the lines in its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause<'a> {
    /// This port is in use.
    PortTaken(u16),
    /// Some port is in use; the line does not say which.
    SomePortTaken(&'a str),
    /// Podman cannot use its storage.
    Storage(&'a str),
    /// Podman could not pull the image.
    Pull(&'a str),
    /// The workload's own last line.
    LastLine(&'a str),
}

/// Reads the lines in a unit's journal; none when there are only the usual messages of systemd and Podman.
pub(crate) fn journal<'a>(unit: &str, exit_status: i32, lines: &'a [String]) -> Option<Cause<'a>> {
    let mut newest = lines.iter().rev().map(String::as_str);
    let taken = |line: &&str| line.contains("address already in use");
    if let Some(line) = newest.clone().find(taken) {
        return Some(port(line).map_or(Cause::SomePortTaken(line), Cause::PortTaken));
    }
    let line = newest.find(|line| is_own(unit, line))?;
    // Podman's last line says why the container did not even start; the workload wrote nothing in that run.
    let is_podman = exit_status == PODMAN_FAILED && line.starts_with("Error: ");
    Some(match line {
        line if is_podman && is_storage(line) => Cause::Storage(line),
        line if is_podman && is_pull(line) => Cause::Pull(line),
        line => Cause::LastLine(line),
    })
}

/// Whether Podman says that it cannot use its storage.
fn is_storage(words: &str) -> bool {
    words.contains("configure storage: ") || words.contains("kernel does not support overlay fs")
}

/// Whether Podman says that it could not get an image, from a registry or from its own store.
fn is_pull(line: &str) -> bool {
    [
        "unable to copy from source ",
        "initializing source ",
        "image not known",
        "pinging container registry ",
    ]
    .iter()
    .any(|words| line.contains(words))
}

/// `… listen tcp4 :8080: bind: address already in use` names the port before `: bind`.
fn port(line: &str) -> Option<u16> {
    let before = line.split(": bind: address already in use").next()?;
    before.rsplit(':').next()?.trim().parse().ok()
}

/// Whether a line is the workload's own, not a message of systemd or Podman about it.
fn is_own(unit: &str, line: &str) -> bool {
    let id = line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    let talk = [
        "Started ",
        "Starting ",
        "Stopped ",
        "Stopping ",
        "Failed to start ",
        "Dependency failed for ",
        "container ",
        "conmon ",
    ];
    // `web.service: Main process exited, …`, `web.service: Start request repeated too quickly.`
    let about = line
        .strip_prefix(unit)
        .is_some_and(|rest| rest.starts_with(": "));
    let event = line.starts_with("20")
        && [" container ", " image ", " pod ", " volume ", " network "]
            .iter()
            .any(|kind| line.contains(kind));
    !(id || event
        || about
        || line.trim().is_empty()
        || talk.iter().any(|start| line.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_says_is_known_by_its_words() {
        let read = |words: &str| podman(words.to_owned());
        let full = "write /data: no space left on device";
        assert_eq!(read(full), BackendError::NoSpace(full.to_owned()));
        let storage =
            "configure storage: kernel does not support overlay fs: no space left on device";
        assert_eq!(read(storage), BackendError::Storage(storage.to_owned()));
        let other = "manifest unknown";
        assert_eq!(read(other), BackendError::Other(other.to_owned()));
    }
}
