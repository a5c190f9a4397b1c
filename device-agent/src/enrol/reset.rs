//! Joining again with a new identity. The current identity stays in force until the new one is complete next to it:
//!
//! ```text
//! identity/                in force
//! identity.new/            made by `enrol --reset`
//!   key.pem, sealing.key     first
//!   join                     written before the first request; from here on the agent keeps asking
//!   certificate.pem, ca.pem  approved
//!   joined.json              written last; from here on the new identity takes over
//! identity.old/            exists only between the two renames of the switch
//! ```
//!
//! A crash at any point leaves one identity or the other, and a request that fails or is denied leaves nothing.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use flotta_bundle::DeviceName;
use tokio::time::sleep;

use super::{EnrolError, Join, remember};
use crate::backoff::{Backoff, about};
use crate::clock::Clock;
use crate::config::Config;
use crate::durable;
use crate::hardware;
use crate::identity::{self, Certificate, Identity, Joined};
use crate::ledger::Ledger;

#[cfg(test)]
mod tests;

/// The join file of a new identity.
const JOIN: &str = "join";

fn failed(path: &Path) -> impl Fn(io::Error) -> EnrolError {
    |error| EnrolError::Io(path.to_owned(), error)
}

fn remove(folder: &Path) -> Result<(), EnrolError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(folder)(error)),
        _ => Ok(()),
    }
}

/// Makes new keys next to the current ones, or copies these, and saves the join file: from here on the agent keeps asking
/// with them. An earlier preparation is discarded unless it was approved. The caller must hold the lock
/// ([`Settings::lock_next`]), as for everything below that changes the new identity.
pub fn prepare(config: &Config, join: &Join, keep_keys: bool) -> Result<Identity, EnrolError> {
    let next = config.next();
    if is_complete(&next) {
        return Err(EnrolError::Complete);
    }
    abandon(config)?;
    if keep_keys {
        Identity::copy_keys(&config.identity(), &next)?;
    }
    let (identity, _) = Identity::open_or_make(&next)?;
    join.save(&next.join(JOIN))?;
    Ok(identity)
}

/// Discards what was prepared; the current identity stays.
pub fn abandon(config: &Config) -> Result<(), EnrolError> {
    remove(&config.next())
}

/// Saves the result of joining: from here on the new identity takes over, at the agent's next start at the latest.
pub fn complete(
    config: &Config,
    join: &Join,
    identity: &Identity,
    device: DeviceName,
    pem: &str,
) -> Result<(Joined, Certificate), EnrolError> {
    // the join file says what to trust
    join.save(&config.next().join(JOIN))?;
    let certificate = identity.keep_certificate(pem, &join.file.fleet, &device)?;
    let joined = Joined {
        fleet: join.file.fleet.clone(),
        device,
        server: join.file.server.clone(),
    };
    identity.keep_joined(&joined, &join.file.ca)?;
    Ok((joined, certificate))
}

/// The pending request of a new identity, if there is one.
pub fn waiting(config: &Config) -> Option<(Join, Identity)> {
    let next = config.next();
    let join = Join::read(&next.join(JOIN), None).ok()?;
    let identity = Identity::open(&next).ok()?;
    (!is_complete(&next)).then_some((join, identity))
}

fn is_complete(next: &Path) -> bool {
    Join::read(&next.join(JOIN), None).is_ok()
        && Identity::open(next).is_ok_and(|identity| identity.is_complete())
}

/// Switches to a complete new identity, and removes leftovers. The caller must hold the state directory, and must not have
/// read anything from it yet.
pub fn switch(config: &Config) -> Result<(), EnrolError> {
    // another process has the lock and is still preparing
    let io = failed(&config.state);
    let Some(_lock) = config.lock_next().map_err(io)? else {
        return Ok(());
    };
    switch_by_steps(config, &mut || Ok(()))
}

/// The same; `step` is called before each step that changes something, and can abort it there.
pub(super) fn switch_by_steps(
    config: &Config,
    step: &mut dyn FnMut() -> Result<(), EnrolError>,
) -> Result<(), EnrolError> {
    let (home, next, last) = (config.identity(), config.next(), config.last());
    let sync = || {
        let done = File::open(&config.state).and_then(|folder| folder.sync_all());
        done.map_err(failed(&config.state))
    };
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).map_err(failed(from))?;
        sync()
    };
    if is_complete(&next) {
        let join = Join::read(&next.join(JOIN), None)?;
        let ledger = Ledger::open(&config.state)?;
        let memory = remember(ledger.memory(), &join.trust);
        if let Some(memory) = memory.or_else(|| ledger.memory().cloned()) {
            step()?;
            ledger.hand_over(memory, &next)?;
        }
        if home.exists() {
            step()?;
            remove(&last)?;
            step()?;
            rename(&home, &last)?;
        }
        step()?;
        rename(&next, &home)?;
    } else if !home.exists() && last.exists() {
        // the switch did not complete: put the old one back
        step()?;
        rename(&last, &home)?;
    }
    if next.exists() && !next.join(JOIN).exists() {
        // these keys were made, but never used to ask
        step()?;
        remove(&next)?;
    }
    step()?;
    let used = home.join(JOIN);
    durable::remove(&used).map_err(failed(&used))?;
    step()?;
    remove(&last)
}

/// The outcome of a pending request.
#[derive(Debug)]
pub enum Decision {
    /// The new identity is complete and takes over.
    Approved,
    /// A person denied the request. The current identity stays.
    Denied(EnrolError),
}

/// How long to wait before another try to switch to a new identity: each try restarts the agent and its connection.
pub fn switching() -> Backoff {
    Backoff::new(Duration::from_secs(60), Duration::from_secs(3600))
}

/// Keeps asking with the new keys for as long as it takes. `again` says when to try again after a failed switch.
pub async fn ask(config: &Config, clock: &Clock, again: &mut Backoff) -> Decision {
    let hardware = hardware::read(&config.root);
    loop {
        let Some((join, identity)) = waiting(config) else {
            if is_complete(&config.next()) {
                // the switch failed at the last start
                sleep(again.next_delay()).await;
                return Decision::Approved;
            }
            // there is no pending request, or somebody has discarded it
            return std::future::pending().await;
        };
        let key = identity::short(&identity.fingerprint());
        let device = &join.device;
        let waits =
            || tracing::info!(%device, key, "waiting for approval: flotta approve {device}");
        let asked = match join.client(clock, &config.proxies) {
            Ok(client) => join.ask(&identity, &hardware, &client, None, waits).await,
            Err(error) => Err(error),
        };
        match decide(config, &join, &identity, asked) {
            Ok(Some(decision)) => return decision,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(problem = %error.problem(), "the device did not join again");
                sleep(about(Duration::from_secs(300))).await;
            }
        }
    }
}

fn decide(
    config: &Config,
    join: &Join,
    identity: &Identity,
    asked: Result<Option<(DeviceName, String)>, EnrolError>,
) -> Result<Option<Decision>, EnrolError> {
    let io = failed(&config.state);
    // another process is preparing a new request, which replaces this one
    let lock = config.lock_next().map_err(io)?;
    let _lock = lock.ok_or_else(|| EnrolError::Busy(config.state.clone()))?;
    let still = waiting(config).is_some_and(|(_, now)| now.fingerprint() == identity.fingerprint());
    if !still {
        return Ok(None);
    }
    match asked {
        Ok(Some((device, pem))) => {
            complete(config, join, identity, device, &pem)?;
            Ok(Some(Decision::Approved))
        }
        Ok(None) => Ok(None),
        Err(error @ EnrolError::Denied(_)) => {
            abandon(config)?;
            Ok(Some(Decision::Denied(error)))
        }
        Err(error) => Err(error),
    }
}
