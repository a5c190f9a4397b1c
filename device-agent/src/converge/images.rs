//! Images, fetched before anything of the running system changes.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::code::{self, Code, Problem};
use flotta_bundle::manifest::{Image, Manifest, Pull};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::apply::Failures;
use crate::backend::{BackendError, Podman};

/// Images pulled at once: one that does not come must not hold up the others, and a small device has a small memory.
const AT_ONCE: usize = 3;

/// Images that must be pulled, and those that nobody could look for.
pub(super) struct Missing<'a> {
    images: Vec<&'a Image>,
    failures: BTreeMap<&'a str, (&'a Image, BackendError)>,
    wanted: &'a BTreeSet<String>,
}

/// Looks for the images of workloads that are about to start; of a new manifest, also for those that are always pulled.
pub(super) async fn missing<'a, P: Podman>(
    manifest: &'a Manifest,
    wanted: &'a BTreeSet<String>,
    is_new: bool,
    podman: &P,
) -> Missing<'a> {
    let mut missing = Missing {
        images: Vec::new(),
        failures: BTreeMap::new(),
        wanted,
    };
    for image in manifest
        .images
        .iter()
        .filter(|image| image.workloads.iter().any(|name| wanted.contains(name)))
    {
        if image.pull == Pull::Always && is_new {
            missing.images.push(image);
            continue;
        }
        match podman.has_image(&image.reference).await {
            Ok(true) => {}
            Ok(false) if image.pull == Pull::Never => {
                let error = BackendError(
                    "it is not in the device's store, and imagePullPolicy is Never".to_owned(),
                );
                missing.failures.insert(&image.reference, (image, error));
            }
            Ok(false) => missing.images.push(image),
            Err(error) => {
                missing.failures.insert(&image.reference, (image, error));
            }
        }
    }
    missing
}

impl<'a> Missing<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = &'a str> {
        self.images
            .iter()
            .flat_map(|image| image.workloads.iter().map(String::as_str))
    }

    /// Pulls; the workloads whose images did not come.
    pub(super) async fn get<P: Podman>(self, podman: &P) -> Failures {
        let mut failures = self.failures;
        let mut pulls = stream::iter(self.images)
            .map(|image| async move { (image, podman.pull(&image.reference).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((image, result)) = pulls.next().await {
            if let Err(error) = result {
                failures.insert(&image.reference, (image, error));
            }
        }
        let mut held = Failures::new();
        for (image, error) in failures.into_values() {
            for workload in image
                .workloads
                .iter()
                .filter(|name| self.wanted.contains(*name))
            {
                let message = format!("image {}: {error}", image.reference);
                held.entry(workload.clone())
                    .or_insert_with(|| Problem::new(kind(&error), message));
            }
        }
        held
    }
}

/// Podman passes on what the kernel says; it has no word of its own for a disk that is full.
fn kind(error: &BackendError) -> Code {
    let full = ["no space left on device", "disk quota exceeded"];
    if full.iter().any(|words| error.0.contains(words)) {
        code::IMAGE_SPACE
    } else {
        code::IMAGE_PULL
    }
}
