//! What runs in a container: command, arguments, working directory.

use flotta_bundle::code;

use super::asked::Asked;
use super::env::expand;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Process;
use crate::compile::writer::fits_a_line;

pub(super) const FIELDS: &[Field] = &[
    Field::carried("containers[].command", "`PodmanArgs=--entrypoint`"),
    Field::carried("containers[].args", "`Exec=`"),
    Field::carried("containers[].workingDir", "`WorkingDir=`"),
];

/// Kubernetes' `command` replaces the image's entry point and its default arguments, `args` the arguments alone.
pub(super) fn process(
    job: &mut Job<'_>,
    asked: Asked<'_>,
    variables: &[(String, String)],
) -> Process {
    let words = |words: &Option<Vec<String>>| -> Vec<_> {
        let words = words.iter().flatten();
        words.map(|word| expand(word, variables)).collect()
    };
    let container = asked.container;
    let mut process = Process {
        entrypoint: words(&container.command),
        arguments: words(&container.args),
        working_dir: None,
    };
    if let Some(folder) = &container.working_dir {
        if fits_a_line(folder) && folder.starts_with('/') {
            process.working_dir = Some(folder.clone());
        } else {
            let message = "workingDir must be an absolute path of plain characters";
            job.refuse(code::SCHEMA, &asked.at("workingDir"), message);
        }
    }
    process
}
