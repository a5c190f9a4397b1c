//! The ports of the machine that the YAML of `.kube` files uses.

use serde_json::Value;

use super::place;
use crate::compile::compiled::Port;
use crate::compile::job::Job;
use crate::compile::unit::Protocol;
use crate::decode::decode;
use crate::pointer;
use crate::quadlet::Set;
use crate::quadlet::file::Spot;
use crate::quadlet::references::resolve;
use crate::quadlet::unit::Unit;

/// The pointers to a pod's spec: in a pod, and in objects with a pod template.
const SPECS: [&str; 2] = ["/spec", "/spec/template/spec"];

/// Returns the ports of the device that the YAML of a `.kube` file publishes. YAML that cannot be read is reported.
pub(super) fn ports(job: &mut Job<'_>, set: &Set<'_>, unit: &Unit<'_>) -> Vec<Port> {
    let yaml = unit
        .said("Kube", "Yaml")
        .filter(|yaml| !yaml.text.starts_with('/'));
    let Some(name) = yaml.and_then(|yaml| resolve(yaml.text)) else {
        return Vec::new();
    };
    let Some(content) = set.files.get(name.as_str()) else {
        return Vec::new();
    };
    let at = |job: &Job<'_>, (line, column, len): (usize, usize, usize)| {
        let spot = (line > 0).then_some(Spot { line, column, len });
        place(job, &name, spot)
    };
    let documents = match decode(&name, content.as_bytes()) {
        Ok(documents) => documents,
        Err(mut finding) => {
            finding.place = at(job, finding.place.span());
            job.out.findings.push(*finding);
            return Vec::new();
        }
    };
    let mut ports = Vec::new();
    for document in &documents {
        for spec in SPECS {
            if document.at(&format!("{spec}/hostNetwork")) == Some(&Value::Bool(true)) {
                continue;
            }
            for pointer in host_ports(&document.value, spec) {
                let port = document.at(&pointer).unwrap_or(&Value::Null);
                let text = |key: &str| port[key].as_str().unwrap_or_default();
                let number = port["hostPort"]
                    .as_u64()
                    .and_then(|n| u16::try_from(n).ok());
                ports.extend(number.filter(|number| *number > 0).map(|number| Port {
                    address: text("hostIP").to_owned(),
                    first: number,
                    last: number,
                    protocol: Protocol::of(text("protocol")),
                    place: at(job, document.place(&format!("{pointer}/hostPort")).span()),
                }));
            }
        }
    }
    ports
}

/// Returns the pointers of all ports of a pod's containers.
fn host_ports(value: &Value, spec: &str) -> Vec<String> {
    let list = |pointer: &str| {
        let items = pointer::find(value, pointer).and_then(Value::as_array);
        0..items.map_or(0, Vec::len)
    };
    let mut found = Vec::new();
    for field in ["initContainers", "containers"] {
        for container in list(&format!("{spec}/{field}")) {
            let ports = format!("{spec}/{field}/{container}/ports");
            found.extend(list(&ports).map(|port| format!("{ports}/{port}")));
        }
    }
    found
}
