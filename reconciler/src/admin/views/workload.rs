//! Workloads, over all devices that report them.

use std::collections::BTreeMap;

use flotta_bundle::code;
use flotta_bundle::wire::WorkloadState;
use jiff::Timestamp;

use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{Device, Metadata, Workload, WorkloadOn, WorkloadStatus};
use crate::store::StoreError;

impl Listed for Workload {
    async fn all(admin: &Admin, _query: &Query, now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let everyone = Query::default();
        let mut devices = Device::all(admin, &everyone, now).await?;
        devices.retain(|device| device.admits(&everyone));
        Ok(collect(&devices))
    }

    fn admits(&self, query: &Query) -> bool {
        let image = query.image.as_deref();
        image.is_none_or(|image| {
            let mut on = self.status.on.iter();
            on.any(|on| on.workload.has_image(image))
        })
    }
}

/// Collects the workloads of the devices, each once per namespace.
fn collect(devices: &[Device]) -> Vec<Workload> {
    let mut workloads: BTreeMap<(Option<String>, String), WorkloadStatus> = BTreeMap::new();
    for device in devices {
        for workload in &device.status.workloads {
            let key = (device.metadata.namespace.clone(), workload.name.clone());
            let status = workloads.entry(key).or_default();
            status.devices += 1;
            match workload.state {
                // a workload that is not ready counts like one that is not running
                WorkloadState::Running if workload.code != code::NOT_READY.id => {
                    status.running += 1;
                }
                WorkloadState::Failed => status.failed += 1,
                _ => {}
            }
            if status.message.is_empty() && !workload.message.is_empty() {
                status.message = format!("{}: {}", device.metadata.name, workload.message);
            }
            status.on.push(WorkloadOn {
                device: device.metadata.name.clone(),
                workload: workload.clone(),
            });
        }
    }
    workloads
        .into_iter()
        .map(|((namespace, name), status)| {
            let metadata = Metadata {
                name,
                namespace,
                ..Metadata::default()
            };
            Workload::new(metadata, status)
        })
        .collect()
}
