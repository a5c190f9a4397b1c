//! Exit codes, and how errors are printed.

use std::process::ExitCode;

use flotta_bundle::{Problem, code};
use flotta_reconciler::admin::client::ClientError;

use crate::output;
use crate::print::{Style, colours, paint};

/// The answer of a command, which sets its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done. Exit code 0.
    Yes,
    /// Findings, differences, not ready, not found. Exit code 1.
    No,
    /// The server does not serve. Exit code 2, as when it cannot be reached.
    Broken,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(1),
            Answer::Broken => Self::from(2),
        }
    }
}

/// An error with its code and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.text())]
pub(crate) struct Coded(pub(crate) Problem);

/// Prints the error; exit code 2, or 1 when there is no such object.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if output::is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let problem = problem(error);
    output::talk(&text(error, problem.as_ref(), colours(&std::io::stderr())));
    ExitCode::from(status(problem.as_ref()))
}

/// The exit code: 1 when there is no such object, else 2.
fn status(problem: Option<&Problem>) -> u8 {
    match problem {
        Some(problem) if problem.code == code::NOT_FOUND.id => 1,
        _ => 2,
    }
}

/// The problem with its code, if the error has one.
fn problem(error: &anyhow::Error) -> Option<Problem> {
    let coded = error.downcast_ref::<Coded>().map(|coded| coded.0.clone());
    coded.or_else(|| {
        error
            .downcast_ref::<ClientError>()
            .map(ClientError::problem)
    })
}

/// `error[FLT0508]: …` and what to do about it.
fn text(error: &anyhow::Error, problem: Option<&Problem>, colours: bool) -> String {
    let Some(problem) = problem else {
        let word = paint("error", Some(Style::Bad), colours);
        return format!("{word}: {error:#}");
    };
    let word = paint(
        &format!("error[{}]", problem.code),
        Some(Style::Bad),
        colours,
    );
    let mut text = format!("{word}: {}", problem.text());
    if !problem.help.is_empty() {
        text += "\n   = help: ";
        text += &problem.help;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_a_no_and_everything_else_an_error() {
        let coded = |code| anyhow::Error::new(Coded(Problem::new(code, "x")));
        assert_eq!(status(problem(&coded(code::NOT_FOUND)).as_ref()), 1);
        assert_eq!(status(problem(&coded(code::UNREACHABLE)).as_ref()), 2);
        assert_eq!(status(problem(&anyhow::anyhow!("x")).as_ref()), 2);
    }
}
