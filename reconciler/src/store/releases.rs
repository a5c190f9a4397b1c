//! The history of releases, including refused commits. The releases themselves are in the depot.

use flotta_bundle::release::Revision;
use jiff::Timestamp;

use super::value::{json, millis, time};
use super::{Store, StoreError};
use crate::publish::details::Details;

/// Most rows: years of commits.
const KEPT: i64 = 10_000;

/// A release to record, or a commit that did not become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// Its sequence; none when it was refused or held.
    pub sequence: Option<u64>,
    /// The revision it was rendered from.
    pub revision: Revision,
    /// When it was published, refused or held.
    pub at: Timestamp,
    /// Why it was refused or held.
    pub refused: Option<String>,
    /// Number of devices.
    pub devices: u64,
    /// Number of workloads.
    pub workloads: u64,
    /// Number of distinct manifests.
    pub manifests: u64,
    /// What it takes away, and what is wrong with it.
    pub details: Details,
}

/// A recorded release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// An increasing number.
    pub id: i64,
    /// The release.
    pub release: NewRelease,
}

impl Store {
    /// Records a release. A refusal with the same commit and reason as the newest is not recorded twice, because the source is
    /// polled again and again.
    pub async fn add_release(&self, release: NewRelease) -> Result<(), StoreError> {
        self.write(
            move |connection| {
                let newest = connection.prepare_cached(
                    "SELECT 1 FROM releases WHERE id = (SELECT max(id) FROM releases) AND refused = ?1 AND revision = ?2",
                )?.exists((&release.refused, &release.revision.commit))?;
                if newest {
                    return Ok(());
                }
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO releases (sequence, source, revision, subject, at, refused, devices, workloads, \
                         manifests, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    )?
                    .execute((
                        release.sequence,
                        &release.revision.source,
                        &release.revision.commit,
                        &release.revision.subject,
                        millis(release.at),
                        &release.refused,
                        release.devices,
                        release.workloads,
                        release.manifests,
                        json(&release.details),
                    ))?;
                connection
                    .prepare_cached(
                        "DELETE FROM releases WHERE id <= ?1 AND (sequence IS NULL OR sequence < (SELECT max(sequence) FROM releases))",
                    )?
                    .execute([connection.last_insert_rowid() - KEPT])?;
                Ok(())
            },
            |()| {},
        )
        .await
    }

    /// The newest `limit` releases and refused commits, newest first.
    pub async fn releases(&self, limit: u32) -> Result<Vec<ReleaseRecord>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, sequence, source, revision, subject, at, refused, devices, workloads, manifests, details \
                 FROM releases ORDER BY id DESC LIMIT ?1",
            )?;
            let mut rows = query.query([limit])?;
            let mut releases = Vec::new();
            while let Some(row) = rows.next()? {
                releases.push(ReleaseRecord {
                    id: row.get(0)?,
                    release: NewRelease {
                        sequence: row.get(1)?,
                        revision: Revision {
                            source: row.get(2)?,
                            commit: row.get(3)?,
                            subject: row.get(4)?,
                            inventory: None,
                        },
                        at: time(row.get(5)?)?,
                        refused: row.get(6)?,
                        devices: row.get(7)?,
                        workloads: row.get(8)?,
                        manifests: row.get(9)?,
                        // another version may have written more or less
                        details: serde_json::from_str(&row.get::<_, String>(10)?).unwrap_or_default(),
                    },
                });
            }
            Ok(releases)
        })
        .await
    }

    /// The highest sequence ever published; devices that accepted it take none below it.
    pub async fn highest_sequence(&self) -> Result<Option<u64>, StoreError> {
        self.read(|connection| {
            let highest = "SELECT max(sequence) FROM releases";
            Ok(connection.query_row(highest, [], |row| row.get(0))?)
        })
        .await
    }
}
