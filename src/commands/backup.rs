//! `flotta backup` and `flotta restore`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use flotta_bundle::{DeviceName, Problem};
use flotta_reconciler::backup::{
    self, BackupError, Contents, Identity, KeyError, Recipient, RestoreSource,
};
use jiff::Timestamp;

use crate::error::{Answer, Coded};
use crate::output;

/// Longest line that is read as an answer, in bytes: a thousand names.
const MAX_LINE: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to make, or the folder to make it in [default: flotta-DATE-TIME.tar here]
    #[arg(long, value_name = "FILE|DIR")]
    to: Option<PathBuf>,
    /// Encrypt it for this recipient, as age-keygen prints it; may be repeated
    #[arg(long, value_name = "age1…")]
    encrypt: Vec<Recipient>,
    /// The server's data directory; the server may be running
    #[arg(long, value_name = "DIR", default_value = super::serve::DATA)]
    data: PathBuf,
}

impl Backup {
    pub(crate) async fn run(self) -> anyhow::Result<Answer> {
        let now = Timestamp::now();
        let kind = if self.encrypt.is_empty() {
            "tar"
        } else {
            "tar.age"
        };
        let name = format!("flotta-{}.{kind}", now.strftime("%Y-%m-%d-%H%M%S"));
        let to = match self.to {
            Some(to) if to.is_dir() => to.join(name),
            Some(to) => to,
            None => name.into(),
        };
        let made = backup::make(&self.data, &to, &self.encrypt, now);
        let made = made.await.map_err(coded)?;
        let path = made.path.display();
        output::answer(&format!("{path}\n"))?;
        output::talk(&format!(
            "{}; {} KiB, read back\n\
             it holds the fleet's private keys: whoever can read it can sign for every device\n\
             to restore:  flotta restore {path}{} --data DIR",
            inside(&made.contents),
            made.size.div_ceil(1024),
            if self.encrypt.is_empty() {
                ""
            } else {
                " --identity FILE"
            },
        ));
        if made.left_out > 0 {
            output::talk(&format!(
                "{} files of the release in force are not in the depot: the server renders them again from its source",
                made.left_out
            ));
        }
        Ok(Answer::Yes)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A file made by `flotta backup`, or a folder made by `flotta keys export`
    from: PathBuf,
    /// The identity file that opens an encrypted backup, as age-keygen writes it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The data directory to make: new, or empty
    #[arg(long, value_name = "DIR", default_value = super::serve::DATA)]
    data: PathBuf,
    /// Devices that were revoked, or replaced by another machine, after the backup was made: they stay so
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    revoked: Vec<DeviceName>,
    /// No device was revoked or replaced after the backup was made
    #[arg(long, conflicts_with = "revoked")]
    none_revoked: bool,
}

impl Restore {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let identity = self.identity.as_deref().map(identity).transpose()?;
        let identity = identity.as_ref();
        // checked before the person is asked anything
        backup::check_empty(&self.data).map_err(coded)?;
        let given = RestoreSource::look(&self.from, identity).map_err(coded)?;
        let since = match &given {
            RestoreSource::Backup(contents) => {
                contents.made.strftime("%Y-%m-%d %H:%M UTC").to_string()
            }
            RestoreSource::Keys(_) => "these keys were made".to_owned(),
        };
        let revoked = if self.none_revoked || !self.revoked.is_empty() {
            self.revoked.into_iter().collect()
        } else {
            ask(&since)?
        };
        let now = Timestamp::now();
        let restored = backup::restore(&self.from, identity, &self.data, &revoked, now);
        let restored = restored.map_err(coded)?;
        output::answer(&match &given {
            RestoreSource::Backup(contents) => format!("{}\n", inside(contents)),
            RestoreSource::Keys(fleet) => format!("fleet {fleet}; keys alone\n"),
        })?;
        for device in &restored.revoked {
            output::talk(&format!("{device} is revoked"));
        }
        for device in &restored.barred {
            output::talk(&format!(
                "{device} is not in the backup: no machine joins by this name without a token"
            ));
        }
        if restored.tokens > 0 {
            output::talk(&format!(
                "{} open tokens are closed, as they may have been used since: flotta token create makes new ones",
                restored.tokens
            ));
        }
        output::talk(&format!(
            "next:  flotta serve --data {} --source …   as before, with the same --name and --listen\n\
             devices that the server does not know ask to come back:  flotta get requests, flotta approve --restored",
            self.data.display()
        ));
        Ok(Answer::Yes)
    }
}

/// Reads an identity file.
fn identity(path: &Path) -> anyhow::Result<Identity> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LINE).read_to_string(&mut text));
    read.map_err(|error| coded(BackupError::Read(path.to_owned(), error)))?;
    let bad = |error: KeyError| coded(BackupError::Damaged(path.to_owned(), error.to_string()));
    Identity::parse(&text).map_err(bad)
}

/// Asks the person at the terminal; without a terminal it is an error.
fn ask(since: &str) -> anyhow::Result<BTreeSet<DeviceName>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(coded(BackupError::RevokedSince(since.to_owned())));
    }
    output::talk(&format!(
        "Which devices were revoked, or replaced by another machine, since {since}? Names, or Enter for none:"
    ));
    let mut line = String::new();
    stdin.lock().take(MAX_LINE).read_line(&mut line)?;
    if !line.ends_with('\n') {
        // end of input is not an answer
        return Err(coded(BackupError::RevokedSince(since.to_owned())));
    }
    let names = line
        .split([',', ' ', '\t', '\n'])
        .filter(|name| !name.is_empty());
    Ok(names.map(str::parse).collect::<Result<_, _>>()?)
}

/// `fleet shops from 2026-11-27 02:00 UTC, release 25; keys, 38 devices, 4 requests`.
fn inside(contents: &Contents) -> String {
    let count = |count: u64, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    };
    let release = contents.release.map_or_else(
        || "no release".to_owned(),
        |release| format!("release {release}"),
    );
    format!(
        "fleet {} from {}, {release}; keys, {}, {}",
        contents.fleet,
        contents.made.strftime("%Y-%m-%d %H:%M UTC"),
        count(contents.devices, "device"),
        count(contents.requests, "request"),
    )
}

/// The error with its code.
pub(super) fn coded(error: BackupError) -> anyhow::Error {
    let code = error.code();
    Coded(Problem::new(
        code,
        format!("{:#}", anyhow::Error::new(error)),
    ))
    .into()
}
