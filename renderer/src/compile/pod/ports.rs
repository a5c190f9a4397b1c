//! Published ports.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

use super::context::SPEC;
use super::field::Field;
use crate::compile::compiled::Port;
use crate::compile::job::Job;
use crate::compile::unit::{Protocol, PublishedPort};

pub(super) const FIELDS: &[Field] = &[
    Field::supported(
        "containers[].ports[].name",
        "`PORT` of a probe may be this name",
    ),
    Field::supported("containers[].ports[].containerPort", "`PublishPort=`"),
    Field::supported("containers[].ports[].hostPort", "`PublishPort=`"),
    Field::supported("containers[].ports[].hostIP", "`PublishPort=`"),
    Field::supported("containers[].ports[].protocol", "`PublishPort=`"),
];

/// Returns the published ports of all containers. As in Kubernetes, a port without `hostPort` is reachable only inside the pod. In
/// the host network no port is published, because each is a port of the device.
pub(super) fn ports(job: &mut Job<'_>, spec: &PodSpec) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    let of_host = spec.host_network == Some(true);
    let init = spec.init_containers.iter().flatten().enumerate();
    // Init containers that finish have no use for ports.
    let sidecars = init.filter(|(_, one)| one.restart_policy.as_deref() == Some("Always"));
    let sidecars = sidecars.map(|at| ("initContainers", at));
    let containers = spec.containers.iter().enumerate();
    let all = sidecars.chain(containers.map(|at| ("containers", at)));
    for (field, (index, container)) in all {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let pointer = format!("{SPEC}/{field}/{index}/ports/{at}");
            published.extend(publish(job, port, of_host, &pointer));
        }
    }
    if of_host { Vec::new() } else { published }
}

fn publish(
    job: &mut Job<'_>,
    port: &ContainerPort,
    of_host: bool,
    pointer: &str,
) -> Option<PublishedPort> {
    let mut number = |number: i32, field: &str| {
        let good = u16::try_from(number).ok().filter(|number| *number > 0);
        if good.is_none() {
            let message = format!("{number} is not a port: use a number from 1 to 65535");
            job.refuse(code::SCHEMA, &format!("{pointer}/{field}"), message);
        }
        good
    };
    let container = number(port.container_port, "containerPort")?;
    let host = port.host_port.filter(|host| *host != 0);
    let host = host.map_or(Some(None), |host| number(host, "hostPort").map(Some))?;
    let host = match host {
        None if of_host => container,
        Some(host) if of_host && host != container => {
            let message = "with `hostNetwork`, `hostPort` must be equal to `containerPort`";
            job.refuse(code::SCHEMA, &format!("{pointer}/hostPort"), message);
            return None;
        }
        host => host?,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            let message = format!("protocol `{other}`: use TCP, UDP or SCTP");
            job.refuse(code::SCHEMA, &format!("{pointer}/protocol"), message);
            return None;
        }
    };
    let address = port.host_ip.clone().unwrap_or_default();
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        let message = format!("`{address}` is not an IP address");
        job.refuse(code::SCHEMA, &format!("{pointer}/hostIP"), message);
        return None;
    }
    let field = port.host_port.map_or("containerPort", |_| "hostPort");
    let place = job.workload.document.place(&format!("{pointer}/{field}"));
    job.out.ports.push(Port {
        address: address.clone(),
        first: host,
        last: host,
        protocol,
        place,
    });
    Some(PublishedPort {
        address,
        host,
        container,
        protocol,
    })
}
