//! The index of the release in force: what each device is offered, which devices wait for a change, and which blobs a device
//! may read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use flotta_bundle::envelope::Envelope;
use flotta_bundle::manifest::{self, Image};
use flotta_bundle::tree::Tree;
use flotta_bundle::wire::Offer;
use flotta_bundle::{DeviceName, Digest, Leaf, Manifest};
use tokio::sync::watch;

use crate::blobs::{Blobs, read_whole};
use crate::publish::inventory::Left;

#[cfg(test)]
mod tests;

/// Most cached digests of which blobs belong to which manifest: 32 MB. A fleet has a few roles of a few hundred files.
const MAX_CACHED: usize = 1 << 20;

/// The release in force, prepared for lookups.
#[derive(Debug)]
pub struct Current {
    release: Envelope,
    sequence: u64,
    tree: Tree,
    devices: HashMap<DeviceName, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    index: u64,
    /// The offered manifest: the leaf's own, or an earlier one that it names.
    offered: Digest,
}

/// The essentials of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Sequence of the release.
    pub sequence: u64,
    /// The manifest.
    pub manifest: Digest,
}

impl Current {
    /// Prepares a release over `leaves`, in the order of its tree. Each device is offered its leaf's newest manifest.
    pub fn new(release: Envelope, sequence: u64, leaves: impl IntoIterator<Item = Leaf>) -> Self {
        let mut devices = HashMap::new();
        let tree = Tree::new(leaves.into_iter().zip(0..).map(|(leaf, index)| {
            let bytes = leaf.encode();
            let offered = leaf.manifest;
            devices.insert(leaf.device, Entry { index, offered });
            bytes
        }));
        Self {
            release,
            sequence,
            tree,
            devices,
        }
    }

    /// Offers `device` another manifest that its leaf names. Returns false when the leaf does not name it.
    pub fn hold_back(&mut self, device: &DeviceName, manifest: Digest) -> bool {
        let named = self.leaf(device).is_some_and(|leaf| leaf.names(&manifest));
        match self.devices.get_mut(device) {
            Some(entry) if named => {
                entry.offered = manifest;
                true
            }
            _ => false,
        }
    }

    /// Sequence of the release.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The root of its tree, which distinguishes two releases with one sequence.
    pub fn root(&self) -> Digest {
        self.tree.head().root
    }

    /// The signed release.
    pub fn release(&self) -> &Envelope {
        &self.release
    }

    /// Number of devices in the release.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether the release has no devices.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The offer for `device`; none when the release does not name it.
    pub fn offered(&self, device: &DeviceName) -> Option<Offered> {
        self.devices.get(device).map(|entry| Offered {
            sequence: self.sequence,
            manifest: entry.offered,
        })
    }

    /// The leaf of `device`.
    pub fn leaf(&self, device: &DeviceName) -> Option<Leaf> {
        let entry = self.devices.get(device)?;
        Leaf::parse(self.tree.leaf(entry.index)?).ok()
    }

    fn offer(&self, device: &DeviceName, manifest: Digest, roots: Vec<Envelope>) -> Option<Offer> {
        let entry = self.devices.get(device)?;
        Some(Offer {
            roots,
            release: self.release.clone(),
            leaf: String::from_utf8(self.tree.leaf(entry.index)?.to_vec()).ok()?,
            index: entry.index,
            proof: self.tree.prove(entry.index)?,
            manifest,
        })
    }
}

/// The index. Shared as `Arc<Index>`.
#[derive(Debug)]
pub struct Index {
    roots: Vec<Envelope>,
    current: ArcSwapOption<Current>,
    /// The waiting devices. An entry is removed when nobody waits for it any more.
    waiting: Mutex<HashMap<DeviceName, watch::Sender<Option<Digest>>>>,
    content: Mutex<Content>,
    described: ArcSwap<BTreeMap<DeviceName, Described>>,
}

/// A cache of manifests. It depends only on their digests, so it is shared by all devices and never stale.
#[derive(Debug, Default)]
struct Content {
    manifests: HashMap<Digest, Arc<Known>>,
    digests: usize,
}

/// The facts about a manifest that the server needs.
#[derive(Debug)]
pub struct Known {
    /// The digests of its files, sorted.
    files: Vec<Digest>,
    /// The heartbeat interval, in seconds.
    pub heartbeat_seconds: u32,
    /// The schema that it needs.
    pub schema: u32,
    /// Its images.
    pub images: Vec<Image>,
}

/// What a device can be offered, given the schemas that its agent reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// This manifest.
    Offered(Offered),
    /// Nothing, because its agent does not read this schema, which its manifest needs.
    Needs(u32),
    /// Nothing, because the release does not name it.
    Unnamed,
}

/// What rendering found about a device, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// The sets it is in, the strongest first.
    pub sets: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is in Git.
    pub in_git: bool,
    /// Set if it was in Git and is no longer.
    pub left: Option<Left>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks; even if it did, the maps would be consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    /// Creates an index without a release. `roots` are all trust roots in order, version 1 first.
    pub fn new(roots: Vec<Envelope>) -> Self {
        Self {
            roots,
            current: ArcSwapOption::empty(),
            waiting: Mutex::default(),
            content: Mutex::default(),
            described: ArcSwap::default(),
        }
    }

    /// Replaces the descriptions of the devices.
    pub fn describe(&self, described: Arc<BTreeMap<DeviceName, Described>>) {
        self.described.store(described);
    }

    /// The descriptions of the devices.
    pub fn described(&self) -> Arc<BTreeMap<DeviceName, Described>> {
        self.described.load_full()
    }

    /// Puts a release in force, and wakes the devices whose offered manifest has changed.
    pub fn publish(&self, current: Current) {
        let waiting = lock(&self.waiting);
        let current = Arc::new(current);
        self.current.store(Some(current.clone()));
        for (device, sender) in waiting.iter() {
            let now = current.offered(device).map(|offered| offered.manifest);
            sender.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
    }

    /// The release in force.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// The essentials of the offer for `device`, which is all that a poll without a change needs.
    pub fn offered(&self, device: &DeviceName) -> Option<Offered> {
        self.current.load().as_ref()?.offered(device)
    }

    /// Version of the newest trust root.
    pub fn newest_root(&self) -> u32 {
        u32::try_from(self.roots.len()).unwrap_or(u32::MAX)
    }

    /// The offer for `device` if its agent reads manifests up to schema `reads`: if it cannot read the newest, the newest of the
    /// earlier ones that it can.
    pub async fn readable(
        &self,
        device: &DeviceName,
        reads: u32,
        blobs: &dyn Blobs,
    ) -> std::io::Result<Readable> {
        let Some(offered) = self.offered(device) else {
            return Ok(Readable::Unnamed);
        };
        // the cheap path for an up-to-date agent
        if reads >= manifest::SCHEMA {
            return Ok(Readable::Offered(offered));
        }
        let needs = match self.known(offered.manifest, blobs).await? {
            Some(known) if known.schema > reads => known.schema,
            _ => return Ok(Readable::Offered(offered)),
        };
        let leaf = self.current().and_then(|current| current.leaf(device));
        for manifest in leaf.into_iter().flat_map(|leaf| leaf.earlier) {
            let known = self.known(manifest, blobs).await?;
            if known.is_some_and(|known| known.schema <= reads) {
                return Ok(Readable::Offered(Offered {
                    manifest,
                    ..offered
                }));
            }
        }
        Ok(Readable::Needs(needs))
    }

    /// Makes the full offer, with the trust roots after version `after_root`; none when another release is in force by now.
    pub fn offer(&self, device: &DeviceName, offered: Offered, after_root: u32) -> Option<Offer> {
        let skip = usize::try_from(after_root).unwrap_or(usize::MAX);
        let roots = self.roots.iter().skip(skip).cloned().collect();
        let current = self.current.load();
        let current = current.as_ref()?;
        if current.sequence != offered.sequence {
            return None;
        }
        current.offer(device, offered.manifest, roots)
    }

    /// Subscribes to changes of the manifest that `device` is offered. Call [`Self::offered`] after this: a later release wakes
    /// the watch.
    pub fn watch(self: &Arc<Self>, device: &DeviceName) -> Watch {
        let mut waiting = lock(&self.waiting);
        let receiver = waiting
            .entry(device.clone())
            .or_insert_with(|| {
                let offered = self.offered(device).map(|offered| offered.manifest);
                watch::Sender::new(offered)
            })
            .subscribe();
        Watch {
            index: self.clone(),
            device: device.clone(),
            receiver: Some(receiver),
        }
    }

    /// Number of devices with a held poll.
    pub fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Whether `device` may read `blob`: a manifest that its leaf names, or a file of one. Earlier manifests count, so that a
    /// device that is fetching one when a release comes can finish.
    pub async fn may_read(
        &self,
        device: &DeviceName,
        blob: &Digest,
        blobs: &dyn Blobs,
    ) -> std::io::Result<bool> {
        let Some(leaf) = self.current().and_then(|current| current.leaf(device)) else {
            return Ok(false);
        };
        if leaf.names(blob) {
            return Ok(true);
        }
        for manifest in std::iter::once(leaf.manifest).chain(leaf.earlier) {
            // earlier manifests may be gone from the depot
            if let Some(known) = self.known(manifest, blobs).await?
                && known.files.binary_search(blob).is_ok()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The facts about a manifest; none when the depot does not have it.
    pub async fn known(
        &self,
        manifest: Digest,
        blobs: &dyn Blobs,
    ) -> std::io::Result<Option<Arc<Known>>> {
        if let Some(known) = lock(&self.content).manifests.get(&manifest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(bytes) = read_whole(blobs, manifest, flotta_bundle::manifest::MAX_BYTES).await?
        else {
            return Ok(None);
        };
        let parsed = Manifest::parse(&bytes).map_err(std::io::Error::other)?;
        let mut files: Vec<_> = parsed.files.iter().map(|file| file.digest).collect();
        files.sort_unstable();
        files.dedup();
        let known = Arc::new(Known {
            files,
            heartbeat_seconds: parsed.settings.heartbeat_seconds,
            schema: parsed.schema,
            images: parsed.images,
        });
        let mut content = lock(&self.content);
        let size = known.files.len() + known.images.len() + 1;
        if content.digests + size > MAX_CACHED {
            *content = Content::default();
        }
        content.digests += size;
        content.manifests.insert(manifest, Arc::clone(&known));
        Ok(Some(known))
    }
}

/// A subscription to changes of the manifest that one device is offered.
#[derive(Debug)]
pub struct Watch {
    index: Arc<Index>,
    device: DeviceName,
    /// Set until drop.
    receiver: Option<watch::Receiver<Option<Digest>>>,
}

impl Watch {
    /// Waits until the offered manifest differs from that at the last call, or at [`Index::watch`].
    pub async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // Not reached, because the index lives as long as its watches; there would be nothing to wake for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = lock(&self.index.waiting);
        // Dropped under the lock, so that of two watches that end together the second sees that it is the last.
        self.receiver = None;
        if waiting
            .get(&self.device)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            waiting.remove(&self.device);
        }
    }
}
