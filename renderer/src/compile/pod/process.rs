//! The process of a container: command, arguments and working directory.

use flotta_bundle::code;

use super::context::ContainerContext;
use super::env::expand;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Process;
use crate::compile::writer::fits_a_line;

pub(super) const FIELDS: &[Field] = &[
    Field::supported("containers[].command", "`PodmanArgs=--entrypoint`"),
    Field::supported("containers[].args", "`Exec=`"),
    Field::supported("containers[].workingDir", "`WorkingDir=`"),
    Field::supported("containers[].tty", "`PodmanArgs=--tty`"),
    Field::supported("containers[].stdin", "`PodmanArgs=--interactive`"),
    Field::supported("containers[].stdinOnce", "an error when it is true"),
];

/// Returns the process. In Kubernetes `command` replaces the image's entry point and default arguments, `args` only the arguments.
pub(super) fn process(
    job: &mut Job<'_>,
    context: ContainerContext<'_>,
    variables: &[(String, String)],
) -> Process {
    let mut words = |words: &Option<Vec<String>>, field: &str| -> Vec<_> {
        let words = words.iter().flatten().enumerate();
        let expanded = words.filter_map(|(n, word)| {
            if job.words.is_used_up() {
                return None;
            }
            let word = expand(word, variables);
            job.word(&word, &context.at(&format!("{field}/{n}")))
                .then_some(word)
        });
        expanded.collect()
    };
    let container = context.container;
    let mut process = Process {
        entrypoint: words(&container.command, "command"),
        arguments: words(&container.args, "args"),
        working_dir: None,
        terminal: container.tty == Some(true),
        input: container.stdin == Some(true),
    };
    if container.stdin_once == Some(true) {
        let message = "`stdinOnce: true` is not supported on devices: Podman keeps the input open";
        job.refuse(code::UNSUPPORTED_FIELD, &context.at("stdinOnce"), message);
    }
    if let Some(folder) = &container.working_dir {
        if fits_a_line(folder) && folder.starts_with('/') {
            process.working_dir = Some(folder.clone());
        } else {
            let message = "workingDir must be an absolute path without `\\` or control characters";
            job.refuse(code::SCHEMA, &context.at("workingDir"), message);
        }
    }
    process
}
