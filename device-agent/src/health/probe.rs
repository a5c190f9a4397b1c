//! Runs a check once.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use flotta_bundle::health::{Action, HealthCheck};
use tokio::time::timeout;

use super::net::{Endpoint, Request};
use crate::backend::{BackendError, Container, Podman};

/// A command that did not end in time: Podman cannot kill it, so the next one must wait for it or they would pile up.
pub(super) type Late = RefCell<Option<String>>;

/// Runs single checks.
pub(super) trait Probe {
    /// Runs a check once. Returns that it passed, or why it failed; an error means that the check could not be made.
    async fn ask(
        &self,
        check: &HealthCheck,
        container: &Container,
        late: &Late,
    ) -> Result<Result<(), String>, BackendError>;
}

/// Runs checks over the network and with Podman.
pub(super) struct Prober<'a, P> {
    podman: &'a P,
}

impl<'a, P> Prober<'a, P> {
    pub(super) fn new(podman: &'a P) -> Self {
        Self { podman }
    }
}

impl<P: Podman> Probe for Prober<'_, P> {
    async fn ask(
        &self,
        check: &HealthCheck,
        container: &Container,
        late: &Late,
    ) -> Result<Result<(), String>, BackendError> {
        let limit = Duration::from_secs(check.timeout_seconds.into());
        let address = container.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let host = |host: &Option<String>| host.clone().unwrap_or_else(|| address.to_string());
        let (what, asked) = match &check.action {
            Action::Http {
                tls,
                host: named,
                port,
                path,
                headers,
            } => {
                let endpoint = Endpoint {
                    tls: *tls,
                    host: host(named),
                    port: *port,
                };
                let what = format!("GET {endpoint}{path}");
                let request = Request {
                    endpoint,
                    path,
                    headers,
                };
                (what, timeout(limit, request.send()).await)
            }
            Action::Tcp { host: named, port } => {
                let endpoint = Endpoint {
                    tls: false,
                    host: host(named),
                    port: *port,
                };
                let connected = async { endpoint.connect().await.map(drop) };
                let what = format!("TCP {}", endpoint.authority());
                (what, timeout(limit, connected).await)
            }
            Action::Exec { command } => {
                let what = format!("`{}`", command.join(" "));
                let before = late.take();
                if let Some(before) = before {
                    let is_running = within(limit, self.podman.is_running(&before)).await;
                    if !matches!(is_running, Ok(false)) {
                        late.replace(Some(before));
                        is_running?;
                        return Ok(Err(format!("{what}: the previous one has not ended")));
                    }
                }
                let command = self.podman.prepare(&container.id, command);
                let command = within(limit, command).await?;
                late.replace(Some(command.clone()));
                let exit = match timeout(limit, self.podman.run(&command)).await {
                    Ok(exit) => Ok(match exit? {
                        0 => Ok(()),
                        code => Err(format!("exited {code}")),
                    }),
                    Err(elapsed) => Err(elapsed),
                };
                if exit.is_ok() {
                    late.take();
                }
                (what, exit)
            }
        };
        let late = |_| Err(format!("no answer within {} s", limit.as_secs()));
        Ok(asked
            .unwrap_or_else(late)
            .map_err(|why| format!("{what}: {why}")))
    }
}

/// What Podman answers in time. Later, the check could not be made: that says nothing about the container.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let late = |_| Err(BackendError::Other("Podman does not answer".to_owned()));
    timeout(limit, answer).await.unwrap_or_else(late)
}
