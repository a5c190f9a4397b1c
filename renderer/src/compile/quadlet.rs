//! Writes typed units as Quadlet files (podman-systemd.unit(5)): one line or argument for each field.
//!
//! Each type is destructured field by field, so that a field that is not written does not compile. What the oldest supported
//! Quadlet has no key for goes to `PodmanArgs=`.

mod mounts;
mod service;

use super::unit::{
    ContainerUnit, Dependency, Labels, Limits, Namespaces, Network, NetworkMode, PodUnit, Process,
    PublishedPort, Restart, Security,
};
use super::writer::Writer;
use mounts::{memory, mounts, pre_start};
use service::{health, retries, service, stop};

/// Returns the content of a `.container` file.
pub(super) fn container(unit: &ContainerUnit) -> Vec<u8> {
    let ContainerUnit {
        name,
        description,
        image,
        after,
        network: network_mode,
        namespaces: shared_namespaces,
        environment,
        process: command,
        mounts: mount_list,
        security: permissions,
        limits: resource_limits,
        labels: all_labels,
        health: check,
        service: options,
    } = unit;
    let mut file = Writer::default();
    head(&mut file, description);
    for Dependency { service, is_done } in after {
        file.value(if *is_done { "Requires" } else { "Wants" }, service);
        file.value("After", service);
    }
    file.section("Container");
    file.value("Image", image);
    file.value("ContainerName", name);
    match network_mode {
        NetworkMode::Own(own) => network(&mut file, own, &[]),
        NetworkMode::Pod(pod) => file.value("Pod", &format!("{pod}.pod")),
    }
    namespaces(&mut file, *shared_namespaces, network_mode);
    pairs(&mut file, "Environment", environment);
    process(&mut file, command);
    mounts(&mut file, mount_list);
    security(&mut file, permissions);
    limits(&mut file, resource_limits);
    stop(&mut file, options);
    if let Some(check) = check {
        health(&mut file, check);
    }
    labels(&mut file, all_labels);
    service(&mut file, name, options);
    pre_start(&mut file, mount_list);
    if let NetworkMode::Own(_) = network_mode {
        install(&mut file);
    }
    file.finish()
}

/// Returns the content of a `.pod` file.
pub(super) fn pod(unit: &PodUnit) -> Vec<u8> {
    let PodUnit {
        name,
        description,
        network: own,
        shares_processes,
        own_users,
        memory: shared,
    } = unit;
    let mut file = Writer::default();
    head(&mut file, description);
    file.section("Pod");
    file.value("PodName", name);
    // The pod must not stop while it is empty: after one init container has finished and before the next one starts.
    network(&mut file, own, &["--exit-policy=continue"]);
    if *shares_processes {
        file.fixed("PodmanArgs", "--share=+pid");
    }
    if *own_users {
        file.fixed("PodmanArgs", "--userns=auto");
    }
    retries(&mut file, Restart::OnFailure);
    memory(&mut file, shared);
    install(&mut file);
    file.finish()
}

fn head(file: &mut Writer, description: &str) {
    file.section("Unit");
    file.value("Description", description);
    file.fixed("StartLimitIntervalSec", "0");
}

fn install(file: &mut Writer) {
    file.section("Install");
    file.fixed("WantedBy", "multi-user.target");
}

/// Writes one line for each name and value.
fn pairs(file: &mut Writer, key: &str, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        file.words(key, [format!("{name}={value}").as_str()]);
    }
}

/// Writes the network, and arguments. Host name and aliases are arguments, too, because the oldest supported Quadlet has no keys
/// for them in pods.
fn network(file: &mut Writer, network: &Network, arguments: &[&str]) {
    let Network {
        ports,
        host,
        dns,
        dns_search,
        dns_options,
        hostname,
        hosts,
        sysctls,
    } = network;
    for published in ports {
        file.value("PublishPort", &port(published));
    }
    if *host {
        file.fixed("Network", "host");
        file.fixed("PodmanArgs", "--uts=host");
    }
    for server in dns {
        file.value("DNS", server);
    }
    for domain in dns_search {
        file.value("DNSSearch", domain);
    }
    for option in dns_options {
        argument(file, "--dns-option", option);
    }
    for argument in arguments {
        file.words("PodmanArgs", [*argument]);
    }
    if let Some(name) = hostname {
        argument(file, "--hostname", name);
    }
    for (name, address) in hosts {
        argument(file, "--add-host", &format!("{name}:{address}"));
    }
    for (name, value) in sysctls {
        argument(file, "--sysctl", &format!("{name}={value}"));
    }
}

/// Writes a Podman argument for which not every supported version has a key.
fn argument(file: &mut Writer, name: &str, value: &str) {
    file.words("PodmanArgs", [format!("{name}={value}").as_str()]);
}

fn namespaces(file: &mut Writer, shares: Namespaces, network_mode: &NetworkMode) {
    let Namespaces {
        host_processes,
        host_ipc,
        own_users,
    } = shares;
    let own_users = own_users && matches!(network_mode, NetworkMode::Own(_));
    for (is, argument) in [
        (host_processes, "--pid=host"),
        (host_ipc, "--ipc=host"),
        (own_users, "--userns=auto"),
    ] {
        if is {
            file.fixed("PodmanArgs", argument);
        }
    }
}

/// Returns a port in Podman's format: `[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`.
fn port(port: &PublishedPort) -> String {
    let PublishedPort {
        address,
        host,
        container,
        protocol,
    } = port;
    let address = match address {
        none if none.is_empty() => String::new(),
        six if six.contains(':') => format!("[{six}]:"),
        four => format!("{four}:"),
    };
    let protocol = match protocol {
        super::unit::Protocol::Tcp => String::new(),
        other => format!("/{other}"),
    };
    format!("{address}{host}:{container}{protocol}")
}

fn process(file: &mut Writer, process: &Process) {
    let Process {
        entrypoint,
        arguments,
        working_dir,
        terminal,
        input,
    } = process;
    if !entrypoint.is_empty() {
        // Podman reads a JSON array as the whole entry point, and JSON's escapes keep it on one line.
        let json = serde_json::to_string(entrypoint).unwrap_or_default();
        file.words("PodmanArgs", ["--entrypoint", json.as_str()]);
    }
    if !arguments.is_empty() {
        file.words("Exec", arguments.iter().map(String::as_str));
    }
    if let Some(folder) = working_dir {
        file.value("WorkingDir", folder);
    }
    for (is, argument) in [(terminal, "--tty"), (input, "--interactive")] {
        if *is {
            file.fixed("PodmanArgs", argument);
        }
    }
}

fn security(file: &mut Writer, security: &Security) {
    let Security {
        user,
        group,
        groups,
        privileged,
        read_only,
        no_new_privileges,
        add_capabilities,
        drop_capabilities,
        options,
    } = security;
    for (key, id) in [("User", user), ("Group", group)] {
        if let Some(id) = id {
            file.fixed(key, &id.to_string());
        }
    }
    for group in groups {
        file.fixed("PodmanArgs", &format!("--group-add={group}"));
    }
    for (is, key, value) in [
        (privileged, "PodmanArgs", "--privileged"),
        (read_only, "ReadOnly", "true"),
        (no_new_privileges, "NoNewPrivileges", "true"),
    ] {
        if *is {
            file.fixed(key, value);
        }
    }
    for name in add_capabilities {
        file.value("AddCapability", name);
    }
    for name in drop_capabilities {
        file.value("DropCapability", name);
    }
    for option in options {
        argument(file, "--security-opt", option);
    }
}

fn limits(file: &mut Writer, limits: &Limits) {
    let Limits {
        cpu,
        memory,
        reserved,
        devices,
    } = limits;
    if let Some(cpu) = cpu {
        let (whole, part) = (cpu / 1000, cpu % 1000);
        file.fixed("PodmanArgs", &format!("--cpus={whole}.{part:03}"));
    }
    if let Some(bytes) = memory {
        file.fixed("PodmanArgs", &format!("--memory={bytes}"));
        // Podman would let it have as much again of swap
        file.fixed("PodmanArgs", &format!("--memory-swap={bytes}"));
    }
    if let Some(bytes) = reserved {
        file.fixed("PodmanArgs", &format!("--memory-reservation={bytes}"));
    }
    for device in devices {
        argument(file, "--device", device);
    }
}

fn labels(file: &mut Writer, labels: &Labels) {
    let Labels {
        labels,
        annotations,
    } = labels;
    pairs(file, "Label", labels);
    pairs(file, "Annotation", annotations);
}
