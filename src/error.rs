//! How a command ends: exit codes, and errors as people see them.

use std::process::ExitCode;

use flotta_bundle::Problem;
use flotta_reconciler::admin::client::ClientError;

use crate::output;
use crate::print::{Style, colours, paint};

/// What a command found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done. Exit code 0.
    Yes,
    /// Findings, differences, not ready, not there. Exit code 1.
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
        }
    }
}

/// An error with its code and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Coded(pub(crate) Problem);

/// Prints the error; exit code 2, or 1 when the answer is that there is no such thing.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if output::is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    output::talk(&text(error, colours(&std::io::stderr())));
    match error.downcast_ref::<ClientError>() {
        Some(error) if error.is_not_found() => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

/// `error[FLT0508]: …` and what to do about it.
fn text(error: &anyhow::Error, colours: bool) -> String {
    let problem = error
        .downcast_ref::<Coded>()
        .map(|coded| coded.0.clone())
        .or_else(|| {
            error
                .downcast_ref::<ClientError>()
                .map(ClientError::problem)
        });
    let Some(problem) = problem else {
        let word = paint("error", Some(Style::Bad), colours);
        return format!("{word}: {error:#}");
    };
    let word = paint(
        &format!("error[{}]", problem.code),
        Some(Style::Bad),
        colours,
    );
    let mut text = format!("{word}: {}", problem.message);
    if !problem.help.is_empty() {
        text += "\n   = help: ";
        text += &problem.help;
    }
    text
}
