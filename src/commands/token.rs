//! `flotta token`.

use clap::{Args, Subcommand};
use flotta_bundle::DeviceName;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::{TokenCreated, TokenRequest, TokenRevocation};
use flotta_reconciler::admin::resource::JoinToken;
use jiff::{SignedDuration, Timestamp};

use super::get::{Format, Get};
use crate::error::Answer;
use crate::output;
use crate::print::time::{parse_span, span};

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a join file with a one-time token, on stdout: flotta token create shop-17 > shop-17.join
    Create(Create),
    /// List the tokens: which are open, who made them, who joined with them; the same as flotta get tokens
    List(Listing),
    /// Revoke a token: nobody can join with it any more
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The token, as flotta token list shows it
    token: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The device that may join with it; any when absent
    device: Option<DeviceName>,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = parse_span)]
    ttl: SignedDuration,
    /// Put no token in: the device asks to join, and waits for `flotta approve`
    #[arg(long, conflicts_with_all = ["ttl", "set", "labels"])]
    ask: bool,
    /// The set the device becomes a member of, if Git has no EdgeDevice of its name
    #[arg(long)]
    set: Option<String>,
    /// A label the device gets, if Git has no EdgeDevice of its name
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = super::label)]
    labels: Vec<(String, String)>,
    /// URL the device reaches the server at [default: the server's own name and port]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Token {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::List(listing) => Get::tokens(listing.output).run(client).await,
            Self::Revoke(revoke) => revoke.run(client).await,
        }
    }
}

impl Revoke {
    async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let request = TokenRevocation { token: self.token };
        let token: JoinToken = client.post("/v1/tokens/revoke", &request).await?;
        output::answer(&format!("token {} revoked\n", token.metadata.name))?;
        Ok(Answer::Yes)
    }
}

impl Create {
    async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let create = self;
        let request = TokenRequest {
            device: create.device,
            ttl_seconds: create.ttl.as_secs(),
            ask: create.ask,
            set: create.set,
            labels: create.labels.into_iter().collect(),
            server: create.server,
        };
        let created: TokenCreated = client.post("/v1/tokens", &request).await?;
        output::answer(&format!(
            "{}\n",
            serde_json::to_string_pretty(&created.join)?
        ))?;
        output::talk(&talk(
            &created,
            output::destination().as_deref(),
            Timestamp::now(),
        ));
        Ok(Answer::Yes)
    }
}

fn talk(created: &TokenCreated, file: Option<&str>, now: Timestamp) -> String {
    let device = match &created.join.device {
        Some(device) => device.to_string(),
        None => "any device".to_owned(),
    };
    let (to, file) = match file {
        Some(file) => (format!(": {file}"), file),
        None => (String::new(), "FILE"),
    };
    let what = match created.expires {
        Some(expires) => {
            let until = expires.strftime("%H:%M");
            let left = span(expires.duration_since(now));
            format!("token for {device}, one use, until {until} UTC ({left})")
        }
        None => format!("{device} may ask to join; approve it: flotta approve"),
    };
    format!("{what}{to}\non the device:  flotta-agent enrol {file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_can_be_pasted() {
        let join = r#"{"schema":1,"fleet":"shops","server":"https://e:7443","ca":"",
            "trust_root":{"payloadType":"","payload":"","signatures":[]},"device":"default/shop-17"}"#;
        let created = TokenCreated {
            join: serde_json::from_str(join).unwrap(),
            expires: Some("2026-11-23T14:05:00Z".parse().unwrap()),
        };
        let now = "2026-11-23T13:05:30Z".parse().unwrap();
        insta::assert_snapshot!(talk(&created, Some("shop-17.join"), now), @r"
        token for default/shop-17, one use, until 14:05 UTC (59m): shop-17.join
        on the device:  flotta-agent enrol shop-17.join
        ");
    }
}
