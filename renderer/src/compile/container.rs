//! One container to one `.container` file and its unit.

use flotta_bundle::code;
use flotta_bundle::manifest::{FileKind, Pull, Unit, Wanted};
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::env::{environment, expand};
use super::volume::{Mounted, Volumes};
use super::writer::{Writer, fits_a_line};
use super::{Job, QUADLET_FOLDER, pod};

/// What a container is to its workload.
pub(super) enum Role {
    /// The only one: it publishes the ports itself.
    Alone { ports: Vec<String> },
    /// Runs to its end before the others start.
    Init { after: Option<String> },
    /// One of several in a pod.
    Member { after: Option<String> },
}

pub(super) fn container(
    job: &mut Job<'_>,
    spec: &PodSpec,
    container: &Container,
    name: &str,
    pointer: &str,
    volumes: &Volumes,
    role: &Role,
) {
    let Some(image) = image(job, container, pointer) else {
        return;
    };
    let variables = environment(job, container, pointer);
    let mut file = Writer::default();
    file.section("Unit");
    file.value("Description", &format!("Flotta workload {}", job.name));
    file.fixed("StartLimitIntervalSec", "0");
    if let Role::Init { after: Some(first) } | Role::Member { after: Some(first) } = role {
        file.value("Requires", first);
        file.value("After", first);
    }
    file.section("Container");
    file.value("Image", &image);
    file.value("ContainerName", name);
    match role {
        Role::Alone { ports } => {
            for port in ports {
                file.value("PublishPort", port);
            }
            pod::network(job, spec, |key, value| file.value(key, value));
            for word in pod::host_words(job, spec) {
                file.words("PodmanArgs", [word.as_str()]);
            }
        }
        Role::Init { .. } | Role::Member { .. } => file.value("Pod", &format!("{}.pod", job.name)),
    }
    for (key, value) in &variables {
        file.words("Environment", [format!("{key}={value}").as_str()]);
    }
    command(&mut file, container, &variables);
    if let Some(folder) = &container.working_dir {
        if fits_a_line(folder) && folder.starts_with('/') {
            file.value("WorkingDir", folder);
        } else {
            job.refuse(
                code::SCHEMA,
                &format!("{pointer}/workingDir"),
                "workingDir must be an absolute path of plain characters",
            );
        }
    }
    let Mounted {
        mut restart_on,
        folders,
    } = volumes.mount(job, container, pointer, &mut file);
    security(job, spec, container, pointer, &mut file);
    limits(job, container, pointer, &mut file);
    if let Some(seconds) = spec.termination_grace_period_seconds {
        file.fixed("StopTimeout", &seconds.clamp(0, 86_400).to_string());
    }
    labels(job, &mut file);
    lifecycle(spec, role, &mut file);
    for folder in &folders {
        file.words(
            "ExecStartPre",
            ["/usr/bin/mkdir", "-p", "--", folder.as_str()],
        );
    }
    let wanted_by_itself = matches!(role, Role::Alone { .. });
    if wanted_by_itself {
        file.section("Install");
        file.fixed("WantedBy", "multi-user.target");
    }
    restart_on.extend(job.put(
        QUADLET_FOLDER,
        &format!("{name}.container"),
        file.finish(),
        FileKind::Quadlet,
        0o644,
        pointer,
    ));
    let unit = format!("{name}.service");
    job.out.units.push(Unit {
        name: unit,
        workload: job.name.to_owned(),
        wanted: Wanted::Active,
        restart_on,
    });
}

/// The image, with Kubernetes' default for when to pull: a `latest` tag always, any other only when it is missing.
fn image(job: &mut Job<'_>, container: &Container, pointer: &str) -> Option<String> {
    let pointer = format!("{pointer}/image");
    let image = container.image.clone().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if image.is_empty() || image.starts_with('-') || !image.chars().all(plain) {
        job.refuse(
            code::SCHEMA,
            &pointer,
            format!("{image:?} is not an image reference"),
        );
        return None;
    }
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    let moving = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    let pull = match container.image_pull_policy.as_deref() {
        Some("Always") => Pull::Always,
        Some("Never") => Pull::Never,
        None if moving => Pull::Always,
        Some("IfNotPresent") | None => Pull::Missing,
        Some(other) => {
            job.refuse(
                code::SCHEMA,
                &pointer.replace("/image", "/imagePullPolicy"),
                format!("`{other}`: use Always, IfNotPresent or Never"),
            );
            return None;
        }
    };
    job.need_image(&image, pull, &pointer);
    Some(image)
}

/// Kubernetes' `command` replaces the image's entry point and its default arguments, `args` the arguments alone.
fn command(file: &mut Writer, container: &Container, variables: &[(String, String)]) {
    if let Some(command) = container
        .command
        .as_ref()
        .filter(|command| !command.is_empty())
    {
        let words: Vec<_> = command.iter().map(|word| expand(word, variables)).collect();
        // Podman reads a JSON array as the whole entry point; JSON's own escapes keep it on one line.
        let json = serde_json::to_string(&words).unwrap_or_default();
        file.words("PodmanArgs", ["--entrypoint", json.as_str()]);
    }
    let words: Vec<_> = container
        .args
        .iter()
        .flatten()
        .map(|word| expand(word, variables))
        .collect();
    if !words.is_empty() {
        file.words("Exec", words.iter().map(String::as_str));
    }
}

fn security(
    job: &mut Job<'_>,
    spec: &PodSpec,
    container: &Container,
    pointer: &str,
    file: &mut Writer,
) {
    let own = container.security_context.clone().unwrap_or_default();
    let pod = spec.security_context.clone().unwrap_or_default();
    if let Some(user) = own.run_as_user.or(pod.run_as_user) {
        file.fixed("User", &user.to_string());
    }
    if let Some(group) = own.run_as_group.or(pod.run_as_group) {
        file.fixed("Group", &group.to_string());
    }
    if own.privileged == Some(true) {
        file.fixed("PodmanArgs", "--privileged");
    }
    if own.read_only_root_filesystem == Some(true) {
        file.fixed("ReadOnly", "true");
    }
    if own.allow_privilege_escalation == Some(false) {
        file.fixed("NoNewPrivileges", "true");
    }
    let capabilities = own.capabilities.unwrap_or_default();
    for (key, names) in [
        ("AddCapability", capabilities.add),
        ("DropCapability", capabilities.drop),
    ] {
        for name in names.into_iter().flatten() {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                job.refuse(
                    code::SCHEMA,
                    &format!("{pointer}/securityContext/capabilities"),
                    format!("{name:?} is not a capability"),
                );
            } else {
                file.value(key, &name);
            }
        }
    }
}

fn limits(job: &mut Job<'_>, container: &Container, pointer: &str, file: &mut Writer) {
    let limits = container
        .resources
        .clone()
        .unwrap_or_default()
        .limits
        .unwrap_or_default();
    for (name, quantity) in limits {
        let pointer = format!("{pointer}/resources/limits/{name}");
        let argument = match name.as_str() {
            "memory" => thousandths(&quantity.0).map(|n| format!("--memory={}", n.div_ceil(1000))),
            "cpu" => {
                thousandths(&quantity.0).map(|n| format!("--cpus={}.{:03}", n / 1000, n % 1000))
            }
            _ => {
                let place = job.workload.document.key_place(&pointer);
                job.warn(
                    code::NOT_ACTED_ON,
                    place,
                    format!("limit `{name}` is not acted on: only memory and cpu are"),
                );
                continue;
            }
        };
        match argument {
            Some(argument) => file.fixed("PodmanArgs", &argument),
            None => job.refuse(
                code::SCHEMA,
                &pointer,
                format!("`{}` is not a quantity", quantity.0),
            ),
        }
    }
}

/// A Kubernetes quantity in thousandths: `500m`, `1.5`, `64Mi`, `2G`.
fn thousandths(quantity: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 14] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("m", 0),
        ("", 1),
    ];
    let (suffix, factor) = SUFFIXES
        .iter()
        .find(|(suffix, _)| quantity.ends_with(suffix))?;
    let (whole, part) = quantity
        .strip_suffix(suffix)?
        .split_once('.')
        .unwrap_or((quantity.strip_suffix(suffix)?, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let number: u64 = format!("0{whole}{part:0<3}").parse().ok()?;
    if *factor == 0 {
        number.checked_div(1000)
    } else {
        number.checked_mul(*factor)
    }
}

/// A label by which the workload's containers are found, and those that the user passes on (`podman/`, as Project Flotta has it).
fn labels(job: &Job<'_>, file: &mut Writer) {
    file.words("Label", [format!("flotta.workload={}", job.name).as_str()]);
    let metadata = &job.workload.object.metadata;
    for (key, all) in [
        ("Label", &metadata.labels),
        ("Annotation", &metadata.annotations),
    ] {
        for (name, value) in all.iter().flatten() {
            if let Some(name) = name.strip_prefix("podman/") {
                file.words(key, [format!("{name}={value}").as_str()]);
            }
        }
    }
}

fn lifecycle(spec: &PodSpec, role: &Role, file: &mut Writer) {
    if let Role::Init { .. } = role {
        pod::service(file, "on-failure");
        file.fixed("Type", "oneshot");
        file.fixed("RemainAfterExit", "yes");
        return;
    }
    match spec.restart_policy.as_deref() {
        Some("OnFailure") => pod::service(file, "on-failure"),
        Some("Never") => pod::service(file, "no"),
        _ => return pod::service(file, "always"),
    }
    // A container that is done stays "active (exited)", and is not started again for being done.
    file.fixed("RemainAfterExit", "yes");
}
