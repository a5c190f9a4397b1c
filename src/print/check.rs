//! The screen of `flotta check`. Pure.

use flotta_reconciler::check::{Check, Fact, Grade};

use super::table::one_line;
use super::{Style, paint};

/// The worst fact in one line for monitoring, then every fact with what to do.
pub(crate) fn screen(check: &Check, colours: bool) -> String {
    let wrong = |grade| {
        check
            .facts
            .iter()
            .filter(move |fact: &&Fact| fact.grade == grade)
    };
    let names = |grade| {
        wrong(grade)
            .map(|fact| fact.name.as_str())
            .collect::<Vec<_>>()
    };
    let what = match check.grade {
        Grade::Ok => "all is well".to_owned(),
        grade => format!("{}: {}", word(grade), names(grade).join(", ")),
    };
    let head = format!(
        "flotta {}    {}\n",
        check.version,
        paint(&what, Some(style(check.grade)), colours)
    );
    let width = check.facts.iter().map(|fact| fact.name.len()).max();
    let width = width.unwrap_or_default();
    check.facts.iter().fold(head, |text, fact| {
        let (name, message) = (&fact.name, one_line(&fact.message));
        let line = match fact.grade {
            Grade::Ok => format!("  {name:<width$}  {message}\n"),
            grade => {
                let word = paint(word(grade), Some(style(grade)), colours);
                let (code, help) = (&fact.code, &fact.help);
                format!(
                    "  {name:<width$}  {word} {code}: {message}\n  {:<width$}  to do: {help}\n",
                    ""
                )
            }
        };
        text + &line
    })
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Ok => "ok",
        Grade::Warning => "warning",
        Grade::Critical => "critical",
    }
}

fn style(grade: Grade) -> Style {
    match grade {
        Grade::Ok => Style::Good,
        Grade::Warning => Style::Busy,
        Grade::Critical => Style::Bad,
    }
}
