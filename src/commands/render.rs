//! `flotta render`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use flotta_bundle::{FleetName, Problem};
use flotta_reconciler::publish::offline;
use flotta_reconciler::{review, source};
use flotta_renderer::{Options, render};
use jiff::Timestamp;

use crate::error::{Answer, Coded};
use crate::print::findings;
use crate::{output, print};

#[derive(Debug, Args)]
#[command(after_help = super::lint::EXIT_CODES)]
pub(crate) struct Render {
    /// Directory, read as it is on disk, or Git URL
    #[arg(default_value = ".")]
    source: String,
    /// Where to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Revision of the repository that the directory is in; branch of a Git URL
    #[arg(long)]
    rev: Option<String>,
    /// An image without a digest is an error
    #[arg(long)]
    require_digests: bool,
    /// Sign with this release key (PKCS#8, PEM): the output is a depot, with the release after its last one
    #[arg(
        long,
        value_name = "FILE",
        requires = "fleet",
        conflicts_with = "unsigned"
    )]
    key: Option<PathBuf>,
    /// The fleet that the release is for
    #[arg(long, requires = "key")]
    fleet: Option<FleetName>,
    /// Do not sign: for review, devices do not accept it [default]
    #[arg(long)]
    unsigned: bool,
}

impl Render {
    pub(crate) async fn run(self) -> anyhow::Result<Answer> {
        let checkout = super::lint::read(&self.source, self.rev.as_deref()).await?;
        let options = Options {
            require_digests: self.require_digests,
        };
        let rendered = render(&checkout.input, &[], &options);
        if !rendered.findings.is_empty() {
            let text = findings::human(
                &rendered.findings,
                &checkout.tree,
                &rendered.counts,
                &super::lint::prefix(&self.source),
                print::colours(&std::io::stderr()),
            );
            output::talk(text.trim_end());
        }
        if source::refuses(&rendered) {
            return Ok(Answer::No);
        }
        let out = self.out.display();
        let mut what = format!(
            "{}, {}",
            print::count(rendered.counts.devices, "device"),
            print::count(rendered.counts.manifests, "manifest")
        );
        if !rendered.held.is_empty() {
            let held = print::count(rendered.held.len(), "device");
            what = format!("{what}, {held} held back");
        }
        if let Some((key, fleet)) = self.key.zip(self.fleet) {
            let key = offline::read_key(&key)?;
            let now = Timestamp::now();
            let sequence =
                offline::write(&self.out, &rendered, checkout.revision, &fleet, &key, now)
                    .await
                    .map_err(|error| Coded(Problem::new(error.code(), error.to_string())))?;
            output::answer(&format!("{out}: release {sequence} of {fleet}, {what}\n"))?;
        } else {
            review::write(&self.out, &rendered).context("not written")?;
            output::answer(&format!("{out}: {what}, not signed: for review\n"))?;
        }
        Ok(super::lint::answer(&rendered.findings))
    }
}
