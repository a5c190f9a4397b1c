//! Rules of single objects that a schema cannot express.

use flotta_api::v1alpha1::{EdgeWorkload, WorkloadType};
use flotta_bundle::{code, manifest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Checked;
use crate::decode::Document;
use crate::finding::Finding;

/// Kinds that are accepted, but not acted on yet.
const IDLE_KINDS: [&str; 3] = ["EdgeConfig", "EdgeDeviceSignedRequest", "PlaybookExecution"];

/// Returns the fields below `/spec` that are accepted, but not acted on yet.
fn idle_fields(kind: &str) -> impl Iterator<Item = &'static str> {
    const SETTINGS: &[&str] = &[
        "heartbeat/hardwareProfile",
        "osInformation",
        "storage",
        "metrics",
        "logCollection",
        "mounts",
        "values",
    ];
    let (fields, more): (&[_], &[_]) = match kind {
        "EdgeDevice" => (SETTINGS, &["requestTime"]),
        "EdgeDeviceSet" => (SETTINGS, &[]),
        "EdgeWorkload" => (
            &["data", "imageRegistries", "metrics", "logCollection"],
            &[],
        ),
        _ => (&[], &[]),
    };
    fields.iter().chain(more).copied()
}

/// Warns about kinds and fields that have no effect in this version.
pub(super) fn unused(kind: &str, document: &Document) -> Vec<Finding> {
    if IDLE_KINDS.contains(&kind) {
        let message = format!("`{kind}` is accepted but not acted on yet");
        return vec![Finding::warning(
            code::NOT_ACTED_ON,
            document.place("/kind"),
            message,
        )];
    }
    idle_fields(kind)
        .map(|field| (field, format!("/spec/{field}")))
        .filter(|(_, pointer)| document.at(pointer).is_some())
        .map(|(field, pointer)| {
            let field = field.replace('/', ".");
            let message = format!("`{field}` is accepted but not acted on yet");
            Finding::warning(code::NOT_ACTED_ON, document.key_place(&pointer), message)
        })
        .collect()
}

pub(super) fn selector(
    selector: Option<&LabelSelector>,
    pointer: &str,
    document: &Document,
) -> Vec<Finding> {
    let expressions = selector
        .and_then(|s| s.match_expressions.as_deref())
        .unwrap_or_default();
    let mut findings = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let pointer = format!("{pointer}/matchExpressions/{index}");
        let values = expression.values.as_ref().map_or(0, Vec::len);
        let message = match (expression.operator.as_str(), values) {
            ("In" | "NotIn", 0) => format!("operator `{}` needs `values`", expression.operator),
            ("Exists" | "DoesNotExist", 1..) => {
                format!("operator `{}` takes no `values`", expression.operator)
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => continue,
            (other, _) => {
                format!("`{other}` is not an operator: use In, NotIn, Exists or DoesNotExist")
            }
        };
        findings.push(Finding::error(
            code::SCHEMA,
            document.place(&format!("{pointer}/operator")),
            message,
        ));
    }
    findings
}

/// Checks the addresses of the server with the rules of the device.
pub(super) fn servers(servers: &[String], document: &Document) -> Option<Finding> {
    let why = manifest::check_servers(servers).err()?;
    let wrong =
        (1..=servers.len()).find(|count| manifest::check_servers(&servers[..*count]).is_err());
    let pointer = format!("/spec/servers/{}", wrong.unwrap_or(1) - 1);
    Some(Finding::error(code::SCHEMA, document.place(&pointer), why))
}

pub(super) fn workload(workload: &Checked<EdgeWorkload>) -> Vec<Finding> {
    let Checked { object, document } = workload;
    let spec = &object.spec;
    let mut findings = selector(
        spec.device_selector.as_ref(),
        "/spec/deviceSelector",
        document,
    );
    match (&spec.device, &spec.device_selector) {
        (Some(_), Some(_)) => findings.push(Finding::error(
            code::PLACEMENT,
            document.key_place("/spec/device"),
            "both `device` and `deviceSelector` are given",
        )),
        (None, None) => findings.push(Finding::error(
            code::PLACEMENT,
            document.key_place("/spec"),
            "neither `device` nor `deviceSelector` is given: the workload would run nowhere",
        )),
        _ => {}
    }
    let (wanted, other) = match spec.type_ {
        WorkloadType::Pod => ("pod", "quadlet"),
        WorkloadType::Quadlet => ("quadlet", "pod"),
    };
    let given = |field: &str| document.at(&format!("/spec/{field}")).is_some();
    if !given(wanted) {
        let place = document.place("/spec/type");
        let message = format!("`type: {wanted}` needs the field `{wanted}`");
        let mut finding = Finding::error(code::SCHEMA, place, message);
        if given(other) {
            finding = finding.with_help(format!("did you mean `type: {other}`?"));
        }
        findings.push(finding);
    } else if given(other) {
        let message = format!("`type: {wanted}` does not allow the field `{other}`");
        findings.push(Finding::error(
            code::SCHEMA,
            document.key_place(&format!("/spec/{other}")),
            message,
        ));
    }
    findings
}
