//! `flotta get`.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use flotta_bundle::DeviceName;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::query::{Query, Selector};
use flotta_reconciler::admin::resource::{
    Change, Device, EventObject, JoinToken, List, ReleaseObject, Request, What, Workload,
};
use flotta_reconciler::status::State;
use jiff::{SignedDuration, Timestamp};

use crate::error::Answer;
use crate::print::resources::{Columns, Row, head, row};
use crate::print::table::Table;
use crate::print::time::parse_span;
use crate::{output, print};

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(aliases = ["device", "ed"])]
    Devices,
    #[value(aliases = ["workload", "ew"])]
    Workloads,
    #[value(aliases = ["request", "edsr"])]
    Requests,
    #[value(aliases = ["release"])]
    Releases,
    #[value(aliases = ["event"])]
    Events,
    #[value(aliases = ["token"])]
    Tokens,
}

impl Kind {
    /// Whether the list depends on the source, so that people must know when that is out of date.
    fn stands_on_source(self) -> bool {
        matches!(self, Self::Devices | Self::Workloads | Self::Releases)
    }
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for people
    #[default]
    Table,
    /// All columns
    Wide,
    /// JSON; with -w one document per line, {type, object}: first everything there is, then each change
    Json,
    /// YAML
    Yaml,
    /// KIND/NAME, one a line, to be pasted or piped
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,
    /// One of them; NAMESPACE/NAME or NAME
    name: Option<String>,
    /// The namespace [default: default]
    #[arg(long, short, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Labels: a=b, a!=b, a, !a, a in (b,c); joined by commas
    #[arg(long, short = 'l', value_parser = checked_selector)]
    selector: Option<String>,
    /// Devices in these states: Ready, Updating, Failed, Offline, Pending, Revoked [default: all but Revoked]
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = checked_state)]
    state: Vec<String>,
    /// Devices in this set
    #[arg(long)]
    set: Option<String>,
    /// Devices and workloads that run this image: its reference, its digest, or its name
    #[arg(long)]
    image: Option<String>,
    /// Events about this device
    #[arg(long = "for", value_name = "DEVICE")]
    object: Option<DeviceName>,
    /// Events of the last 10m, 2h, 7d
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    since: Option<SignedDuration>,
    /// At most this many events, the newest ones [default: 1000; the server keeps 200 of each device and a million in all]
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Keep running and print changes
    #[arg(long, short)]
    watch: bool,
    /// Leave out the line with the names of the columns
    #[arg(long)]
    no_headers: bool,
}

fn checked_selector(text: &str) -> Result<String, String> {
    Selector::parse(text).map(|_| text.to_owned())
}

fn checked_state(text: &str) -> Result<String, String> {
    let states = State::ALL.map(|state| state.to_string());
    let state = states.iter().find(|state| state.eq_ignore_ascii_case(text));
    state
        .cloned()
        .ok_or_else(|| format!("a state is one of {}", states.join(", ")))
}

impl Get {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        self.check()?;
        match self.kind {
            Kind::Devices => self.list::<Device>(client).await,
            Kind::Workloads => self.list::<Workload>(client).await,
            Kind::Requests => self.list::<Request>(client).await,
            Kind::Releases => self.list::<ReleaseObject>(client).await,
            Kind::Events => self.list::<EventObject>(client).await,
            Kind::Tokens => self.list::<JoinToken>(client).await,
        }
    }

    /// `flotta get tokens`, which is also called `flotta token list`.
    pub(crate) fn tokens(output: Format) -> Self {
        Self {
            kind: Kind::Tokens,
            name: None,
            namespace: None,
            all_namespaces: false,
            selector: None,
            state: Vec::new(),
            set: None,
            image: None,
            object: None,
            since: None,
            limit: None,
            output,
            watch: false,
            no_headers: false,
        }
    }

    /// Refuses an option that does not apply to the kind, instead of ignoring it.
    fn check(&self) -> anyhow::Result<()> {
        let (devices, events) = (self.kind == Kind::Devices, self.kind == Kind::Events);
        let wrong = [
            ("--state", !self.state.is_empty() && !devices),
            ("--set", self.set.is_some() && !devices),
            (
                "--image",
                self.image.is_some() && !devices && self.kind != Kind::Workloads,
            ),
            ("--for", self.object.is_some() && !events),
            ("--since", self.since.is_some() && !events),
            ("--limit", self.limit.is_some() && !events),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((option, _)) => anyhow::bail!(
                "{option} does not apply to {:?}: see flotta get --help",
                self.kind
            ),
            None => Ok(()),
        }
    }

    fn query(&self) -> Query {
        let (in_name, name) = match self
            .name
            .as_deref()
            .map(|name| (name.split_once('/'), name))
        {
            Some((Some((namespace, name)), _)) => (Some(namespace), Some(name)),
            Some((None, name)) => (None, Some(name)),
            None => (None, None),
        };
        let namespace = in_name.or(self.namespace.as_deref()).unwrap_or("default");
        Query {
            namespace: (!self.all_namespaces).then(|| namespace.to_owned()),
            name: name.map(str::to_owned),
            selector: self.selector.clone(),
            state: (!self.state.is_empty()).then(|| self.state.join(",")),
            set: self.set.clone(),
            image: self.image.clone(),
            device: self.object.clone(),
            since: self.since.map(|span| Timestamp::now() - span),
            limit: self.limit,
            ..Query::default()
        }
    }

    async fn list<T: Row>(&self, client: &Client) -> anyhow::Result<Answer> {
        let query = self.query();
        let path = format!("/v1/{}", T::PLURAL);
        if self.watch && self.output == Format::Json {
            // one document per line, beginning with the existing objects
            let nothing = List::<T>::of(Vec::new());
            let printer = Printer::new(self, false);
            self.follow(client, &path, query, nothing, printer).await?;
            return Ok(Answer::Yes);
        }
        let list: List<T> = client.get(&format!("{path}{}", query.encode())).await?;
        let none = list.items.is_empty();
        let mut printer = Printer::new(self, query.name.is_some());
        if matches!(self.output, Format::Table | Format::Wide) && self.kind.stands_on_source() {
            say_status(client).await;
        }
        output::answer(&printer.start(&list, Timestamp::now())?)?;
        if none && !self.watch {
            output::talk(&nothing::<T>(&query));
        }
        if self.watch {
            self.follow(client, &path, query, list, printer).await?;
        } else if none && self.name.is_some() {
            return Ok(Answer::No);
        }
        Ok(Answer::Yes)
    }

    async fn follow<T: Row>(
        &self,
        client: &Client,
        path: &str,
        query: Query,
        list: List<T>,
        mut printer: Printer,
    ) -> anyhow::Result<()> {
        let query = Query {
            watch: true,
            ..query
        };
        // a watch begins with all objects: those that were printed already are not printed again
        let mut known: BTreeMap<_, T> = list
            .items
            .into_iter()
            .map(|object| (object.metadata().key(), object))
            .collect();
        let mut watch = client
            .watch::<T>(&format!("{path}{}", query.encode()))
            .await?;
        while let Some(change) = watch.next().await? {
            let same = known.remove(&change.object.metadata().key());
            if change.what != What::Added || same.as_ref() != Some(&change.object) {
                output::answer(&printer.change(&change, Timestamp::now())?)?;
            }
        }
        Ok(())
    }
}

/// Prints what is wrong with the server itself. A list is useful without it.
pub(super) async fn say_status(client: &Client) {
    if let Ok(status) = client.get("/v1/status").await {
        for line in print::status::lines(&status, Timestamp::now()) {
            output::talk(&line);
        }
    }
}

fn nothing<T: Row>(query: &Query) -> String {
    match (&query.name, &query.namespace) {
        (Some(name), Some(namespace)) if T::NAMESPACED => {
            format!("no {} {namespace}/{name}", T::PLURAL.trim_end_matches('s'))
        }
        (Some(name), _) => format!("no {} {name}", T::PLURAL.trim_end_matches('s')),
        (None, Some(namespace)) if T::NAMESPACED => {
            format!(
                "no {} in namespace {namespace} (all namespaces: -A)",
                T::PLURAL
            )
        }
        _ => format!("no {}", T::PLURAL),
    }
}

/// Prints a list, then changes to it.
#[derive(Debug)]
struct Printer {
    format: Format,
    columns: Columns,
    headers: bool,
    /// Whether one object was requested by name, which is printed by itself and not as a list.
    single: bool,
    table: Option<Table>,
}

impl Printer {
    fn new(get: &Get, single: bool) -> Self {
        Self {
            format: get.output,
            columns: Columns {
                namespace: get.all_namespaces,
                wide: get.output == Format::Wide,
            },
            headers: !get.no_headers,
            single,
            table: None,
        }
    }

    fn start<T: Row>(&mut self, list: &List<T>, now: Timestamp) -> anyhow::Result<String> {
        let single = list.items.first().filter(|_| self.single);
        Ok(match self.format {
            Format::Table | Format::Wide => {
                let rows: Vec<_> = list
                    .items
                    .iter()
                    .map(|object| row(object, self.columns, now))
                    .collect();
                let colours = print::colours(&std::io::stdout());
                let table = self
                    .table
                    .insert(Table::new(head::<T>(self.columns), colours));
                if !self.headers {
                    table.more(&rows)
                } else if rows.is_empty() {
                    String::new()
                } else {
                    table.start(&rows)
                }
            }
            Format::Json => match single {
                Some(object) => format!("{}\n", serde_json::to_string_pretty(object)?),
                None if self.single => String::new(),
                None => format!("{}\n", serde_json::to_string_pretty(list)?),
            },
            Format::Yaml => match single {
                Some(object) => print::yaml(object)?,
                None if self.single => String::new(),
                None => print::yaml(list)?,
            },
            Format::Name => list.items.iter().map(name).collect(),
        })
    }

    fn change<T: Row>(&mut self, change: &Change<T>, now: Timestamp) -> anyhow::Result<String> {
        let object = &change.object;
        Ok(match self.format {
            Format::Table | Format::Wide => {
                let rows = [row(object, self.columns, now)];
                self.table
                    .as_mut()
                    .map_or_else(String::new, |table| table.more(&rows))
            }
            Format::Json => format!("{}\n", serde_json::to_string(change)?),
            Format::Yaml => format!("---\n{}", print::yaml(change)?),
            Format::Name => name(object),
        })
    }
}

/// `device/default/shop-17`.
fn name<T: Row>(object: &T) -> String {
    format!(
        "{}/{}\n",
        T::PLURAL.trim_end_matches('s'),
        object.metadata().full_name()
    )
}
