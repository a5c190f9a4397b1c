//! How a device joins: a join file tells where the server is and what to trust; the keys are made here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flotta_bundle::code::{self, Problem};
use flotta_bundle::verify::Memory;
use flotta_bundle::wire::{Enrolment, EnrolmentRequest, Hardware, JoinFile, MAX_JOIN_BYTES, Token};
use flotta_bundle::{DeviceName, TrustRoot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::Config;
use crate::durable;
use crate::identity::{self, Certificate, Identity, IdentityError, Joined};
use crate::ledger::{Ledger, LedgerError};
use crate::pull::{Client, Proxies, PullError, chain};

pub mod reset;
pub mod service;
#[cfg(test)]
mod tests;

/// Why the device has not joined.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A join file that cannot be used; the text begins with its place.
    #[error("{0}")]
    File(String),
    /// No join file, and none was joined by.
    #[error("this device has not joined a fleet")]
    NotJoined,
    /// It has joined already.
    #[error("this device has joined already, as {0}")]
    AlreadyJoined(DeviceName),
    /// Another identity was approved.
    #[error("a new identity waits to take over")]
    Complete,
    /// A person has to approve it.
    #[error("{0} waits for approval")]
    Pending(DeviceName),
    /// A person said no.
    #[error("the request to join was denied: {0}")]
    Denied(String),
    /// `flotta-agent run` is at work.
    #[error("another flotta-agent works on {0}")]
    Busy(PathBuf),
    /// Its mounts were made when it was started; the machine's have changed since.
    #[error(
        "the agent's view of the machine's mounts is out of date: it ends, and systemd starts it again"
    )]
    ShutOut,
    /// The disk.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// The server.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Keys or certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl EnrolError {
    /// The error with its code, its causes and what to do.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::File(_) => code::JOIN_FILE,
            Self::NotJoined => code::NO_CERTIFICATE,
            Self::AlreadyJoined(_) => {
                return Problem {
                    help: "to leave it and join anew: flotta-agent enrol --reset JOINFILE"
                        .to_owned(),
                    ..Problem::new(code::NAME_TAKEN, self.to_string())
                };
            }
            Self::Complete => {
                return Problem::new(code::BUSY, self.to_string())
                    .with_help("restart the agent: systemctl restart flotta-agent");
            }
            Self::Pending(device) => {
                return Problem {
                    help: format!("on the server: flotta approve {device}"),
                    ..Problem::new(code::BAD_CERTIFICATE, self.to_string())
                };
            }
            Self::Denied(_) => code::DENIED,
            Self::Busy(_) => code::BUSY,
            Self::ShutOut => code::READ_ONLY,
            Self::Io(..) => code::IDENTITY,
            Self::Ledger(_) => code::LEDGER,
            Self::Pull(error) => return error.problem(),
            Self::Identity(error) => return error.problem(),
        };
        Problem::new(code, chain(self))
    }
}

/// A join file that can be used: its trust root holds.
#[derive(Debug, Clone)]
pub struct Join {
    /// The file.
    pub file: JoinFile,
    /// The trust root in it.
    pub trust: TrustRoot,
    /// The name to join as.
    pub device: DeviceName,
}

impl Join {
    /// Reads a join file; `name` goes before the one in the file, and that before the machine's host name.
    pub fn read(path: &Path, name: Option<DeviceName>) -> Result<Self, EnrolError> {
        let place = path.display();
        let bytes = durable::read(path, MAX_JOIN_BYTES)
            .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .map_err(|error| EnrolError::File(format!("{place}: {error}")))?;
        Self::parse(&bytes, path, name)
    }

    /// Reads the content of a join file.
    pub fn parse(bytes: &[u8], path: &Path, name: Option<DeviceName>) -> Result<Self, EnrolError> {
        let place = path.display();
        let bad = |why: &dyn std::fmt::Display| EnrolError::File(format!("{place}: {why}"));
        let file: JoinFile = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            // serde_json says the place again, behind; it is said before
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text);
            EnrolError::File(format!("{place}:{line}:{column}: {what}"))
        })?;
        if file.schema != 1 {
            let what = format!(
                "schema {}, this program knows 1: update flotta-agent first",
                file.schema
            );
            return Err(bad(&what));
        }
        let trust = TrustRoot::open(&file.trust_root).map_err(|error| bad(&chain(&error)))?;
        if trust.fleet != file.fleet {
            let what = format!(
                "it is for fleet {}, its trust root for {}",
                file.fleet, trust.fleet
            );
            return Err(bad(&what));
        }
        let device = match name.or_else(|| file.device.clone()) {
            Some(device) => device,
            None => host_name().map_err(|why| bad(&why))?,
        };
        Ok(Self {
            file,
            trust,
            device,
        })
    }

    /// Keeps the file, with the name that was given, for the agent: it goes on asking by it.
    pub fn save(&self, path: &Path) -> Result<(), EnrolError> {
        let file = JoinFile {
            device: Some(self.device.clone()),
            ..self.file.clone()
        };
        serde_json::to_vec(&file)
            .map_err(std::io::Error::other)
            .and_then(|json| durable::write(path, &json, 0o600))
            .map_err(|error| EnrolError::Io(path.to_owned(), error))
    }

    /// A client that knows the server by this file.
    pub fn client(&self, clock: &Clock, proxies: &Proxies) -> Result<Client, EnrolError> {
        let JoinFile { server, ca, .. } = &self.file;
        Ok(Client::anonymous(server, ca, clock, proxies)?)
    }

    /// Asks to join until there is a decision, or until `deadline`; `waits` is called once when a person has to approve.
    /// Without a deadline it asks for as long as it takes.
    pub async fn ask(
        &self,
        identity: &Identity,
        hardware: &Hardware,
        client: &Client,
        deadline: Option<Instant>,
        mut waits: impl FnMut(),
    ) -> Result<Option<(DeviceName, String)>, EnrolError> {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
        let (mut posted, mut told) = (false, false);
        loop {
            match self.ask_once(client, identity, hardware, posted).await {
                Ok(Some(Enrolment::Approved {
                    device,
                    certificate,
                })) => {
                    return Ok(Some((device, certificate)));
                }
                Ok(Some(Enrolment::Denied { reason })) => return Err(EnrolError::Denied(reason)),
                // a newer server may have more to say than that it waits
                Ok(Some(Enrolment::Pending { .. } | Enrolment::Unknown)) => {
                    posted = true;
                    if !told {
                        told = true;
                        waits();
                    }
                }
                // the server has forgotten: ask anew
                Ok(None) => posted = false,
                Err(EnrolError::Pull(error)) if !error.is_final() => {
                    let past = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if past && !told {
                        return Err(error.into());
                    }
                    tracing::info!(problem = %error.problem(), "cannot ask to join yet");
                }
                Err(error) => return Err(error),
            }
            let delay = Instant::now() + backoff.next_delay();
            match deadline {
                Some(deadline) if Instant::now() >= deadline => return Ok(None),
                Some(deadline) => sleep_until(delay.min(deadline)).await,
                None => sleep_until(delay).await,
            }
        }
    }

    async fn ask_once(
        &self,
        client: &Client,
        identity: &Identity,
        hardware: &Hardware,
        posted: bool,
    ) -> Result<Option<Enrolment>, EnrolError> {
        let session = client.connect().await?;
        if posted {
            return Ok(session.enrolment(&identity.fingerprint()).await?);
        }
        let token = self.file.token.clone();
        let request = request(identity, &self.device, token, hardware.clone())?;
        Ok(Some(session.enrol(&request).await?))
    }

    /// Keeps what joining gave. In this order after a crash at any point it is enough to ask again with the same keys.
    pub fn keep(
        &self,
        identity: &Identity,
        ledger: &mut Ledger,
        device: DeviceName,
        pem: &str,
    ) -> Result<(Joined, Certificate), EnrolError> {
        let certificate = identity.keep_certificate(pem, &self.file.fleet, &device)?;
        if let Some(memory) = remember(ledger.memory(), &self.trust) {
            ledger.begin(memory)?;
        }
        let joined = Joined {
            fleet: self.file.fleet.clone(),
            device,
            server: self.file.server.clone(),
        };
        identity.keep_joined(&joined, &self.file.ca)?;
        // their copies
        identity::repair(identity.folder(), false)?;
        Ok((joined, certificate))
    }
}

/// What to remember after joining by `trust`; none when what is remembered already stays good: joining again must not open a
/// way back to an older release.
fn remember(old: Option<&Memory>, trust: &TrustRoot) -> Option<Memory> {
    match old {
        Some(old) if old.trust == *trust => None,
        Some(old) if old.trust.fleet == trust.fleet && old.trust.version > trust.version => None,
        Some(old) if old.trust.fleet == trust.fleet && old.trust.version < trust.version => {
            Some(Memory {
                trust: trust.clone(),
                highest: old.highest,
            })
        }
        // another fleet, even if it has the same name
        _ => Some(Memory {
            trust: trust.clone(),
            highest: None,
        }),
    }
}

/// The request to join, with its proofs.
pub fn request(
    identity: &Identity,
    device: &DeviceName,
    token: Option<Token>,
    hardware: Hardware,
) -> Result<EnrolmentRequest, IdentityError> {
    Ok(EnrolmentRequest {
        device: device.clone(),
        token,
        csr: identity.csr(device)?,
        sealing_key: identity.sealing_key(),
        sealing_proof: identity.sealing_proof(device)?,
        hardware,
    })
}

/// The machine's host name, as a device name.
fn host_name() -> Result<DeviceName, String> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let name = DeviceName::new("default", &host);
    name.map_err(|error| {
        format!("it names no device, and the host name cannot be one: {error}; say it: --as NAME")
    })
}

/// `flotta-agent run` on a device that has not joined: asks by the join file that is there, for as long as it takes.
pub async fn join_at_boot(
    config: &Config,
    clock: &Clock,
    ledger: &mut Ledger,
) -> Result<Joined, EnrolError> {
    let hardware = crate::hardware::read(&config.root);
    loop {
        // read again each time: a person may have put a better one in its place
        let join = Join::read(&waiting_file(config).ok_or(EnrolError::NotJoined)?, None)?;
        let (identity, _) = Identity::open_or_make(&config.identity())?;
        let key = identity::short(&identity.fingerprint());
        let device = &join.device;
        let waits = || tracing::info!(%device, key, "waits for approval: flotta approve {device}");
        let asked = match join.client(clock, &config.proxies) {
            Ok(client) => join.ask(&identity, &hardware, &client, None, waits).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(Some((device, certificate))) => {
                let (joined, _) = join.keep(&identity, ledger, device, &certificate)?;
                if let Err(error) = forget(config) {
                    tracing::warn!(problem = %error.problem(), "the join file is still there");
                }
                return Ok(joined);
            }
            Ok(None) => {}
            // a person can change each of these on the server, and nobody is here to start this again
            Err(error @ (EnrolError::Denied(_) | EnrolError::Pull(_))) => {
                tracing::warn!(problem = %error.problem(), "not joined");
                sleep(crate::backoff::about(Duration::from_secs(300))).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The join file that a device joins by on its own: of a request that waits, or left by an image.
pub fn waiting_file(config: &Config) -> Option<PathBuf> {
    let files = [config.pending(), config.join.clone()];
    files.into_iter().find(|path| path.exists())
}

/// Removes join files: a token in a drawer is a key to the fleet.
pub fn forget(config: &Config) -> Result<(), EnrolError> {
    for path in [config.pending(), config.join.clone()] {
        durable::remove(&path).map_err(|error| EnrolError::Io(path, error))?;
    }
    Ok(())
}
