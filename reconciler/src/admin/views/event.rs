//! Events.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{EventObject, EventStatus, Metadata};
use crate::store::{EventFilter, FleetEvent, StoreError};

/// How many events are listed by default, the newest ones.
const LISTED: u32 = 1_000;
/// Most events that are listed: about 10 MB.
const MOST: u32 = 50_000;

impl Listed for EventObject {
    async fn all(admin: &Admin, query: &Query, _now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let filter = EventFilter {
            device: query.device.clone(),
            since: query.since,
            limit: query.limit.unwrap_or(LISTED).min(MOST),
            ..EventFilter::default()
        };
        Ok(admin
            .0
            .store
            .events(filter)
            .await?
            .into_iter()
            .map(view)
            .collect())
    }
}

fn view(event: FleetEvent) -> EventObject {
    let object = match &event.device {
        Some(device) => format!("device/{device}"),
        None => "fleet".to_owned(),
    };
    let metadata = Metadata {
        name: event.id.to_string(),
        namespace: event.device.map(|device| device.namespace().to_owned()),
        uid: None,
        labels: BTreeMap::new(),
        creation_timestamp: Some(event.time),
    };
    EventObject::new(
        metadata,
        EventStatus {
            time: event.time,
            kind: if event.warning { "Warning" } else { "Normal" }.to_owned(),
            reason: event.reason,
            message: event.message,
            object,
        },
    )
}
