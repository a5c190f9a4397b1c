//! `flotta clock`.

use clap::Subcommand;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::ClockAccepted;

use crate::error::Answer;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Clock {
    /// Confirm that the server's clock is right when it is in doubt and the server signs nothing (FLT0611); holds until the clock jumps or the server stops
    Accept,
}

impl Clock {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let Self::Accept = self;
        let accepted: ClockAccepted = client.post("/v1/clock/accept", &()).await?;
        output::answer(&answer(&accepted))?;
        Ok(Answer::Yes)
    }
}

fn answer(accepted: &ClockAccepted) -> String {
    let now = accepted.now;
    if accepted.doubt.is_none() {
        return format!("the server's clock is not in doubt: it says {now:.0}\n");
    }
    format!("it is {now:.0}: the server signs again\n")
}

#[cfg(test)]
mod tests {
    use flotta_bundle::{Problem, code};

    use super::*;

    #[test]
    fn what_was_accepted_is_said() {
        let mut accepted = ClockAccepted {
            now: "2026-11-23T14:05:00Z".parse().unwrap(),
            doubt: None,
        };
        insta::assert_snapshot!(answer(&accepted), @"the server's clock is not in doubt: it says 2026-11-23T14:05:00Z");
        accepted.doubt = Some(Problem::new(code::SERVER_CLOCK, "it says another time"));
        insta::assert_snapshot!(answer(&accepted), @"it is 2026-11-23T14:05:00Z: the server signs again");
    }
}
