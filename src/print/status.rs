//! The state of the server itself: lines above a table when something is wrong. When all is well there are none.

use flotta_reconciler::admin::resource::ServerStatus;
use jiff::{SignedDuration, Timestamp};

use super::table::one_line;
use super::time::{ago, lasting, span};

/// How late a poll of the source may be: two runs of `git` that take as long as allowed.
const SLACK: SignedDuration = SignedDuration::from_mins(15);
/// Polls that may be missed.
const MISSED: i32 = 3;

/// A line for each thing that is wrong.
pub(crate) fn lines(status: &ServerStatus, now: Timestamp) -> Vec<String> {
    let source = &status.source;
    let label = match source.label.as_str() {
        "" => String::new(),
        label => format!("  {label}"),
    };
    let stays = match &status.in_force {
        Some(release) => format!("release {} stays in force", release.sequence),
        None => "there is no release yet".to_owned(),
    };
    let mut lines = Vec::new();
    if let Some(failure) = &source.failure {
        let what = if failure.source {
            "has been unreadable"
        } else {
            "has not been publishable"
        };
        let (since, message) = (lasting(now, failure.since), &failure.message);
        lines.push(format!("source{label}  {what} {since}: {message}; {stays}"));
    } else if let Some(looked) = source.looked {
        let interval = i64::try_from(source.interval_seconds).unwrap_or(i64::MAX);
        let patience = SignedDuration::from_secs(interval)
            .saturating_mul(MISSED)
            .saturating_add(SLACK);
        let late = now.duration_since(looked);
        if late > patience {
            lines.push(format!(
                "source{label}  not looked at for {}; {stays}",
                span(late)
            ));
        }
    }
    if let Some(verdict) = source
        .verdict
        .as_ref()
        .filter(|verdict| verdict.state != "InForce")
    {
        let commit = source.commit.trim_start_matches("sha256:");
        let commit = commit.get(..7).unwrap_or(commit);
        let it = if verdict.state == "Held" {
            "held: it"
        } else {
            "refused:"
        };
        lines.push(format!(
            "source{label}  {it} {} ({}); {stays}; see: flotta describe release {commit}",
            verdict.message,
            ago(now, verdict.since),
        ));
    }
    for warning in &status.warnings {
        let since = lasting(now, warning.since);
        lines.push(format!("server  {} ({since})", warning.message));
    }
    lines.iter().map(|line| one_line(line)).collect()
}
