//! `flotta describe`.

use clap::{Args, ValueEnum};
use flotta_bundle::{Problem, code};
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::query::Query;
use flotta_reconciler::admin::resource::{
    Device, EventObject, List, ReleaseObject, Resource, Workload,
};
use jiff::Timestamp;

use crate::error::{Answer, Coded};
use crate::{output, print};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(aliases = ["devices", "ed"])]
    Device,
    #[value(aliases = ["workloads", "ew"])]
    Workload,
    #[value(aliases = ["releases"])]
    Release,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its name; NAMESPACE/NAME or NAME. Of a release its sequence, or the commit
    name: String,
    /// The namespace [default: default]
    #[arg(long, short)]
    namespace: Option<String>,
}

impl Describe {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        if self.kind == Kind::Release {
            return release(client, &self.name).await;
        }
        let name = super::device_name(&self.name, self.namespace.as_deref())?;
        let query = Query {
            namespace: Some(name.namespace().to_owned()),
            name: Some(name.name().to_owned()),
            ..Query::default()
        };
        let query = query.encode();
        let now = Timestamp::now();
        let colours = print::colours(&std::io::stdout());
        let kind = match self.kind {
            Kind::Device => "device",
            Kind::Workload | Kind::Release => "workload",
        };
        let about = format!("{kind}/{name}");
        let text = match self.kind {
            Kind::Device => {
                let device: Device = one(client, &query, &about).await?;
                let only = Query {
                    device: Some(name),
                    ..Query::default()
                };
                let events: List<EventObject> =
                    client.get(&format!("/v1/events{}", only.encode())).await?;
                print::describe::device(&device, &events.items, now, colours)
            }
            Kind::Workload | Kind::Release => {
                let workload: Workload = one(client, &query, &about).await?;
                print::describe::workload(&workload, now, colours)
            }
        };
        output::answer(&text)?;
        Ok(Answer::Yes)
    }
}

/// Finds the newest release of this sequence or commit.
async fn release(client: &Client, name: &str) -> anyhow::Result<Answer> {
    let list: List<ReleaseObject> = client.get("/v1/releases").await?;
    let commit = |release: &ReleaseObject| {
        let id = release.status.commit.id.trim_start_matches("sha256:");
        name.len() >= 4 && id.starts_with(name.trim_start_matches("sha256:"))
    };
    let named = |release: &&ReleaseObject| release.metadata.name == name;
    let found = list.items.iter().find(named);
    let found = found.or_else(|| list.items.iter().find(|release| commit(release)));
    let Some(found) = found else {
        let message = format!("no release or commit {name} among the newest");
        let mut problem = Problem::new(code::NOT_FOUND, message);
        "to list them: flotta get releases".clone_into(&mut problem.help);
        return Err(Coded(problem).into());
    };
    super::get::say_status(client).await;
    let colours = print::colours(&std::io::stdout());
    output::answer(&print::describe::release(found, Timestamp::now(), colours))?;
    Ok(Answer::Yes)
}

async fn one<T: Resource>(client: &Client, query: &str, about: &str) -> anyhow::Result<T> {
    let list: List<T> = client.get(&format!("/v1/{}{query}", T::PLURAL)).await?;
    list.items.into_iter().next().ok_or_else(|| {
        let problem = Problem::new(
            code::NOT_FOUND,
            format!("no {}", about.replacen('/', " ", 1)),
        );
        anyhow::Error::new(Coded(problem))
    })
}
