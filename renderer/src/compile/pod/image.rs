//! The image of a container, and its pull policy.

use flotta_bundle::code;
use flotta_bundle::manifest::Pull;

use super::context::ContainerContext;
use super::field::Field;
use crate::compile::job::Job;

pub(super) const FIELDS: &[Field] = &[
    Field::supported("containers[].image", "`Image=` and the manifest's images"),
    Field::supported("containers[].imagePullPolicy", "the manifest's images"),
    Field::no_effect(
        "imagePullSecrets",
        "a device pulls with the credentials that it has: `/etc/containers/auth.json`",
    ),
];

/// The container's image.
pub(super) fn image(job: &mut Job<'_>, context: ContainerContext<'_>) -> Option<String> {
    let image = context.container.image.clone().unwrap_or_default();
    let policy = context.container.image_pull_policy.as_deref();
    let places = (context.at("image"), context.at("imagePullPolicy"));
    needed(job, image, policy, (&places.0, &places.1))
}

/// Adds an image to the workload and returns its full reference. The default pull policy is Kubernetes': `Always` for the tag
/// `latest`, otherwise `IfNotPresent`. The pointers are those of the image and of the policy.
pub(super) fn needed(
    job: &mut Job<'_>,
    image: String,
    policy: Option<&str>,
    (pointer, policy_pointer): (&str, &str),
) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if image.is_empty() || image.starts_with('-') || !image.chars().all(plain) {
        let message = format!("{image:?} is not an image reference");
        job.refuse(code::SCHEMA, pointer, message);
        return None;
    }
    let image = whole(job, image, pointer);
    let last = image.rsplit('/').next();
    let tag = last
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    let moving = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    let pull = match policy {
        Some("Always") => Pull::Always,
        Some("Never") => Pull::Never,
        None if moving => Pull::Always,
        Some("IfNotPresent") | None => Pull::Missing,
        Some(other) => {
            let message = format!("`{other}`: use Always, IfNotPresent or Never");
            job.refuse(code::SCHEMA, policy_pointer, message);
            return None;
        }
    };
    let place = job.workload.document.place(pointer);
    job.need_image(&image, pull, place);
    Some(image)
}

/// Whether a reference names its registry.
pub(in crate::compile) fn names_registry(image: &str) -> bool {
    let registry = image.split_once('/').map(|(registry, _)| registry);
    registry.is_some_and(|name| name == "localhost" || name.contains(['.', ':']))
}

/// Returns a reference with its registry. As in Kubernetes, the default is Docker Hub; Podman would use the device's
/// configuration.
fn whole(job: &mut Job<'_>, image: String, pointer: &str) -> String {
    if names_registry(&image) {
        return image;
    }
    let whole = match image.split_once('/') {
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    };
    let place = job.workload.document.place(pointer);
    let message =
        format!("image `{image}` names no registry: it means `{whole}`, as in Kubernetes");
    job.warn(code::SHORT_IMAGE, place, message);
    whole
}
