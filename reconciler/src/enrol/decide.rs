//! Decisions of people: approve, approve after a restore, deny and revoke.

use std::collections::BTreeSet;

use flotta_bundle::{DeviceName, Digest};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::transaction::{Approved, News, approve, find_request};
use super::{Approval, EnrolError, Enroller, Restored, Target};
use crate::store::{Device, JoinRequest, RequestState, devices, is_restored, requests, revoked};
use crate::text::plain;

/// Parallel approvals, which the store commits together.
const AT_ONCE: usize = 64;
/// Longest reason of a denial, in characters; it is shown on the device.
const MAX_REASON: usize = 256;

impl Enroller {
    /// Approves a request. One that was denied can still be approved.
    pub async fn approve(
        &self,
        target: Target,
        approval: Approval,
        by: &str,
        now: Timestamp,
    ) -> Result<Device, EnrolError> {
        let (fleet, store, who) = (self.fleet.clone(), self.store.clone(), by.to_owned());
        let Approved { device, from, news } = self
            .store
            .write(
                move |connection| approve(connection, &fleet, &target, approval, who, now),
                move |Approved { device, news, .. }| match news {
                    News::Joined(replaced) => {
                        // before its connections end, so that it is not taken for a device that the store does not know
                        if let Some(key) = replaced {
                            store.was_replaced(*key);
                        }
                        store.has_joined(&device.device, device.key);
                    }
                    News::Terms => store.inventory_changed(),
                    News::Nothing => {}
                },
            )
            .await?;
        let (reason, message) = match news {
            News::Joined(_) => ("Joined", format!("asked from {from}, approved by {by}")),
            News::Terms => ("Approved", format!("set and labels were given by {by}")),
            News::Nothing => return Ok(device),
        };
        self.note(Some(&device.device), false, reason, message, now)
            .await;
        Ok(device)
    }

    /// Approves, after a restore, all devices that have a certificate of this fleet and that the store does not know. A device
    /// whose name another key has taken meanwhile is left for a person to decide, and so is one that is not `in_git`: without
    /// the set that it had, its next manifest would be empty.
    pub async fn approve_restored(
        &self,
        in_git: &BTreeSet<DeviceName>,
        by: &str,
        now: Timestamp,
    ) -> Result<Restored, EnrolError> {
        let mut waiting = self.store.requests().await?;
        waiting.retain(|request| request.vouched && request.state == RequestState::Pending);
        let (known, unknown): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|request| in_git.contains(&request.device));
        let decisions: Vec<_> = known
            .into_iter()
            .map(|request| async move {
                let target = Target {
                    device: request.device.clone(),
                    key: Some(request.key.hex()),
                };
                let approved = self.approve(target, Approval::default(), by, now).await;
                approved.map_err(|error| (request, error))
            })
            .collect();
        let decided: Vec<_> = stream::iter(decisions)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let unknown = unknown.into_iter().map(|request| {
            let error = EnrolError::NotInGit(request.device.clone());
            (request, error)
        });
        let mut restored = Restored {
            approved: Vec::new(),
            left: unknown.collect(),
        };
        for decision in decided {
            match decision {
                Ok(device) => restored.approved.push(device),
                Err((_, error)) if !error.is_refusal() => return Err(error),
                Err(left) => restored.left.push(left),
            }
        }
        restored.approved.sort_by(|a, b| a.device.cmp(&b.device));
        restored.left.sort_by(|a, b| a.0.device.cmp(&b.0.device));
        Ok(restored)
    }

    /// Denies a request.
    pub async fn deny(
        &self,
        target: Target,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<JoinRequest, EnrolError> {
        let reason = plain(reason, MAX_REASON);
        let state = RequestState::Denied {
            at: now,
            by: by.to_owned(),
            reason: reason.clone(),
        };
        let request = self
            .store
            .write(
                move |connection| {
                    let mut request = find_request(connection, &target)?;
                    if matches!(request.state, RequestState::Approved { .. }) {
                        return Err(EnrolError::AlreadyApproved(request.device));
                    }
                    request.state = state;
                    requests::put(connection, &request)?;
                    Ok(request)
                },
                |_| {},
            )
            .await?;
        let message = format!("{} was denied by {by}: {reason}", request.device);
        self.note(None, false, "JoinDenied", message, now).await;
        Ok(request)
    }

    /// Revokes a device's identity: its certificate is no longer accepted, its connections close, and its name is free. Returns
    /// its key, and whether it was not revoked before. After a restore, a name that the store does not know may belong to a
    /// device that joined after the backup: then the name itself is barred.
    pub async fn revoke(
        &self,
        device: &DeviceName,
        by: &str,
        now: Timestamp,
    ) -> Result<(Option<Digest>, bool), EnrolError> {
        let (name, leaves, store) = (device.clone(), device.clone(), self.store.clone());
        let (key, is_new) = self
            .store
            .write(
                move |connection| {
                    let Some(mut device) = devices::find(connection, &name)? else {
                        if !is_restored(connection)? {
                            return Err(EnrolError::NoDevice(name));
                        }
                        return Ok((None, revoked::bar(connection, &name, now)?));
                    };
                    let is_new = device.revoked_at.is_none();
                    device.revoked_at.get_or_insert(now);
                    devices::put(connection, &device)?;
                    revoked::add(connection, &name, &device.key, now)?;
                    requests::remove(connection, &device.key)?;
                    Ok::<_, EnrolError>((Some(device.key), is_new))
                },
                move |(key, _)| match key {
                    Some(key) => store.has_left(&leaves, *key),
                    None => store.was_barred(leaves),
                },
            )
            .await?;
        if is_new {
            let message = format!("identity revoked by {by}");
            self.note(Some(device), true, "Revoked", message, now).await;
        }
        Ok((key, is_new))
    }
}
