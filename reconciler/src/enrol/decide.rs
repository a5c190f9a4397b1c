//! What a person decides: who is let in, taken back, turned away, and whose identity ends.

use std::collections::BTreeSet;

use flotta_bundle::{DeviceName, Digest};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::transaction::{Approved, News, approve, find_request};
use super::{Approval, EnrolError, Enroller, Restored, Target};
use crate::store::{Device, JoinRequest, RequestState, devices, is_restored, requests, revoked};
use crate::text::plain;

/// Approvals on their way to the disk at a time: what comes together is one commit.
const AT_ONCE: usize = 64;
/// Longest reason of a denial, in characters; it is shown on the device.
const MAX_REASON: usize = 256;

impl Enroller {
    /// A person lets a device in. A denied request may be approved after all.
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
                        // before its connections end: it must not be taken for one that the store forgot
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

    /// A person takes back every device that has a certificate of this fleet and that the store does not know: after a
    /// restore. One whose name another key has meanwhile is left for a person to look at, and so is one that is not
    /// `in_git`: without the set that it had, its next manifest would be an empty one.
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

    /// A person turns a device away.
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

    /// A person ends a device's identity: its certificate is worth nothing from now on, its connections close, its name is
    /// free. A device that was revoked before stays so. Says whether it was not, and its key. After a restore, a name that the
    /// store does not know may be a device's that joined after the backup: then it is the name that is turned away.
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
