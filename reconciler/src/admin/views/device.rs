//! Devices: their identity, what they are offered and what they reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotta_api::condition::{ConditionStatus, ConditionType, Reason};
use flotta_api::v1alpha1::Condition;
use flotta_bundle::wire::WorkloadReport;
use flotta_bundle::{DeviceName, Digest, Owner, manifest};
use jiff::Timestamp;

use super::{COMMITS, named};
use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{
    Commit, Device, DeviceStatus, DeviceWorkload, Identity, MEMBER_OF, Metadata, Running,
};
use crate::index::{Described, Known, Offered};
use crate::publish::inventory::Left;
use crate::status::{self, Facts};
use crate::store::{DeviceRecord, StoreError};

impl Listed for Device {
    async fn all(admin: &Admin, query: &Query, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let current = admin.0.index.current();
        let described = admin.0.index.described();
        let releases = admin.0.store.releases(COMMITS).await?.into_iter();
        let commits: BTreeMap<u64, Commit> = releases
            .filter_map(|record| {
                let commit = Commit {
                    id: record.release.revision.commit,
                    subject: record.release.revision.subject,
                };
                Some((record.release.sequence?, commit))
            })
            .collect();
        let mut devices = Vec::new();
        for record in records(admin, query).await? {
            let name = &record.device.device;
            let offered = current.as_ref().and_then(|current| current.offered(name));
            let seen = Seen {
                offered,
                wanted: known(admin, offered.map(|offered| offered.manifest)).await,
                runs: known(admin, applied(&record)).await,
                described: described.get(name),
                commits: &commits,
                now,
            };
            devices.push(seen.view(record));
        }
        let joined: BTreeSet<_> = devices
            .iter()
            .map(|device| device.metadata.full_name())
            .collect();
        let mut absent: Vec<_> = described
            .iter()
            .filter(|(name, _)| !joined.contains(&name.to_string()))
            .collect();
        if !absent.is_empty() {
            let waiting = admin.0.store.waiting().await?;
            devices.extend(absent.drain(..).map(|(name, described)| {
                let waits = waiting.contains(name);
                awaited(name, described, waits)
            }));
        }
        devices.sort_by_cached_key(|device| device.metadata.full_name());
        Ok(devices)
    }

    fn admits(&self, query: &Query) -> bool {
        let state = &self.status.state;
        let by_state = match &query.state {
            Some(states) => states
                .split(',')
                .any(|asked| asked.eq_ignore_ascii_case(state)),
            // a revoked device is shown only when asked for
            None => query.name.is_some() || *state != status::State::Revoked.to_string(),
        };
        let set = query.set.as_ref();
        let image = query.image.as_deref();
        by_state
            && set.is_none_or(|set| self.status.sets.contains(set))
            && image.is_none_or(|image| {
                let mut workloads = self.status.workloads.iter();
                workloads.any(|workload| workload.has_image(image))
            })
    }

    /// A report without news is not a change.
    fn is_news(&self, before: &Self) -> bool {
        self != before && {
            let mut before = before.clone();
            before.status.last_seen = self.status.last_seen;
            *self != before
        }
    }
}

/// Reads one row for one device, else all; the caller filters.
async fn records(admin: &Admin, query: &Query) -> Result<Vec<DeviceRecord>, StoreError> {
    let (namespace, name) = (query.namespace.as_deref(), query.name.as_deref());
    match namespace
        .zip(name)
        .map(|(of, name)| DeviceName::new(of, name))
    {
        Some(Ok(name)) => Ok(admin.0.store.device(&name).await?.into_iter().collect()),
        _ => admin.0.store.devices().await,
    }
}

/// A device that is in Git and has not joined yet.
fn awaited(name: &DeviceName, described: &Described, waits: bool) -> Device {
    let metadata = Metadata {
        labels: described.labels.clone(),
        ..named(name, None)
    };
    let message = if waits {
        "asks to join: flotta get requests"
    } else {
        "has not joined yet"
    };
    let ready = Condition::new(
        ConditionType::Ready,
        ConditionStatus::False,
        Reason::NotJoined,
        message,
    );
    let status = DeviceStatus {
        state: status::State::Pending.to_string(),
        message: message.to_owned(),
        sets: described.sets.clone(),
        conditions: vec![ready],
        ..DeviceStatus::default()
    };
    Device::new(metadata, status)
}

/// Counts devices by state, without reading their reports: connected, offline, pending and revoked.
pub(in crate::admin) async fn count(
    admin: &Admin,
    now: Timestamp,
) -> Result<BTreeMap<String, usize>, StoreError> {
    let store = &admin.0.store;
    let current = admin.0.index.current();
    let offered = |name: &DeviceName| Some(current.as_ref()?.offered(name)?.manifest);
    let described = admin.0.index.described();
    let revoked = store.revoked().await?;
    let is_described = |name: &DeviceName| described.contains_key(name);
    let mut known_ones = revoked.iter().filter(|name| is_described(name)).count();
    let mut seen = BTreeMap::<_, Vec<_>>::new();
    store.each_member(|name, member| {
        seen.entry(offered(name)).or_default().push(member.seen());
        known_ones += usize::from(is_described(name));
    });
    let mut count = BTreeMap::new();
    let mut add = |state: &str, many: usize| {
        if many > 0 {
            *count.entry(state.to_owned()).or_default() += many;
        }
    };
    add("Revoked", revoked.len());
    // in Git but not joined
    add("Pending", described.len().saturating_sub(known_ones));
    for (manifest, seen) in seen {
        let heartbeat = heartbeat(known(admin, manifest).await.as_deref());
        for seen in seen {
            let state = match seen {
                None => "Pending",
                Some(seen) if status::is_recent(seen, now, heartbeat) => "Connected",
                Some(_) => "Offline",
            };
            add(state, 1);
        }
    }
    Ok(count)
}

fn heartbeat(wanted: Option<&Known>) -> u32 {
    wanted.map_or_else(
        || manifest::Settings::default().heartbeat_seconds,
        |known| known.heartbeat_seconds,
    )
}

/// What is known of a manifest. An unreadable one is logged, and shown as if it were missing.
async fn known(admin: &Admin, manifest: Option<Digest>) -> Option<Arc<Known>> {
    let manifest = manifest?;
    let known = admin.0.index.known(manifest, &admin.0.depot).await;
    known.unwrap_or_else(|error| {
        tracing::warn!(%error, %manifest, "a manifest cannot be read");
        None
    })
}

/// What the server knows to show a device.
struct Seen<'a> {
    offered: Option<Offered>,
    /// The offered manifest.
    wanted: Option<Arc<Known>>,
    /// The applied manifest.
    runs: Option<Arc<Known>>,
    described: Option<&'a Described>,
    commits: &'a BTreeMap<u64, Commit>,
    now: Timestamp,
}

impl Seen<'_> {
    fn view(&self, record: DeviceRecord) -> Device {
        let DeviceRecord {
            device,
            report,
            unreadable,
            seen,
            clones,
        } = record;
        let state = status::assess(Facts {
            report: report.as_ref(),
            unreadable: unreadable.as_deref(),
            seen,
            now: self.now,
            offered: self.offered,
            heartbeat_seconds: heartbeat(self.wanted.as_deref()),
            schema: self.wanted.as_ref().map_or(1, |known| known.schema),
            revoked: device.revoked_at.is_some(),
            clones: clones.as_ref(),
        });
        let applied = report.as_ref().and_then(|report| report.applied);
        let running = applied
            .zip(state.release)
            .map(|(applied, release)| self.running(release, applied.manifest));
        let wanted = self
            .offered
            .map(|offered| self.running(offered.sequence, offered.manifest));
        let server = report.as_ref().map(|report| report.server.clone());
        let reported = report.map(|report| (report.agent, report.hardware, report.workloads));
        let (agent, hardware, workloads) =
            reported.unwrap_or_else(|| (String::new(), device.hardware.clone(), Vec::new()));
        // the rendered set and labels win: Git takes precedence over the token
        let by_token = || Described {
            sets: device.set.iter().cloned().collect(),
            labels: device.labels.clone(),
            ..Described::default()
        };
        let described = self.described.cloned().unwrap_or_else(by_token);
        let message = [state.message, of_left(described.left, &device.device)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        let Described {
            sets, mut labels, ..
        } = described;
        if let Some(set) = device.set.filter(|set| sets.contains(set)) {
            labels.entry(MEMBER_OF.to_owned()).or_insert(set);
        }
        let fingerprint = device.key.hex();
        let metadata = Metadata {
            uid: Some(fingerprint.clone()),
            labels,
            ..named(&device.device, Some(device.joined_at))
        };
        Device::new(
            metadata,
            DeviceStatus {
                state: state.state.to_string(),
                message,
                sets,
                last_seen: seen,
                identity: Some(Identity {
                    fingerprint,
                    certificate_expires: Some(device.certificate_not_after),
                }),
                wanted,
                running,
                conditions: state.conditions,
                workloads: workloads
                    .into_iter()
                    .map(|report| self.workload(report))
                    .collect(),
                hardware,
                server: server.unwrap_or_default(),
                agent,
            },
        )
    }

    fn running(&self, release: u64, manifest: Digest) -> Running {
        Running {
            release,
            manifest: manifest.to_string(),
            commit: self.commits.get(&release).cloned(),
        }
    }

    fn workload(&self, report: WorkloadReport) -> DeviceWorkload {
        let problem = report.problem.map(|problem| (problem.text(), problem.code));
        let (message, code) = problem.unwrap_or_default();
        let images = self.runs.iter().flat_map(|known| &known.images);
        let is_its = |owner: &Owner| owner.as_str() == report.name;
        let images = images.filter(|image| image.workloads.iter().any(is_its));
        DeviceWorkload {
            images: images.map(|image| image.reference.clone()).collect(),
            name: report.name,
            state: report.state,
            code,
            message,
            since: report.since,
            restarts: report.restarts,
        }
    }
}

fn applied(record: &DeviceRecord) -> Option<Digest> {
    let applied = record.report.as_ref()?.applied?;
    Some(applied.manifest)
}

/// The message for a device that is no longer in Git.
fn of_left(left: Option<Left>, device: &DeviceName) -> String {
    match left {
        None => String::new(),
        Some(Left::Keeps(_)) => {
            format!("left Git, keeps what it runs (to remove it: flotta decommission {device})")
        }
        Some(Left::Decommissioned) => {
            format!("decommissioned (end its identity: flotta revoke {device})")
        }
    }
}
