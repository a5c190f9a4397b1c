//! Pulls images before anything of the running system changes.

use std::collections::{BTreeMap, BTreeSet};

use flotta_bundle::Owner;
use flotta_bundle::code::{self, Code, Problem};
use flotta_bundle::manifest::{Image, Manifest, Pull};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::apply::Failures;
use crate::backend::{BackendError, Podman};

/// Images pulled at once: a slow one must not hold up the others, and a small device has little memory.
const AT_ONCE: usize = 3;

/// Images that must be pulled, and whether some could not be looked up.
pub(super) struct Missing<'a> {
    images: Vec<&'a Image>,
    failures: BTreeMap<&'a str, (&'a Image, Problem)>,
    /// Whether Podman did not answer for some image.
    blind: bool,
    wanted: BTreeSet<&'a str>,
}

/// Looks up the images of workloads that are about to start, and of those that are down: a unit in a restart loop may lack
/// only its image. For a new manifest, also those that are always pulled.
pub(super) async fn missing<'a, P: Podman>(
    manifest: &'a Manifest,
    starts: &'a BTreeSet<String>,
    down: &'a BTreeSet<String>,
    is_new: bool,
    podman: &P,
) -> Missing<'a> {
    let mut missing = Missing {
        images: Vec::new(),
        failures: BTreeMap::new(),
        blind: false,
        wanted: starts.union(down).map(String::as_str).collect(),
    };
    for image in &manifest.images {
        let of = |names: &BTreeSet<String>| {
            image
                .workloads
                .iter()
                .any(|owner| names.contains(owner.as_str()))
        };
        let (starts, down) = (of(starts), of(down));
        if !starts && !down {
            continue;
        }
        if image.pull == Pull::Always && is_new {
            missing.images.push(image);
            continue;
        }
        match podman.has_image(&image.reference).await {
            Ok(true) => {}
            Ok(false) if image.pull == Pull::Never => {
                let why = "it is not in the device's store, and imagePullPolicy is Never";
                let problem = problem(image, code::IMAGE_PULL, why);
                missing.failures.insert(&image.reference, (image, problem));
            }
            Ok(false) => missing.images.push(image),
            Err(error) => {
                missing.blind = true;
                // a workload that is down has a reason of its own, unless its image is missing
                if starts {
                    let problem = failure(image, &error);
                    missing.failures.insert(&image.reference, (image, problem));
                }
            }
        }
    }
    missing
}

impl<'a> Missing<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Whether Podman could not say whether some image is there.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = &'a str> {
        self.images
            .iter()
            .flat_map(|image| image.workloads.iter().map(Owner::as_str))
    }

    /// Pulls the images, and returns the workloads whose images could not be pulled.
    pub(super) async fn get<P: Podman>(self, podman: &P) -> Failures {
        let mut failures = self.failures;
        let mut pulls = stream::iter(self.images)
            .map(|image| async move { (image, podman.pull(&image.reference).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((image, result)) = pulls.next().await {
            if let Err(error) = result {
                failures.insert(&image.reference, (image, failure(image, &error)));
            }
        }
        let mut held = Failures::new();
        for (image, problem) in failures.into_values() {
            for workload in image
                .workloads
                .iter()
                .filter(|name| self.wanted.contains(name.as_str()))
            {
                held.entry(workload.clone())
                    .or_insert_with(|| problem.clone());
            }
        }
        held
    }
}

/// The problem to report when Podman does not find or pull an image.
fn failure(image: &Image, error: &BackendError) -> Problem {
    let code = match error {
        BackendError::Storage(_) => code::STORAGE,
        BackendError::NoSpace(_) => code::IMAGE_SPACE,
        _ => code::IMAGE_PULL,
    };
    problem(image, code, error.to_string())
}

fn problem(image: &Image, code: Code, detail: impl Into<String>) -> Problem {
    Problem::new(code, format!("image {}", image.reference))
        .about(&image.reference)
        .with_detail(detail)
}
