//! Enrolment: a join file says where the server is and what to trust; the device makes its own keys.

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
    /// A join file that cannot be used; the text begins with its path.
    #[error("{0}")]
    File(String),
    /// There is no join file, and the device has not joined.
    #[error("this device has not joined a fleet")]
    NotJoined,
    /// The device has joined already.
    #[error("this device has joined already, as {0}")]
    AlreadyJoined(DeviceName),
    /// A new identity was approved, and has not taken over yet.
    #[error("a new identity is waiting to take over")]
    Complete,
    /// A person has to approve the request.
    #[error("{0} is waiting for approval")]
    Pending(DeviceName),
    /// A person denied the request.
    #[error("the request to join was denied: {0}")]
    Denied(String),
    /// Another `flotta-agent` holds the lock.
    #[error("another flotta-agent is using {0}")]
    Busy(PathBuf),
    /// The mounts of the machine have changed since the agent was started with its own view of them.
    #[error(
        "the agent's view of the machine's mounts is out of date: it exits, and systemd starts it again"
    )]
    ShutOut,
    /// The disk failed.
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// The request to the server failed.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Something is wrong with keys or certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ledger cannot be read or written.
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
                    help: "to leave it and join again: flotta-agent enrol --reset JOINFILE"
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

/// A join file with a valid trust root.
#[derive(Debug, Clone)]
pub struct Join {
    /// The file's content.
    pub file: JoinFile,
    /// The trust root in the file.
    pub trust: TrustRoot,
    /// The name to join as.
    pub device: DeviceName,
}

impl Join {
    /// Reads a join file. `name` takes precedence over the name in the file, and that over the machine's host name.
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
            // serde_json repeats the place at the end; it is given in front
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

    /// Saves the file, with the chosen name, for the agent to keep asking with.
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

    /// A client for the server that this file names.
    pub fn client(&self, clock: &Clock, proxies: &Proxies) -> Result<Client, EnrolError> {
        let JoinFile { server, ca, .. } = &self.file;
        Ok(Client::anonymous(server, ca, clock, proxies)?)
    }

    /// Asks to join until there is a decision, or until `deadline`; without one, for as long as it takes. `waits` is called once
    /// if a person has to approve.
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
                // a newer server may have more states than pending
                Ok(Some(Enrolment::Pending { .. } | Enrolment::Unknown)) => {
                    posted = true;
                    if !told {
                        told = true;
                        waits();
                    }
                }
                // the server has forgotten the request: send it again
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

    /// Saves the result of joining, in an order that makes it enough to ask again with the same keys after a crash at any point.
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
        // also writes the copies
        identity::repair(identity.folder(), false)?;
        Ok((joined, certificate))
    }
}

/// The memory to start with after joining with `trust`; none when the existing memory stays valid: joining again must not
/// allow a rollback to an older release.
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
        // a different fleet, even if it has the same name
        _ => Some(Memory {
            trust: trust.clone(),
            highest: None,
        }),
    }
}

/// Builds the request to join, with its proofs.
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
        format!("it names no device, and the host name cannot be a device's name: {error}; give one with --as NAME")
    })
}

/// Joins from `flotta-agent run` on a device that has not joined: asks with the join file it finds, for as long as it takes.
pub async fn join_at_boot(
    config: &Config,
    clock: &Clock,
    ledger: &mut Ledger,
) -> Result<Joined, EnrolError> {
    let hardware = crate::hardware::read(&config.root);
    loop {
        // read again each time: a person may have replaced it
        let join = Join::read(&waiting_file(config).ok_or(EnrolError::NotJoined)?, None)?;
        let (identity, _) = Identity::open_or_make(&config.identity())?;
        let key = identity::short(&identity.fingerprint());
        let device = &join.device;
        let waits =
            || tracing::info!(%device, key, "waiting for approval: flotta approve {device}");
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
            // a person can still change the server's answer, and nobody is here to restart the agent
            Err(error @ (EnrolError::Denied(_) | EnrolError::Pull(_))) => {
                tracing::warn!(problem = %error.problem(), "not joined");
                sleep(crate::backoff::about(Duration::from_secs(300))).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The join file to join with unattended: that of a pending request, or one left by an image.
pub fn waiting_file(config: &Config) -> Option<PathBuf> {
    let files = [config.pending(), config.join.clone()];
    files.into_iter().find(|path| path.exists())
}

/// Removes join files, because a token that lies around is a key to the fleet.
pub fn forget(config: &Config) -> Result<(), EnrolError> {
    for path in [config.pending(), config.join.clone()] {
        durable::remove(&path).map_err(|error| EnrolError::Io(path, error))?;
    }
    Ok(())
}
