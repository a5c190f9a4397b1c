//! `flotta wait`.

use clap::{Args, ValueEnum};
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::query::Query;
use flotta_reconciler::admin::resource::{Device, List, What};
use jiff::SignedDuration;

use crate::error::Answer;
use crate::output;
use crate::print::time::{parse_span, span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(aliases = ["devices", "ed"])]
    Device,
}

/// The condition to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum For {
    Condition(String, String),
    Release(u64),
    Delete,
}

impl std::str::FromStr for For {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` cannot be waited for: write condition=Ready, condition=Ready=False, release=42 or delete"
            )
        };
        if text == "delete" {
            return Ok(Self::Delete);
        }
        match text.split_once('=').ok_or_else(wrong)? {
            ("condition", condition) => {
                let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
                Ok(Self::Condition(kind.to_owned(), status.to_owned()))
            }
            ("release", number) => number.parse().map(Self::Release).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl For {
    /// Whether the condition is met, or why not. Names are compared like in `kubectl wait`, ignoring case.
    fn met(&self, device: Option<&Device>) -> Result<(), String> {
        let Some(device) = device else {
            return match self {
                Self::Delete => Ok(()),
                _ => Err("it has not joined".to_owned()),
            };
        };
        match self {
            Self::Delete => Err("it is still there".to_owned()),
            Self::Release(number) => match &device.status.running {
                Some(running) if running.release >= *number => Ok(()),
                Some(running) => Err(format!("it runs release {}", running.release)),
                None => Err("it runs no release yet".to_owned()),
            },
            Self::Condition(kind, status) => {
                let found = device
                    .status
                    .conditions
                    .iter()
                    .find(|c| c.type_.eq_ignore_ascii_case(kind));
                match found {
                    Some(found) if found.status.eq_ignore_ascii_case(status) => Ok(()),
                    Some(found) => Err(format!(
                        "{}={}: {} {}",
                        found.type_,
                        found.status,
                        found.reason.as_deref().unwrap_or_default(),
                        found.message.as_deref().unwrap_or_default()
                    )),
                    None => Err(format!("it has no condition {kind}")),
                }
            }
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its name; NAMESPACE/NAME or NAME
    name: String,
    /// The namespace [default: default]
    #[arg(long, short)]
    namespace: Option<String>,
    /// condition=TYPE, condition=TYPE=STATUS, release=NUMBER, delete
    #[arg(long = "for", value_name = "WHAT")]
    what: For,
    /// How long
    #[arg(long, default_value = "5m", value_parser = parse_span)]
    timeout: SignedDuration,
}

impl Wait {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let name = super::device_name(&self.name, self.namespace.as_deref())?;
        let query = Query {
            namespace: Some(name.namespace().to_owned()),
            name: Some(name.name().to_owned()),
            watch: true,
            ..Query::default()
        };
        let mut last = self.what.met(None);
        let limit = self.timeout.unsigned_abs();
        let waiting = async {
            let mut watch = client
                .watch::<Device>(&format!("/v1/devices{}", query.encode()))
                .await?;
            // a watch reports nothing about a missing object, so ask once
            let plain = Query {
                watch: false,
                ..query
            };
            let there: List<Device> = client
                .get(&format!("/v1/devices{}", plain.encode()))
                .await?;
            last = self.what.met(there.items.first());
            while last.is_err() {
                let Some(change) = watch.next().await? else {
                    anyhow::bail!("the server ended the watch");
                };
                last = self
                    .what
                    .met((change.what != What::Deleted).then_some(&change.object));
            }
            Ok(())
        };
        if let Ok(done) = tokio::time::timeout(limit, waiting).await {
            done?;
        } else {
            let reason = last.err().unwrap_or_default();
            output::talk(&format!(
                "{name} was not there after {}: {}",
                span(self.timeout),
                reason.trim_end()
            ));
            return Ok(Answer::No);
        }
        output::answer(&format!("{name} condition met\n"))?;
        Ok(Answer::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_read() {
        assert_eq!("delete".parse(), Ok(For::Delete));
        assert_eq!("release=42".parse(), Ok(For::Release(42)));
        assert_eq!(
            "condition=Ready".parse(),
            Ok(For::Condition("Ready".into(), "True".into()))
        );
        assert_eq!(
            "condition=Ready=False".parse(),
            Ok(For::Condition("Ready".into(), "False".into()))
        );
        for wrong in ["", "Ready", "jsonpath={.x}", "release=x"] {
            assert!(wrong.parse::<For>().is_err(), "{wrong}");
        }
    }
}
