//! Releases, and commits that were refused or held.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{Commit, Metadata, ReleaseObject, ReleaseStatus};
use crate::publish::VALIDITY;
use crate::store::{ReleaseRecord, StoreError};

/// Most releases that are listed: a month of busy days.
const LISTED: u32 = 200;

impl Listed for ReleaseObject {
    async fn all(admin: &Admin, _query: &Query, _now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let in_force = admin.0.index.current().map(|current| current.sequence());
        let source = admin.0.server_state.source();
        let held = source
            .verdict
            .filter(|verdict| verdict.state == "Held")
            .map(|_| source.commit);
        let records = admin.0.store.releases(LISTED).await?;
        Ok(records
            .into_iter()
            .map(|record| view(record, in_force, held.as_deref()))
            .collect())
    }
}

fn view(record: ReleaseRecord, in_force: Option<u64>, held: Option<&str>) -> ReleaseObject {
    let release = record.release;
    let state = match release.sequence {
        // a newer commit has replaced it, or it was allowed
        None if release.details.held && held != Some(release.revision.commit.as_str()) => {
            "Superseded"
        }
        None if release.details.held => "Held",
        None => "Refused",
        sequence if sequence == in_force => "InForce",
        Some(_) => "Superseded",
    };
    let metadata = Metadata {
        name: match release.sequence {
            Some(sequence) => sequence.to_string(),
            None if release.details.held => format!("held-{}", record.id),
            None => format!("refused-{}", record.id),
        },
        namespace: None,
        uid: None,
        labels: BTreeMap::new(),
        creation_timestamp: Some(release.at),
    };
    ReleaseObject::new(
        metadata,
        ReleaseStatus {
            state: state.to_owned(),
            message: release
                .refused
                .unwrap_or_else(|| release.details.notes.join("; ")),
            source: release.revision.source,
            commit: Commit {
                id: release.revision.commit,
                subject: release.revision.subject,
            },
            issued: release.at,
            expires: release
                .sequence
                .and_then(|_| release.at.checked_add(VALIDITY).ok()),
            devices: release.devices,
            workloads: release.workloads,
            manifests: release.manifests,
            details: release.details,
        },
    )
}
