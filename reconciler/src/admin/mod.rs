//! The API that `flotta get`, `describe`, `token`, `approve` and the like use: JSON over HTTP on a Unix socket that only its
//! owner may open, or also its group if the operator allows it.
//!
//! | route | answers |
//! |---|---|
//! | `GET /v1/{devices,workloads,requests,releases,events}` | a list; with `watch=true` a line of JSON for each change |
//! | `GET /v1/fleet` | the fleet's public keys |
//! | `GET /v1/check` | whether the server itself is healthy |
//! | `GET /v1/status` | the state of the server's source, and warnings |
//! | `POST /v1/tokens` | a join file |
//! | `GET /v1/tokens` | the tokens, without their secrets |
//! | `POST /v1/tokens/revoke` | the revoked token |
//! | `POST /v1/clock/accept` | why the server's clock was in doubt until now |
//! | `POST /v1/releases/allow` | the held commit whose removals are allowed now |
//! | `POST /v1/decommission` | the device that was decommissioned |
//! | `POST /v1/{approve,deny,revoke}` | the device that was decided about |
//! | `POST /v1/approve-restored` | the devices from before the restore that were approved |

mod answer;
mod check;
pub mod client;
mod join;
mod leave;
mod list;
pub mod query;
pub mod request;
pub mod resource;
mod socket;
mod views;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::depot::Depot;
use crate::enrol::Enroller;
use crate::index::Index;
use crate::keys::Fleet;
use crate::server_state::ServerState;
use crate::store::Store;
use request::FleetFacts;
use resource::{Device, EventObject, JoinToken, ReleaseObject, Request, Workload};

use socket::Peer;
pub use socket::{Access, listen};

/// Where the socket is when the server runs as root.
pub const DEFAULT_SOCKET: &str = "/run/flotta/admin.sock";

/// Longest request: a token with a hundred labels is 20 KB.
const MAX_BODY: usize = 64 << 10;

/// The admin API.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fleet: Arc<Fleet>,
    store: Store,
    index: Arc<Index>,
    depot: Depot,
    enroller: Enroller,
    facts: FleetFacts,
    server_state: ServerState,
    /// Wakes the follower of the source.
    wake: Arc<Notify>,
}

impl Admin {
    /// Creates the API.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another part of the server"
    )]
    pub fn new(
        fleet: Arc<Fleet>,
        store: Store,
        index: Arc<Index>,
        depot: Depot,
        enroller: Enroller,
        facts: FleetFacts,
        server_state: ServerState,
        wake: Arc<Notify>,
    ) -> Self {
        Self(Arc::new(Inner {
            fleet,
            store,
            index,
            depot,
            enroller,
            facts,
            server_state,
            wake,
        }))
    }

    /// Its routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/devices", get(list::serve::<Device>))
            .route("/v1/workloads", get(list::serve::<Workload>))
            .route("/v1/requests", get(list::serve::<Request>))
            .route("/v1/releases", get(list::serve::<ReleaseObject>))
            .route("/v1/events", get(list::serve::<EventObject>))
            .route("/v1/fleet", get(join::fleet))
            .route("/v1/check", get(check::check))
            .route("/v1/status", get(leave::status))
            .route("/v1/clock/accept", post(leave::accept_clock))
            .route("/v1/releases/allow", post(leave::allow))
            .route("/v1/decommission", post(leave::decommission))
            .route(
                "/v1/tokens",
                get(list::serve::<JoinToken>).post(join::token),
            )
            .route("/v1/tokens/revoke", post(join::revoke_token))
            .route("/v1/approve", post(join::approve))
            .route("/v1/approve-restored", post(join::approve_restored))
            .route("/v1/deny", post(join::deny))
            .route("/v1/revoke", post(join::revoke))
            .fallback(answer::no_route)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }

    /// Serves until `stop` is done. Watches end then too, with their answer cut off as by a restart.
    pub async fn serve(
        self,
        listener: UnixListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        tokio::select! {
            served = async {
                let service = self.router().into_make_service_with_connect_info::<Peer>();
                axum::serve(listener, service).await
            } => served,
            () = stop => Ok(()),
        }
    }
}
