//! A `PodSpec` to one `.container`, or a `.pod` and its containers.

use std::collections::BTreeSet;

use flotta_bundle::code;
use flotta_bundle::manifest::{FileKind, Unit, Wanted};
use flotta_bundle::name::check_label;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::container::{Role, container};
use super::volume::Volumes;
use super::writer::Writer;
use super::{Job, QUADLET_FOLDER, unused};

pub(super) const SPEC: &str = "/spec/pod/spec";

pub(super) fn compile(job: &mut Job<'_>, spec: &PodSpec) {
    unused::warn(job);
    let containers = &spec.containers;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if containers.is_empty() {
        job.refuse(
            code::SCHEMA,
            &format!("{SPEC}/containers"),
            "a pod needs at least one container",
        );
        return;
    }
    if !words_hold(job, spec) {
        return;
    }
    let volumes = Volumes::resolve(job, spec);
    if containers.len() == 1 && init.is_empty() {
        let name = job.name.to_owned();
        let role = Role::Alone {
            ports: ports(job, containers),
        };
        container(
            job,
            spec,
            &containers[0],
            &name,
            &format!("{SPEC}/containers/0"),
            &volumes,
            &role,
        );
        return;
    }
    pod_file(job, spec, containers);
    // Init containers run one after the other, and all of them before the first of the rest.
    let mut before: Option<String> = None;
    for (index, item) in init.iter().enumerate() {
        let name = format!("{}-{}", job.name, item.name);
        let role = Role::Init {
            after: before.clone(),
        };
        container(
            job,
            spec,
            item,
            &name,
            &format!("{SPEC}/initContainers/{index}"),
            &volumes,
            &role,
        );
        before = Some(format!("{name}.service"));
    }
    for (index, item) in containers.iter().enumerate() {
        let name = format!("{}-{}", job.name, item.name);
        let role = Role::Member {
            after: before.clone(),
        };
        container(
            job,
            spec,
            item,
            &name,
            &format!("{SPEC}/containers/{index}"),
            &volumes,
            &role,
        );
    }
}

/// Whether names are what Kubernetes takes for one (they become names of units, folders and volumes), each is there once, and
/// the restart policy is one. Its schema says none of that.
fn words_hold(job: &mut Job<'_>, spec: &PodSpec) -> bool {
    let policy = spec.restart_policy.as_deref();
    if let Some(other) = policy.filter(|word| !["Always", "OnFailure", "Never"].contains(word)) {
        let message = format!("`{other}`: use Always, OnFailure or Never");
        job.refuse(code::SCHEMA, &format!("{SPEC}/restartPolicy"), message);
    }
    let containers = |list: &[Container], field| -> Vec<_> {
        let names = list.iter().map(|container| container.name.clone());
        names
            .enumerate()
            .map(|(at, name)| (name, field, at))
            .collect()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let mut all = containers(init, "initContainers");
    all.extend(containers(&spec.containers, "containers"));
    let volumes = spec.volumes.iter().flatten().enumerate();
    let volumes = volumes.map(|(at, volume)| (volume.name.clone(), "volumes", at));
    for names in [all, volumes.collect()] {
        let mut seen = BTreeSet::new();
        for (name, field, at) in &names {
            let pointer = format!("{SPEC}/{field}/{at}/name");
            if let Err(error) = check_label(name) {
                job.refuse(code::BAD_NAME, &pointer, error.to_string());
            } else if !seen.insert(name) {
                job.refuse(
                    code::DUPLICATE,
                    &pointer,
                    format!("`{name}` is defined twice"),
                );
            }
        }
    }
    !job.out.refused
}

fn pod_file(job: &mut Job<'_>, spec: &PodSpec, containers: &[Container]) {
    let name = job.name.to_owned();
    let mut file = Writer::default();
    file.section("Unit");
    file.value("Description", &format!("Flotta workload {name}"));
    file.fixed("StartLimitIntervalSec", "0");
    file.section("Pod");
    file.value("PodName", &name);
    for port in ports(job, containers) {
        file.value("PublishPort", &port);
    }
    network(job, spec, |key, value| file.value(key, value));
    // The pod lives as long as its unit: while an init container is done and the next has not begun it is empty.
    file.words("PodmanArgs", ["--exit-policy=continue"]);
    for word in host_words(job, spec) {
        file.words("PodmanArgs", [word.as_str()]);
    }
    service(&mut file, "on-failure");
    file.section("Install");
    file.fixed("WantedBy", "multi-user.target");
    let path = job.put(
        QUADLET_FOLDER,
        &format!("{name}.pod"),
        file.finish(),
        FileKind::Quadlet,
        0o644,
        "/metadata/name",
    );
    job.out.units.push(Unit {
        name: format!("{name}-pod.service"),
        workload: name,
        wanted: Wanted::Active,
        restart_on: path.into_iter().collect(),
    });
}

/// What every service of ours has: systemd tries again for as long as it takes, ever more slowly, with nobody's help.
pub(super) fn service(file: &mut Writer, restart: &str) {
    file.section("Service");
    file.fixed("Restart", restart);
    file.fixed("RestartSec", "1s");
    // From one second to a minute in six steps (systemd 254; older ones stay at a second).
    file.fixed("RestartSteps", "6");
    file.fixed("RestartMaxDelaySec", "60s");
    // Images are fetched before; this is for a device whose image store was lost and that fetches again.
    file.fixed("TimeoutStartSec", "900");
}

/// The network that a pod, or a container alone, is in.
pub(super) fn network(job: &mut Job<'_>, spec: &PodSpec, mut line: impl FnMut(&str, &str)) {
    if spec.host_network == Some(true) {
        line("Network", "host");
    }
    let config = spec.dns_config.clone().unwrap_or_default();
    for (key, values) in [("DNS", config.nameservers), ("DNSSearch", config.searches)] {
        for (index, value) in values.into_iter().flatten().enumerate() {
            let pointer = format!(
                "{SPEC}/dnsConfig/{}/{index}",
                if key == "DNS" {
                    "nameservers"
                } else {
                    "searches"
                }
            );
            if job.plain_word(&value, &pointer) {
                line(key, &value);
            }
        }
    }
}

/// Host name and aliases, as arguments: Quadlet's own keys for pods are newer than the Podman that devices have.
pub(super) fn host_words(job: &mut Job<'_>, spec: &PodSpec) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(name) = &spec.hostname
        && job.plain_word(name, &format!("{SPEC}/hostname"))
    {
        words.push(format!("--hostname={name}"));
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        for host in alias.hostnames.iter().flatten() {
            let pointer = format!("{SPEC}/hostAliases/{index}");
            if job.plain_word(host, &pointer) && job.plain_word(&alias.ip, &pointer) {
                words.push(format!("--add-host={host}:{}", alias.ip));
            }
        }
    }
    words
}

impl Job<'_> {
    /// Whether text is a host name, address or the like: no white space, quotes or control characters.
    pub(super) fn plain_word(&mut self, text: &str, pointer: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+,=".contains(c);
        let good = !text.is_empty() && text.chars().all(plain);
        if !good {
            self.refuse(
                code::SCHEMA,
                pointer,
                format!("{text:?} has a character that cannot be used here"),
            );
        }
        good
    }
}

/// Published ports in Podman's notation. A container port without `hostPort` is reachable inside the pod alone, as in Kubernetes.
fn ports(job: &mut Job<'_>, containers: &[Container]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let pointer = format!("{SPEC}/containers/{index}/ports/{at}");
            let Some(host) = port.host_port.filter(|host| *host != 0) else {
                continue;
            };
            let numbers = (
                u16::try_from(host).ok().filter(|n| *n > 0),
                u16::try_from(port.container_port).ok().filter(|n| *n > 0),
            );
            let (Some(number), Some(inner)) = numbers else {
                job.refuse(code::SCHEMA, &pointer, "a port is a number from 1 to 65535");
                continue;
            };
            let protocol = port
                .protocol
                .as_deref()
                .unwrap_or("TCP")
                .to_ascii_lowercase();
            if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
                job.refuse(
                    code::SCHEMA,
                    &format!("{pointer}/protocol"),
                    format!("protocol `{protocol}`: use TCP, UDP or SCTP"),
                );
                continue;
            }
            let address = port.host_ip.clone().unwrap_or_default();
            if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
                job.refuse(
                    code::SCHEMA,
                    &format!("{pointer}/hostIP"),
                    format!("`{address}` is not an IP address"),
                );
                continue;
            }
            let suffix = if protocol == "tcp" {
                String::new()
            } else {
                format!("/{protocol}")
            };
            let prefix = match &address {
                none if none.is_empty() => String::new(),
                six if six.contains(':') => format!("[{six}]:"),
                four => format!("{four}:"),
            };
            lines.push(format!("{prefix}{number}:{inner}{suffix}"));
            let place = job.workload.document.place(&format!("{pointer}/hostPort"));
            job.out.ports.push(super::Port {
                address,
                number,
                protocol,
                place,
            });
        }
    }
    lines
}
