//! Moving from one address of the server to another: see [`Servers`](super::super::servers::Servers).

use std::time::Duration;

use flotta_bundle::Problem;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::super::{Client, Proxies};
use super::{Link, LinkError};
use crate::backoff::about;
use crate::report::Live;

/// How often a device that is not at the first of the server's addresses tries the preferred ones. A fleet of 100,000 devices
/// makes 110 handshakes a second of it, for as long as the release names an address where nobody answers.
const LOOK_FOR_BETTER: Duration = Duration::from_secs(900);

/// How soon a try that an answer of the server interrupted is repeated.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Waits until it is time to look, and returns the first of these addresses at which the server serves this device.
pub(super) async fn look(
    at: Instant,
    servers: &[String],
    client: &Client,
    proxies: &Proxies,
    root: u32,
) -> Result<String, Option<Problem>> {
    sleep_until(at).await;
    // boxed because the future is large and rarely runs
    Box::pin(first_that_serves(servers, client, proxies, root)).await
}

/// Returns the first of these addresses at which the server serves this device, else why the first does not. It is not enough
/// that a server answers: one that does not know this device, or is failing, would be left again at once.
async fn first_that_serves(
    servers: &[String],
    client: &Client,
    proxies: &Proxies,
    root: u32,
) -> Result<String, Option<Problem>> {
    let mut why = None;
    for server in servers {
        let asking = async {
            let session = client.towards(server, proxies)?.connect().await?;
            session.desired(root, None, false).await
        };
        match asking.await {
            Ok(_) => return Ok(server.clone()),
            Err(error) => {
                tracing::info!(server, problem = %error.problem(), "a preferred address does not answer");
                why.get_or_insert_with(|| error.problem());
            }
        }
    }
    Err(why)
}

/// Waits until the release names other addresses than these; false when the agent is shutting down.
pub(super) async fn are_others(live: &mut watch::Receiver<Live>, servers: &[String]) -> bool {
    let others = live.wait_for(|live| live.settings.servers != servers);
    others.await.is_ok()
}

impl Link {
    /// Moves to the server's next address after this failure. True when that one is to be tried at once.
    pub(super) fn another_turn(&mut self, error: &LinkError) -> bool {
        if std::mem::take(&mut self.was_up) {
            self.servers.restart();
            return false;
        }
        matches!(error, LinkError::Pull(error) if error.retry_after().is_none())
            && self.servers.advance()
    }

    /// Makes a client for the current address.
    pub(super) fn turn(&mut self) -> Result<(), LinkError> {
        let preferred = self.channels.live.borrow().settings.servers.clone();
        if !self.servers.are(&preferred) {
            self.servers.prefer(&preferred);
            self.servers.restart();
        }
        let server = self.servers.current();
        let client = self.anonymous.towards(server, &self.proxies)?;
        if client.authority() != self.anonymous.authority() {
            self.anonymous = client;
            self.client = None;
        }
        self.channels.state.send_if_modified(|state| {
            let is_new = state.server != server;
            server.clone_into(&mut state.server);
            is_new
        });
        Ok(())
    }

    /// Adopts the addresses that the release names now, and returns them.
    pub(super) fn follow_settings(&mut self) -> Vec<String> {
        let preferred = self.channels.live.borrow().settings.servers.clone();
        if !self.servers.are(&preferred) {
            self.servers.prefer(&preferred);
            self.look_at = Instant::now();
        }
        preferred
    }

    /// When to try the preferred addresses. A try that is interrupted is not repeated at once.
    pub(super) fn next_look(&mut self) -> Instant {
        let at = self.look_at;
        if at <= Instant::now() {
            self.look_at = Instant::now() + about(LOOK_AGAIN);
        }
        at
    }

    /// Records that the server serves this device at the current address; `best` says that no address is preferred to it.
    pub(super) fn is_up(&mut self, best: bool) {
        if !std::mem::replace(&mut self.was_up, true) {
            let server = self.servers.works();
            if let Err(error) = self.identity.keep_last_server(server) {
                tracing::warn!(problem = %error.problem(), "the address that works was not kept");
            }
        }
        if best {
            self.passed_over(None);
        }
    }

    /// Handles the result of trying the preferred addresses. An error ends the connection, to connect again at the new address.
    pub(super) fn found(
        &mut self,
        found: Result<String, Option<Problem>>,
    ) -> Result<(), LinkError> {
        self.look_at = Instant::now() + about(LOOK_FOR_BETTER);
        match found {
            Ok(server) => {
                tracing::info!(server, "the server answers at a preferred address");
                self.servers.use_this(&server);
                self.passed_over(None);
                Err(LinkError::Moves)
            }
            Err(problem) => {
                self.passed_over(problem);
                Ok(())
            }
        }
    }

    /// Records why a preferred address is not in use.
    fn passed_over(&self, problem: Option<Problem>) {
        self.channels.state.send_if_modified(|state| {
            let is_new = state.passed_over != problem;
            state.passed_over = problem;
            is_new
        });
    }
}
