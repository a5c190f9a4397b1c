//! `GET /v1/check`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use flotta_bundle::release::{self, Release};
use jiff::Timestamp;

use super::Admin;
use super::leave::warnings;
use crate::check::{Check, Disk, Situation};
use crate::failures::chain;

pub(super) async fn check(State(admin): State<Admin>) -> Json<Check> {
    let now = Timestamp::now();
    let store = &admin.0.store;
    let counted = super::views::count(&admin, now).await;
    let (devices, readable) = match counted {
        Ok(devices) => (devices, Ok(())),
        Err(error) => (BTreeMap::new(), Err(chain(&error))),
    };
    let situation = Situation {
        now,
        failures: store.failures().all(),
        source: admin.0.server_state.source(),
        // warnings that need the store are left out when it cannot be read
        warnings: warnings(&admin, now).await.unwrap_or_default(),
        clock: admin
            .0
            .fleet
            .clock()
            .check()
            .err()
            .map(|doubt| doubt.problem()),
        store: readable,
        release: in_force(&admin),
        certificate: admin.0.fleet.server_not_after(),
        authority: admin.0.facts.device_ca_expires,
        disk: disk(&admin.0.facts.data).map_err(|error| error.to_string()),
        devices,
    };
    Json(Check::of(&situation))
}

/// The release in force, if the fleet's keys signed it.
fn in_force(admin: &Admin) -> Option<Release> {
    let current = admin.0.index.current()?;
    let role = &admin.0.fleet.trust_root().release;
    let envelope = current.release();
    let payload = envelope.verify(release::PAYLOAD_TYPE, &role.keys, role.threshold);
    Release::parse(&payload.ok()?).ok()
}

fn disk(data: &str) -> std::io::Result<Disk> {
    let disk = rustix::fs::statvfs(data)?;
    Ok(Disk {
        total: disk.f_blocks.saturating_mul(disk.f_frsize),
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
    })
}
