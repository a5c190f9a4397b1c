//! `flotta-agent enrol`.

use tokio::time::Instant;

use super::{Answer, CliError, Enrol, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::enrol::{self, EnrolError, Join, reset, service};
use crate::hardware;
use crate::identity::{self, Identity, IdentityError, Joined};
use crate::ledger::Ledger;
use crate::pull::Client;

impl Enrol {
    pub(super) async fn run(self, config: &Config) -> Result<Answer, CliError> {
        let path = self
            .file
            .clone()
            .or_else(|| enrol::waiting_file(config))
            .unwrap_or_else(|| config.join.clone());
        let join = Join::read(&path, self.name.clone())?;
        let clock = Clock::load(&config.clock());
        clock.ask(&config.root).await;
        let client = join.client(&clock, &config.proxies)?;
        let io = |error| EnrolError::Io(config.state.clone(), error);
        let fleet = format!(
            "fleet {} at {}   trust root {} v{}\n",
            join.file.fleet,
            client.authority(),
            identity::short(&join.trust.fingerprint()),
            join.trust.version
        );
        let old = match identity::joined(&config.identity()) {
            // what it had joined cannot be read: the device starts without it
            Err(IdentityError::Malformed(..)) if self.reset => None,
            old => old.map_err(EnrolError::from)?,
        };
        if let Some(old) = old {
            // A device that has lost its trust root joins again with the same keys.
            let is_lost = Ledger::open(&config.state)?.memory().is_none();
            if !self.reset && !is_lost {
                return Err(EnrolError::AlreadyJoined(old.device).into());
            }
            print(&fleet)?;
            return self.join_again(config, &join, &client, &old).await;
        }
        let hold = config.hold().map_err(io)?;
        let hold = hold.ok_or_else(|| EnrolError::Busy(config.state.clone()))?;
        print(&fleet)?;
        if self.reset {
            Identity::reset(&config.identity()).map_err(EnrolError::from)?;
        }
        let (identity, made) =
            Identity::open_or_make(&config.identity()).map_err(EnrolError::from)?;
        let key = identity::short(&identity.fingerprint());
        let made = if made { "made" } else { "found" };
        print(&format!(
            "key   {made} in {} (P-256)  {key}\n",
            config.identity().display()
        ))?;

        let hardware = hardware::read(&config.root);
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        let device = &join.device;
        let waits = || {
            let _ = print(&format!(
                "asked to join as {device}; waiting for approval of key {key} (flotta approve {device})\n"
            ));
        };
        let answer = join
            .ask(&identity, &hardware, &client, Some(deadline), waits)
            .await?;
        let Some((device, certificate)) = answer else {
            join.save(&config.pending())?;
            drop(hold);
            self.start("keeps asking").await?;
            return Ok(Answer::Yes);
        };
        let mut ledger = Ledger::open(&config.state)?;
        let (joined, certificate) = join.keep(&identity, &mut ledger, device, &certificate)?;
        enrol::forget(config)?;
        print(&format!(
            "joined as {}, certificate until {}\n",
            joined.device,
            certificate.not_after.strftime("%Y-%m-%d")
        ))?;
        drop((ledger, hold));
        self.start("see: flotta-agent status").await?;
        Ok(Answer::Yes)
    }

    /// Joins with a new identity. The current one stays in force until the new one is complete; the agent keeps running
    /// meanwhile, and restarts only for the switch.
    async fn join_again(
        &self,
        config: &Config,
        join: &Join,
        client: &Client,
        old: &Joined,
    ) -> Result<Answer, CliError> {
        let io = |error| EnrolError::Io(config.state.clone(), error);
        let lock = config.lock_next().map_err(io)?;
        let lock = lock.ok_or_else(|| EnrolError::Busy(config.next()))?;
        let identity = reset::prepare(config, join, !self.reset)?;
        let key = identity::short(&identity.fingerprint());
        let made = if self.reset { "made" } else { "found" };
        print(&format!(
            "key   {made} in {} (P-256)  {key}\n",
            config.next().display()
        ))?;
        let hardware = hardware::read(&config.root);
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        let device = &join.device;
        let waits = || {
            let _ = print(&format!(
                "asked to join as {device}; waiting for approval of key {key} (flotta approve {device}); until then this \
                 device stays {} of fleet {}\n",
                old.device, old.fleet
            ));
        };
        let asked = join
            .ask(&identity, &hardware, client, Some(deadline), waits)
            .await;
        match asked {
            Ok(Some((device, pem))) => {
                let (joined, certificate) = reset::complete(config, join, &identity, device, &pem)?;
                print(&format!(
                    "joined as {}, certificate until {}\n",
                    joined.device,
                    certificate.not_after.strftime("%Y-%m-%d")
                ))?;
                drop(lock);
                // a running agent does it when it restarts
                if let Some(_hold) = config.hold().map_err(io)? {
                    reset::switch(config)?;
                }
                enrol::forget(config)?;
                self.start("see: flotta-agent status").await?;
            }
            Ok(None) => {
                drop(lock);
                self.start("keeps asking").await?;
            }
            Err(error) => {
                reset::abandon(config)?;
                eprintln!(
                    "nothing has changed: this device stays {} of fleet {}",
                    old.device, old.fleet
                );
                return Err(error.into());
            }
        }
        Ok(Answer::Yes)
    }

    async fn start(&self, then: &str) -> Result<(), CliError> {
        if self.no_start || !service::has_systemd() {
            return print(&format!("start it: flotta-agent run       {then}\n"));
        }
        match service::start().await {
            Ok(()) => print(&format!("started {}       {then}\n", service::UNIT)),
            // the device has joined, which is the answer; starting the agent is only advice
            Err(error) => {
                eprintln!("{} was not started: {error}", service::UNIT);
                print(&format!(
                    "start it: systemctl enable --now {}\n",
                    service::UNIT
                ))
            }
        }
    }
}
