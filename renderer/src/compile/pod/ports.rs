//! Ports of the device that lead to a container.

use flotta_bundle::code;
use k8s_openapi::api::core::v1::{Container, ContainerPort};

use super::asked::SPEC;
use super::field::Field;
use crate::compile::compiled::Port;
use crate::compile::job::Job;
use crate::compile::unit::{Protocol, PublishedPort};

pub(super) const FIELDS: &[Field] = &[
    Field::carried("containers[].ports[].name", "nothing: nobody asks for it"),
    Field::carried("containers[].ports[].containerPort", "`PublishPort=`"),
    Field::carried("containers[].ports[].hostPort", "`PublishPort=`"),
    Field::carried("containers[].ports[].hostIP", "`PublishPort=`"),
    Field::carried("containers[].ports[].protocol", "`PublishPort=`"),
];

/// The ports of all containers. One without `hostPort` is reachable inside the pod alone, as in Kubernetes.
pub(super) fn ports(job: &mut Job<'_>, containers: &[Container]) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let pointer = format!("{SPEC}/containers/{index}/ports/{at}");
            published.extend(publish(job, port, &pointer));
        }
    }
    published
}

fn publish(job: &mut Job<'_>, port: &ContainerPort, pointer: &str) -> Option<PublishedPort> {
    let host = port.host_port.filter(|host| *host != 0)?;
    let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
    let (Some(host), Some(container)) = (number(host), number(port.container_port)) else {
        job.refuse(code::SCHEMA, pointer, "a port is a number from 1 to 65535");
        return None;
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
    let place = job.workload.document.place(&format!("{pointer}/hostPort"));
    job.out.ports.push(Port {
        address: address.clone(),
        number: host,
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
